// Purpose: no causal rule. Hook of slot `causal`: defines causal_open and causal_kv_end.

fn causal_open(q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

fn causal_kv_end(q_last: u32) -> u32 {
    return params.kv_end;
}
