// Purpose: sliding window. Hook of slot `window`: defines window_open, window_kv_begin, window_kv_end,
// window_open_begin and window_open_end.

fn window_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    let own = i32(q_idx) + position.sequence.window_offset;
    return (i32(kv_idx) >= own - params.window_left) & (i32(kv_idx) <= own + params.window_right);
}

// The first key that any row of the tile reaches: tiles before it are never visited. Appended keys, at the end, are reached by
// all, however far the window lies behind them.
fn window_kv_begin(position: Position) -> u32 {
    let reach = u32(max(i32(position.q_first) + position.sequence.window_offset - params.window_left, 0));
    return min(reach, params.masked_keys);
}

// The first key behind those that any row of the tile reaches; appended keys are reached by all.
fn window_kv_end(position: Position) -> u32 {
    let kv_end = position.sequence.kv_end;
    let reach = u32(max(i32(position.q_last) + position.sequence.window_offset + params.window_right + 1, 0));
    return select(min(reach, kv_end), kv_end, params.masked_keys < params.seqlen_k);
}

// The first key that every row of the tile reaches, and the first behind those.
fn window_open_begin(position: Position) -> u32 {
    return u32(max(i32(position.q_last) + position.sequence.window_offset - params.window_left, 0));
}

fn window_open_end(position: Position) -> u32 {
    return u32(max(i32(position.q_first) + position.sequence.window_offset + params.window_right + 1, 0));
}
