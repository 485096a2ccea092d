// Purpose: second of three kernels: each row of scores becomes its weights, in place, and its log-sum-exp is handed out.
// Grid: one workgroup of THREADS invocations owns one row; an invocation owns every THREADS-th key of it.
// Bindings: 0 params, 6 scores; 5 lse where a hook declares it. Hooks: sequence, lse, state, prob_mod.
// Three sweeps (largest score; weights and their sum; division), each lane over its own keys, so one exponential a key.

// [batch, heads, seqlen_q, seqlen_k], f32: scores, then weights.
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

// One float is what one lane found in its keys: the largest score, then the sum of weights.
var<workgroup> wg_lane: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    let row = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head
        + position.q_first * params.scores_row;

    let first_max = resume_row_max(position, position.q_first);
    var row_max = first_max;
    for (var j = lane; j < params.seqlen_k; j += THREADS) {
        row_max = max(row_max, scores[row + j]);
    }
    wg_lane[lane] = row_max;
    // wg_lane, written by all lanes, is halved by the lanes below `stride` until lane 0 holds the row's.
    workgroupBarrier();
    for (var stride = THREADS / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            wg_lane[lane] = max(wg_lane[lane], wg_lane[lane + stride]);
        }
        workgroupBarrier();
    }
    row_max = wg_lane[0];
    // All have read the maximum before the sums are written over it.
    workgroupBarrier();

    var row_sum = select(0.0, resume_row_sum(first_max) * exp_below(first_max - row_max), lane == 0u);
    for (var j = lane; j < params.seqlen_k; j += THREADS) {
        let weight = weight_of(scores[row + j], row_max);
        scores[row + j] = weight;
        row_sum += weight;
    }
    wg_lane[lane] = row_sum;
    // As above, for the sums.
    workgroupBarrier();
    for (var stride = THREADS / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            wg_lane[lane] = wg_lane[lane] + wg_lane[lane + stride];
        }
        workgroupBarrier();
    }
    row_sum = sum_or_nan(wg_lane[0]);

    // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = row_sum == 0.0;
    let factor = select(1.0 / row_sum, 0.0, empty);
    for (var j = lane; j < params.seqlen_k; j += THREADS) {
        // Only the zero of a closed position stays minus zero: the next kernel tells by it.
        let closed = bitcast<u32>(scores[row + j]) == CLOSED_WEIGHT_BITS;
        let prob = modify_prob(select(scores[row + j] * factor, 0.0, closed), position, position.q_first, j);
        let zero = select(0u, CLOSED_WEIGHT_BITS, closed);
        scores[row + j] = bitcast<f32>(select(bitcast<u32>(prob), zero, prob == 0.0));
    }
    if (lane == 0u && !is_behind_end(position)) {
        let value = select(log_sum_exp(row_max, row_sum), params.negative_infinity, empty);
        store_lse(position, position.q_first, value);
    }
}
