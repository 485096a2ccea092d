// Purpose: from query · key to the score that softmax sees: scale, bias, masks, appended keys. Uses the hooks of slots
// `causal`, `mask`, `padding` and `bias`; needs tile/scores.wgsl.

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

// Scale, bias and masks on the whole tile. kv_last is the last key of the problem's region.
fn finish_tile(tile: ScoreTile, position: Position, kv_first: u32, lane: u32) -> ScoreTile {
    let q_idx = position.q_first + lane / TX;
    let kv_idx = kv_first + lane % TX;
    let q_last = params.q_end - 1u;
    let kv_last = params.kv_end - 1u;
    let b = position.batch;
    let h = position.head;
    var finished: ScoreTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = q_idx + TY * r;
        finished.rows[r] = vec4<f32>(
            finish_score(tile.rows[r].x, b, h, i, kv_idx, q_last, kv_last),
            finish_score(tile.rows[r].y, b, h, i, kv_idx + TX, q_last, kv_last),
            finish_score(tile.rows[r].z, b, h, i, kv_idx + 2u * TX, q_last, kv_last),
            finish_score(tile.rows[r].w, b, h, i, kv_idx + 3u * TX, q_last, kv_last),
        );
    }
    return finished;
}
