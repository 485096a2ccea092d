// Purpose: the caller has no score_mod. Hook of slot `score_mod`: defines modify_score and modified_open.

fn modify_score(score: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return score;
}

fn modified_open(score: f32) -> bool {
    return true;
}
