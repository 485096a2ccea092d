// Purpose: dropout by a given mask. Hook of slot `dropout`: defines drop_weights.
// Binding 14: dropout_mask, one byte a weight, four to a word, [batch, heads, seqlen_q, seqlen_k]; 0 drops.

@group(0) @binding(14) var<storage, read> dropout_mask: array<u32>;

fn drop_weights(weights: vec4<f32>, position: Position, q_idx: u32, kv_idx: u32) -> vec4<f32> {
    let row = params.dropout_offset + position.batch * params.dropout_batch + position.head * params.dropout_head
        + min(q_idx, position.q_last) * params.dropout_row;
    var factors = vec4<f32>(0.0);
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        let at = row + min(kv_idx + c * TX, position.sequence.kv_end - 1u);
        if (((dropout_mask[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu) != 0u) {
            factors[c] = params.dropout_scale;
        }
    }
    return weights * factors;
}
