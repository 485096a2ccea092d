// Purpose: hands out the log-sum-exp of each row. Hook of slot `lse`: defines load_lse and store_lse.
// Binding 5: lse, f32, [batch, heads, seqlen_q], natural logarithm; -inf for a row with no open key.

@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

fn lse_index(position: Position, q_idx: u32) -> u32 {
    return params.lse_offset + position.batch * params.lse_batch + position.head * params.lse_head
        + position.sequence.query_base + q_idx;
}

fn load_lse(position: Position, q_idx: u32) -> f32 {
    return lse[lse_index(position, q_idx)];
}

fn store_lse(position: Position, q_idx: u32, value: f32) {
    lse[lse_index(position, q_idx)] = value;
}
