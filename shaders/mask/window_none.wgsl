// Purpose: no sliding window. Hook of slot `window`: defines window_open, window_kv_begin, window_kv_end,
// window_open_begin and window_open_end.

fn window_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

fn window_kv_begin(position: Position) -> u32 {
    return 0u;
}

fn window_kv_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}

fn window_open_begin(position: Position) -> u32 {
    return 0u;
}

fn window_open_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}
