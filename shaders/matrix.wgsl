// Purpose: attention in one kernel by products of matrices, for devices with units for these: out and lse of TILE_Q rows, never
// storing a score outside the workgroup.
// Grid: one workgroup of THREADS = TILE_Q * ROW_LANES invocations owns TILE_Q query rows of one head and one chunk of value channels. A
// subgroup owns MATRIX of the rows and, if there are several subgroups for these rows, every second of their squares of MATRIX keys or
// channels. For the softmax in between, ROW_LANES invocations own a row, and KEYS4 times four keys of each tile.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: matrices, query, key, value, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod,
// alibi, bias, dropout, matrix_guard, state, acc.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1. Sums of values are rescaled only when a row's maximum has risen by more than a
// factor of 2^8, since a matrix gives no access to its rows.

// One float is what one lane holds of its row: [TILE_Q][ROW_LANES]. Written by all lanes, read by the lanes of the same row.
var<workgroup> wg_part: array<f32, THREADS>;
// [TILE_Q][TILE_KV], rows P_STRIDE apart: weights times a constant. With two WEIGHT_PARTS, TILE_KV columns of what rounding takes
// from them follow. Written by the lanes of each row, read by multiply-adds.
var<workgroup> wg_weights: array<Element, TILE_Q * P_STRIDE>;
// [0]: 1 if some row's sums must be rescaled in this tile. Set by any lane, read by all after a barrier, cleared before the next
// tile. Four words, so that what follows lies at a multiple of 16 bytes.
var<workgroup> wg_rescale: array<atomic<u32>, 4>;

// By so much (8 ln 2) may a score surpass what its row's weights are relative to.
const MOST_RISE: f32 = 5.545177444479562;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_size) lanes: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    if (is_behind_end(position)) {
        return;
    }
    // How many subgroups share a row, which of these this is, and how many squares of channels each has. Some compilers know the size
    // of a subgroup, and not the number.
    let parts = THREADS / lanes / Q_SQUARES;
    let part = subgroup / Q_SQUARES;
    let first_row = subgroup % Q_SQUARES * MATRIX;
    let slots = V_SQUARES / parts;
    let tx = lane % ROW_LANES;
    let row = lane / ROW_LANES;
    let i = position.q_first + row;
    let square = Square(first_row * S_STRIDE + part * MATRIX, row * S_STRIDE, parts * MATRIX4, tx);
    let slot_d4 = parts * MATRIX4;
    let chunk_d4 = position.chunk * DV4_CHUNK;
    let out_row = params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + (position.sequence.query_base + min(i, position.q_last)) * params.out_row;
    // Weights may be as large as dropout's scale.
    let weight_scale = WEIGHT_SCALE / clamp(params.dropout_scale, 1.0, 1e9);
    guard_begin(lane);
    stage_query(position, lane);

    // What the row's weights are relative to: a score at most MOST_RISE below the largest so far.
    var row_max = resume_row_max(position, min(i, position.q_last));
    // Of this lane's keys.
    var row_sum = select(0.0, resume_row_sum(row_max), tx == 0u);
    for (var slot = 0u; slot < slots; slot++) {
        begin_sums(slot, square, out_row, chunk_d4 + slot * slot_d4, weight_scale);
    }

    let visit = visit_of(position);
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        if (is_skipped(position, visited)) {
            continue;
        }
        if (lane == 0u) {
            atomicStore(&wg_rescale[0], 0u);
        }
        stage_key(position, visited.kv_first, lane);
        // wg_query and wg_kv, written by all lanes, are read by all subgroups.
        workgroupBarrier();
        multiply_scores(first_row, part, parts);
        // wg_scores, written square by square, is read by the lanes of each row; all have finished with wg_kv's keys.
        workgroupBarrier();

        // Products, then scores, then weights of the keys 4 * (tx + ROW_LANES * g) and on.
        var scores: array<vec4<f32>, KEYS4>;
        var highest = row_max;
        /*unroll*/ for (var g = 0u; g < KEYS4; g++) {
            let t = 4u * (tx + ROW_LANES * g);
            let products = scratch_at(square, tx + ROW_LANES * g);
            let s = vec4<f32>(
                finish_score(products.x, position, i, visited.kv_first + t, visited.wholly_open),
                finish_score(products.y, position, i, visited.kv_first + t + 1u, visited.wholly_open),
                finish_score(products.z, position, i, visited.kv_first + t + 2u, visited.wholly_open),
                finish_score(products.w, position, i, visited.kv_first + t + 3u, visited.wholly_open),
            );
            highest = max(highest, max(max(s.x, s.y), max(s.z, s.w)));
            scores[g] = s;
        }
        wg_part[lane] = highest;
        stage_value(position, visited.kv_first, lane);
        // wg_part, written by all lanes, is read by the lanes of the same row.
        workgroupBarrier();
        /*unroll*/ for (var x = 0u; x < ROW_LANES; x++) {
            highest = max(highest, wg_part[row * ROW_LANES + x]);
        }
        let rises = highest > row_max + MOST_RISE;
        // With no open key before, the sums are 0 and may stay as they are.
        if (rises && row_max != CLOSED) {
            atomicStore(&wg_rescale[0], 1u);
        }
        let relative_to = select(row_max, highest, rises);
        let rescale = exp_below(row_max - relative_to);
        row_max = relative_to;
        var sum = 0.0;
        /*unroll*/ for (var g = 0u; g < KEYS4; g++) {
            let t = 4u * (tx + ROW_LANES * g);
            let s = scores[g];
            let p = vec4<f32>(weight_of(s.x, row_max), weight_of(s.y, row_max), weight_of(s.z, row_max),
                weight_of(s.w, row_max));
            sum += (p.x + p.y) + (p.z + p.w);
            let kept = drop_weights(p, position, i, visited.kv_first + t) * weight_scale;
            scores[g] = kept;
            /*unroll*/ for (var c = 0u; c < 4u; c++) {
                if (WEIGHT_PARTS == 1u) {
                    wg_weights[row * P_STRIDE + t + c] = Element(kept[c]);
                } else {
                    // The bits of a half, and the rest. By its bits, since compilers may take it that a conversion loses nothing.
                    let upper = bitcast<f32>(bitcast<u32>(kept[c]) & 0xffffe000u);
                    wg_weights[row * P_STRIDE + t + c] = Element(upper);
                    wg_weights[row * P_STRIDE + TILE_KV + t + c] = Element(kept[c] - upper);
                }
            }
        }
        row_sum = fma(row_sum, rescale, sum);
        // wg_weights and wg_kv, written by all lanes, are read by all subgroups; wg_rescale by all lanes.
        workgroupBarrier();

        if (atomicLoad(&wg_rescale[0]) != 0u) {
            for (var slot = 0u; slot < slots; slot++) {
                rescale_sums(slot, square, rescale);
            }
        }
        if (!values_are_finite()) {
            for (var slot = 0u; slot < slots; slot++) {
                add_exceptions(slot, square, position, visited.kv_first, chunk_d4 + slot * slot_d4, scores);
            }
        }
        for (var k = 0u; k < KV_SQUARES; k++) {
            let at = first_row * P_STRIDE + k * MATRIX;
            let p = coopLoadT<MatrixA>(&wg_weights[at], P_STRIDE);
            // With one part it is never used.
            let rest = coopLoadT<MatrixA>(&wg_weights[at + (WEIGHT_PARTS - 1u) * TILE_KV], P_STRIDE);
            add_products(p, rest, part, parts, k);
        }
        // wg_kv, wg_weights and wg_scores are written next by the next tile.
        workgroupBarrier();
    }

    wg_part[lane] = row_sum;
    // wg_part, written by all lanes, is read by the lanes of the same row.
    workgroupBarrier();
    var sum = 0.0;
    /*unroll*/ for (var x = 0u; x < ROW_LANES; x++) {
        sum += wg_part[row * ROW_LANES + x];
    }
    sum = sum_or_nan(sum);
    // Some open key has a score of at least row_max - MOST_RISE; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = sum == 0.0;
    let factor = select(1.0 / (sum * weight_scale), 0.0, empty);
    for (var slot = 0u; slot < slots; slot++) {
        store_sums(slot, square);
        // wg_scores, written by its subgroup, is read by the lanes of each row.
        workgroupBarrier();
        for (var c4 = tx; c4 < slot_d4; c4 += ROW_LANES) {
            let d4 = slot * slot_d4 + c4;
            if (i <= position.q_last && d4 < DV4_CHUNK && chunk_d4 + d4 < DV4) {
                store_out(out_row, chunk_d4 + d4, scratch_at(square, c4) * factor);
            }
        }
        // wg_scores is written next by the slot after.
        workgroupBarrier();
    }
    if (tx == 0u && i <= position.q_last && position.chunk == params.chunk_begin) {
        store_lse(position, i, select(log_sum_exp(row_max, sum), params.negative_infinity, empty));
    }
}
