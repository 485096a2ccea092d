// Purpose: hands out the log-sum-exp of each row. Hook of slot `lse`: defines load_lse and store_lse.
// Binding 5: lse, f32, [batch, heads, seqlen_q], natural logarithm; -inf for a row with no open key.

@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

fn load_lse(batch: u32, head: u32, q_idx: u32) -> f32 {
    return lse[params.lse_offset + batch * params.lse_batch + head * params.lse_head + q_idx];
}

fn store_lse(batch: u32, head: u32, q_idx: u32, value: f32) {
    lse[params.lse_offset + batch * params.lse_batch + head * params.lse_head + q_idx] = value;
}
