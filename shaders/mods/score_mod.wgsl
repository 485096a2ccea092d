// Purpose: the caller's score_mod. Hook of slot `score_mod`: defines modify_score and modified_open, on top of the caller's
// score_mod(score, batch, head, q_idx, kv_idx).

fn modify_score(score: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return score_mod(score, position.batch, position.head, q_idx, kv_idx);
}

// NEGATIVE_INFINITY, or what underflowed to the real one, closes. NaN is open.
fn modified_open(score: f32) -> bool {
    return !(score <= NEGATIVE_INFINITY);
}
