// Purpose: the caller's prob_mod. Hook of slot `prob_mod`: defines modify_prob, on top of the caller's
// prob_mod(prob, batch, head, q_idx, kv_idx). Behind a sequence's end weights stay 0.

fn modify_prob(prob: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    if (is_behind_end(position) || kv_idx >= position.sequence.kv_end) {
        return prob;
    }
    return prob_mod(prob, position.batch, position.head, q_idx, kv_idx);
}
