// Purpose: one tile of keys: scores, weights, weights · value, added to the state of online softmax. Needs tile/scores.wgsl,
// tile/finish.wgsl, tile/values.wgsl, state.wgsl and the hooks of slots `rows` and `dropout`.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1.

// What a lane knows of its rows ty + TY * r, [r].
struct TileState {
    // The highest score so far, the same in all lanes of a row.
    row_max: array<f32, ROWS>,
    // The sum of the weights of the lane's own keys.
    row_sum: array<f32, ROWS>,
    values: ValueTile,
}

fn visit_tile(before: TileState, position: Position, visited: VisitedTile, kind: u32, lane: u32) -> TileState {
    let tx = lane % TX;
    let ty = lane / TX;
    let products = score_tile(position, visited.kv_first, kind, lane);
    let scores = finish_tile(products, position, visited, kind, lane);
    var own_max: array<f32, ROWS>;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let s = scores.rows[r];
        own_max[r] = max(max(s.x, s.y), max(s.z, s.w));
    }
    let tile_max = highest_of_rows(own_max, lane);
    var state = before;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let highest = max(state.row_max[r], tile_max[r]);
        let s = scores.rows[r];
        var rescale: f32;
        var p: vec4<f32>;
        if (kind == TILE_OPEN) {
            let log2_max = log2_of_exp(highest);
            rescale = exp2(log2_of_exp(state.row_max[r]) - log2_max);
            p = open_weights(s, log2_max);
        } else {
            rescale = exp_below(state.row_max[r] - highest);
            p = vec4<f32>(weight_of(s.x, highest), weight_of(s.y, highest), weight_of(s.z, highest),
                weight_of(s.w, highest));
        }
        state.row_max[r] = highest;
        state.row_sum[r] = fma(state.row_sum[r], rescale, (p.x + p.y) + (p.z + p.w));
        wg_weights[(ty + TY * r) * P_STRIDE + tx] = drop_weights(p, position, position.q_first + ty + TY * r,
            visited.kv_first + tx);
        /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        }
    }
    state.values = add_values(state.values, position, visited.kv_first, kind, lane);
    return state;
}
