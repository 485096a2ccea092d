// Purpose: joins what runs of keys made of a row by their log-sum-exp: lse = ln sum_n exp(lse_n), out = sum_n exp(lse_n - lse)
// out_n.
// Grid: one workgroup of THREADS invocations owns one row of one head; an invocation owns every THREADS-th vec4 of it.
// Bindings: 0 params, 4 out, 21 parts, 22 part_lse; 5 lse where a hook declares it. Hooks: sequence, out, lse.
// Source: Dao, "FlashAttention-2" (2023), 3.1.

// As split/parts.wgsl writes them.
@group(0) @binding(21) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(22) var<storage, read> part_lse: array<f32>;

// 0 for a part without open keys, whose out is 0 too; NaN of NaN, by its bits, for exp2 promises nothing.
fn part_weight(value: f32, highest: f32) -> f32 {
    return select(select(exp_below(value - highest), 0.0, value < CLOSED), value, is_not_a_number(value));
}

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
    let lse_row = position.batch * params.lse_batch + position.head * params.lse_head + i;
    var highest = CLOSED;
    for (var n = 0u; n < params.part_count; n++) {
        let value = part_lse[lse_row + n * params.part_lse_stride];
        highest = max(highest, select(value, CLOSED, value < CLOSED || is_not_a_number(value)));
    }
    var sum = 0.0;
    for (var n = 0u; n < params.part_count; n++) {
        sum += part_weight(part_lse[lse_row + n * params.part_lse_stride], highest);
    }
    // The part of the largest lse has weight 1, so the sum is 0 only if no part has an open key.
    let empty = sum == 0.0;
    let factor = select(1.0 / sum, 0.0, empty);
    let row = params.out_offset + position.batch * params.out_batch + position.head * params.out_head + i * params.out_row;
    let part_row = position.batch * params.scores_batch + position.head * params.scores_head + i * params.scores_row;
    for (var d4 = lane; d4 < DV4; d4 += THREADS) {
        var channels = vec4<f32>(0.0);
        for (var n = 0u; n < params.part_count; n++) {
            let weight = part_weight(part_lse[lse_row + n * params.part_lse_stride], highest);
            channels = fma(vec4<f32>(weight), parts[((part_row + n * params.part_stride) >> 2u) + d4], channels);
        }
        store_out(row, d4, channels * factor);
    }
    if (lane == 0u) {
        store_lse(position, position.q_first, select(log_sum_exp(highest, sum), params.negative_infinity, empty));
    }
}
