// Purpose: no ALiBi. Hook of slot `alibi`: defines alibi_score.

fn alibi_score(position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return 0.0;
}
