// Purpose: hands out the scores at a stage. Hook of slot `emit`: defines emit_score.
// Binding 6: scores, f32, [batch, heads, rows, seqlen_k]; closed ones are -inf once masks count.

@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

fn emit_score(at: u32, position: Position, q_idx: u32, score: f32) {
    scores[at] = select(score, params.negative_infinity, STAGE == STAGE_BIASED && score == CLOSED);
}
