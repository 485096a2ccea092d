// Purpose: scores for the softmax kernel, closed ones as CLOSED. Hook of slot `emit`: defines emit_score.
// Binding 6: scores, f32, [batch, heads, seqlen_q, seqlen_k].

@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

fn emit_score(at: u32, position: Position, q_idx: u32, score: f32) {
    scores[at] = score;
}
