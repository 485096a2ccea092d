// Purpose: causal rule. Hook of slot `causal`: defines causal_open, causal_kv_end and causal_open_end.

fn causal_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return i32(kv_idx) <= i32(q_idx) + position.sequence.causal_offset;
}

// The first key that no row of the tile reaches: tiles from there on are never visited. Appended keys, which every row
// reaches, lie at the end, so with any of them there is no such key.
fn causal_kv_end(position: Position) -> u32 {
    let kv_end = position.sequence.kv_end;
    let reach = u32(max(i32(position.q_last) + position.sequence.causal_offset + 1, 0));
    return select(min(reach, kv_end), kv_end, params.masked_keys < params.seqlen_k);
}

// The first key that some row of the tile does not reach.
fn causal_open_end(position: Position) -> u32 {
    return min(u32(max(i32(position.q_first) + position.sequence.causal_offset + 1, 0)), position.sequence.kv_end);
}
