// Purpose: causal rule. Hook of slot `causal`: defines causal_open and causal_kv_end.

fn causal_open(q_idx: u32, kv_idx: u32) -> bool {
    return i32(kv_idx) <= i32(q_idx) + params.causal_offset;
}

// The first key that no row up to q_last reaches: tiles from there on are never visited. Appended keys, which every row
// reaches, lie at the end, so with any of them there is no such key.
fn causal_kv_end(q_last: u32) -> u32 {
    let reach = u32(max(i32(q_last) + params.causal_offset + 1, 0));
    return select(min(reach, params.kv_end), params.kv_end, params.masked_keys < params.seqlen_k);
}
