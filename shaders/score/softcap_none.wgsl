// Purpose: no softcap. Hook of slot `softcap`: defines cap_score.

fn cap_score(score: f32) -> f32 {
    return score;
}
