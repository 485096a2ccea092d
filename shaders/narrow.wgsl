// Purpose: out, which several dispatches have accumulated in f32 in the workspace, in the caller's storage type.
// Grid: one workgroup of THREADS invocations owns one row of one head; an invocation owns every THREADS-th vec4 of it.
// Bindings: 0 params, 4 out, 16 partial. Hooks: sequence, out.

// [batch, heads, seqlen_q, 4 * DV4], contiguous, f32; its strides are those of scores in params, where nothing else uses them.
@group(0) @binding(16) var<storage, read> partial: array<vec4<f32>>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    if (is_behind_end(position)) {
        return;
    }
    let i = position.sequence.query_base + position.q_first;
    let source = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head
        + i * params.scores_row;
    let row = params.out_offset + position.batch * params.out_batch + position.head * params.out_head + i * params.out_row;
    for (var d4 = lane; d4 < DV4; d4 += THREADS) {
        store_out(row, d4, partial[(source >> 2u) + d4]);
    }
}
