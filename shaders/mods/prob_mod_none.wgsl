// Purpose: the caller has no prob_mod. Hook of slot `prob_mod`: defines modify_prob.

fn modify_prob(prob: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return prob;
}
