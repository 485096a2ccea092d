// Purpose: hands out the weights, computed anew from the log-sum-exp. Hook of slot `emit`: defines emit_score.
// Bindings: 5 lse, f32, [batch, heads, seqlen_q], read; 6 weights, f32, [batch, heads, rows, seqlen_k].

@group(0) @binding(5) var<storage, read> lse: array<f32>;
@group(0) @binding(6) var<storage, read_write> weights: array<f32>;

fn emit_score(at: u32, position: Position, q_idx: u32, score: f32) {
    let row_lse = lse[params.lse_offset + position.batch * params.lse_batch + position.head * params.lse_head
        + position.sequence.query_base + min(q_idx, position.q_last)];
    let below = score - row_lse;
    let weight = select(exp_below(below), below, is_not_a_number(below));
    weights[at] = select(weight, 0.0, score == CLOSED);
}
