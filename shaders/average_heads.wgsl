// Purpose: the mean of the weights over heads, a range of heads at a time.
// Grid: one workgroup of THREADS invocations owns THREADS keys of one row of one batch; an invocation owns one key.
// Bindings: 0 params (scale is 1 / heads), 4 average, 6 weights. Hooks: none.

// [batch, seqlen_q, seqlen_k], f32.
@group(0) @binding(4) var<storage, read_write> average: array<f32>;

// [batch, heads, seqlen_q, seqlen_k], f32.
@group(0) @binding(6) var<storage, read> weights: array<f32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup.y * params.grid_x + workgroup.x;
    let rows = params.q_end - params.q_begin;
    let row_number = number / params.chunk_count;
    let j = params.kv_begin + (number % params.chunk_count) * THREADS + lane;
    if (number >= params.workgroups || j >= params.kv_end) {
        return;
    }
    let batch = params.batch_begin + row_number / rows;
    let i = params.q_begin + row_number % rows;
    let source = params.scores_offset + batch * params.scores_batch + i * params.scores_row + j;
    let target_index = params.out_offset + batch * params.out_batch + i * params.out_row + j;
    var sum = 0.0;
    // Heads before these were added by an earlier dispatch.
    if (params.head_begin > 0u) {
        sum = average[target_index];
    }
    for (var h = 0u; h < params.head_count; h++) {
        sum = fma(weights[source + (params.head_begin + h) * params.scores_head], params.scale, sum);
    }
    average[target_index] = sum;
}
