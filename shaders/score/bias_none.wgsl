// Purpose: no bias. Hook of slot `bias`: defines bias_open and bias_score.

fn bias_open(bias_value: f32) -> bool {
    return true;
}

fn bias_score(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return 0.0;
}
