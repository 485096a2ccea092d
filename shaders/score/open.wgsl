// Purpose: scores and weights of positions that are known to be open. Uses the hooks of slots `softcap` and `alibi`. Needs state.wgsl.

// The score of a position that is known to be open: finish_score without what can close one.
fn finish_open_score(product: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return cap_score(product * params.scale) + alibi_score(position, min(q_idx, position.q_last), kv_idx);
}

// log2(exp(score)), finite where the score is: no score that some key of a row can tell from another is as low as where this ends.
fn log2_of_exp(score: f32) -> f32 {
    return max(score, -2e38) * LOG2_E;
}

// Their unnormalised weights against log2_of_exp of the row's maximum.
fn open_weights(scores: vec4<f32>, log2_max: f32) -> vec4<f32> {
    return exp2(fma(scores, vec4<f32>(LOG2_E), vec4<f32>(-log2_max)));
}
