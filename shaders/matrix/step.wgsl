// Purpose: one tile of keys in the matrix family: scores, weights, weights · value, added to the state of online softmax. Needs
// tile/kinds.wgsl, matrix/own.wgsl, matrix/stage.wgsl, matrix/scores.wgsl, matrix/values.wgsl, score/finish.wgsl, score/open.wgsl
// and slots `dropout`, `matrices` and `matrix_guard`.
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

// What a lane knows of its row.
struct TileState {
    // What the row's weights are relative to: a score at most MOST_RISE below the largest so far.
    row_max: f32,
    // Of this lane's keys.
    row_sum: f32,
}

fn visit_tile(before: TileState, position: Position, visited: VisitedTile, kind: u32, lane: u32) -> TileState {
    var state = before;
    let i = position.q_first + own.row;
    if (lane == 0u) {
        atomicStore(&wg_rescale[0], 0u);
    }
    stage_key(position, visited.kv_first, kind, lane);
    // wg_kv (and what stage_query wrote), written by all lanes, is read by all subgroups.
    workgroupBarrier();
    multiply_scores(own.first_row, own.part, own.parts);
    // wg_scores, written square by square, is read by the lanes of each row; all have finished with wg_kv's keys.
    workgroupBarrier();

    // Products, then scores, then weights of the keys 4 * (tx + ROW_LANES * g) and on.
    var scores: array<vec4<f32>, KEYS4>;
    var highest = state.row_max;
    /*unroll*/ for (var g = 0u; g < KEYS4; g++) {
        let j = visited.kv_first + 4u * (own.tx + ROW_LANES * g);
        let products = scratch_at(own.square, own.tx + ROW_LANES * g);
        var s: vec4<f32>;
        if (kind == TILE_OPEN) {
            s = vec4<f32>(
                finish_open_score(products.x, position, i, j),
                finish_open_score(products.y, position, i, j + 1u),
                finish_open_score(products.z, position, i, j + 2u),
                finish_open_score(products.w, position, i, j + 3u),
            );
        } else {
            s = vec4<f32>(
                finish_score(products.x, position, i, j, visited.wholly_open),
                finish_score(products.y, position, i, j + 1u, visited.wholly_open),
                finish_score(products.z, position, i, j + 2u, visited.wholly_open),
                finish_score(products.w, position, i, j + 3u, visited.wholly_open),
            );
        }
        highest = max(highest, max(max(s.x, s.y), max(s.z, s.w)));
        scores[g] = s;
    }
    wg_part[lane] = highest;
    stage_value(position, visited.kv_first, kind, lane);
    // wg_part, written by all lanes, is read by the lanes of the same row.
    workgroupBarrier();
    /*unroll*/ for (var x = 0u; x < ROW_LANES; x++) {
        highest = max(highest, wg_part[own.row * ROW_LANES + x]);
    }
    let rises = highest > state.row_max + MOST_RISE;
    // With no open key before, the sums are 0 and may stay as they are.
    if (rises && state.row_max != CLOSED) {
        atomicStore(&wg_rescale[0], 1u);
    }
    let relative_to = select(state.row_max, highest, rises);
    let rescale = exp_below(state.row_max - relative_to);
    state.row_max = relative_to;
    let log2_max = log2_of_exp(relative_to);
    var sum = 0.0;
    /*unroll*/ for (var g = 0u; g < KEYS4; g++) {
        let t = 4u * (own.tx + ROW_LANES * g);
        let s = scores[g];
        var p: vec4<f32>;
        if (kind == TILE_OPEN) {
            p = open_weights(s, log2_max);
        } else {
            p = vec4<f32>(weight_of(s.x, relative_to), weight_of(s.y, relative_to), weight_of(s.z, relative_to),
                weight_of(s.w, relative_to));
        }
        sum += (p.x + p.y) + (p.z + p.w);
        let kept = drop_weights(p, position, i, visited.kv_first + t) * own.weight_scale;
        scores[g] = kept;
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            if (WEIGHT_PARTS == 1u) {
                wg_weights[own.weights_at + 4u * ROW_LANES * g + c] = Element(kept[c]);
            } else {
                // The bits of a half, and the rest. By its bits, since compilers may take it that a conversion loses nothing.
                let upper = bitcast<f32>(bitcast<u32>(kept[c]) & 0xffffe000u);
                wg_weights[own.weights_at + 4u * ROW_LANES * g + c] = Element(upper);
                wg_weights[own.weights_at + TILE_KV + 4u * ROW_LANES * g + c] = Element(kept[c] - upper);
            }
        }
    }
    state.row_sum = fma(state.row_sum, rescale, sum);
    // wg_weights and wg_kv, written by all lanes, are read by all subgroups; wg_rescale by all lanes.
    workgroupBarrier();

    if (atomicLoad(&wg_rescale[0]) != 0u) {
        for (var slot = 0u; slot < V_SQUARES; slot++) {
            rescale_sums(own.square, rescale);
        }
    }
    if (guards(kind) && !values_are_finite()) {
        let chunk_d4 = position.chunk * DV4_CHUNK;
        for (var slot = 0u; slot < V_SQUARES; slot++) {
            add_exceptions(own.square, position, visited.kv_first, chunk_d4 + slot * own.parts * MATRIX4, scores);
        }
    }
    for (var k = 0u; k < KV_SQUARES; k++) {
        let at = own.first_row * P_STRIDE + k * MATRIX;
        let p = coopLoadT<MatrixA>(&wg_weights[at], P_STRIDE);
        // With one part it is never used.
        let rest = coopLoadT<MatrixA>(&wg_weights[at + (WEIGHT_PARTS - 1u) * TILE_KV], P_STRIDE);
        add_products(p, rest, own.part, own.parts, k);
    }
    // wg_kv, wg_weights and wg_scores are written next by the next tile.
    workgroupBarrier();
    return state;
}
