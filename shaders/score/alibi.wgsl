// Purpose: attention with linear biases: a penalty that grows with the distance. Hook of slot `alibi`: defines alibi_score.
// Binding 11: alibi_slopes, f32, [heads].
// Source: Press et al., "Train Short, Test Long" (2021), with FlashAttention's |i + seqlen_k - seqlen_q - j|.

@group(0) @binding(11) var<storage, read> alibi_slopes: array<f32>;

fn alibi_score(position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    let distance = abs(i32(q_idx) + position.sequence.alibi_offset - i32(kv_idx));
    return -alibi_slopes[params.alibi_slopes_offset + position.head] * f32(distance);
}
