// Purpose: from query · key to the score that softmax sees: scale, bias, masks, appended keys. Uses the hooks of slots
// `causal`, `mask`, `padding` and `bias`.

fn finish_score(product: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32, q_last: u32, kv_last: u32) -> f32 {
    // Rows and keys past the end are never read or written, but their lanes compute: keep their loads within bounds.
    let i = min(q_idx, q_last);
    let j = min(kv_idx, kv_last);
    var score = product * params.scale;
    var open = true;
    if (j < params.masked_keys) {
        let added = bias_score(batch, head, i, j);
        score = score + added + padding_score(batch, j);
        open = bias_open(added) && causal_open(i, j) && mask_open(batch, head, i, j) && padding_open(batch, j);
    }
    return select(CLOSED, open_score(score), open && kv_idx <= kv_last);
}
