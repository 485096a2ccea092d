// Purpose: additive bias, stored as f16. Hook of slot `bias`: defines bias_open and bias_score.
// Binding 8: bias, f16, two a word, [batch, heads, seqlen_q, masked_keys] with broadcast strides; -inf closes.

@group(0) @binding(8) var<storage, read> bias: array<u32>;

fn bias_open(bias_value: f32) -> bool {
    return !(bias_value < CLOSED);
}

fn bias_score(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    let at = params.bias_offset + batch * params.bias_batch + head * params.bias_head + q_idx * params.bias_row
        + kv_idx * params.bias_key;
    return unpack2x16float(bias[at >> 1u])[at & 1u];
}
