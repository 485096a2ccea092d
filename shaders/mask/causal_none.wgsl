// Purpose: no causal rule. Hook of slot `causal`: defines causal_open, causal_kv_end and causal_open_end.

fn causal_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

fn causal_kv_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}

fn causal_open_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}
