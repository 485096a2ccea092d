// Purpose: weights · value for a tile of TILE_Q rows and TILE_KV keys, added to ROWS rows and V_GROUPS vec4 of channels an
// invocation. Needs hooks `value` and `guard`, and wg_kv of tile/scores.wgsl or tile/values_memory.wgsl.

// One vec4 is the weights of one row for keys t, t + TX, t + 2 TX and t + 3 TX of the tile: [TILE_Q][TX], rows P_STRIDE apart.
var<workgroup> wg_weights: array<vec4<f32>, TILE_Q * P_STRIDE>;

struct ValueTile {
    // [g * ROWS + r]: channels 4 * (g * TX + tx) of the chunk, row ty + TY * r.
    acc: array<vec4<f32>, V_GROUPS * ROWS>,
}

// wg_weights must have been written by all lanes; the first barrier in here makes it readable.
fn add_values(before: ValueTile, position: Position, kv_first: u32, kind: u32, lane: u32) -> ValueTile {
    let tx = lane % TX;
    let ty = lane / TX;
    let head = params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + position.sequence.key_base * params.value_row;
    var tile = before;
    /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
        // All loads before the first store, so that none waits for another.
        let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
        var staged: array<vec4<f32>, VALUE_STAGES>;
        /*unroll*/ for (var n = 0u; n < VALUE_STAGES; n++) {
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        }
        if (kind != TILE_OPEN) {
            guard_values(staged);
        }
        /*unroll*/ for (var n = 0u; n < VALUE_STAGES; n++) {
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        }
        // wg_kv and wg_weights, written by all lanes, are read by all below.
        workgroupBarrier();
        if (kind == TILE_OPEN || values_are_plain()) {
            for (var t = 0u; t < trips(TX, kind); t++) {
                let v0 = vec4<f32>(wg_kv[t * KV_STRIDE + tx]);
                let v1 = vec4<f32>(wg_kv[(t + TX) * KV_STRIDE + tx]);
                let v2 = vec4<f32>(wg_kv[(t + 2u * TX) * KV_STRIDE + tx]);
                let v3 = vec4<f32>(wg_kv[(t + 3u * TX) * KV_STRIDE + tx]);
                /*unroll*/ for (var r = 0u; r < ROWS; r++) {
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                }
            }
        } else {
            for (var t = 0u; t < trips(TX, kind); t++) {
                let v0 = vec4<f32>(wg_kv[t * KV_STRIDE + tx]);
                let v1 = vec4<f32>(wg_kv[(t + TX) * KV_STRIDE + tx]);
                let v2 = vec4<f32>(wg_kv[(t + 2u * TX) * KV_STRIDE + tx]);
                let v3 = vec4<f32>(wg_kv[(t + 3u * TX) * KV_STRIDE + tx]);
                /*unroll*/ for (var r = 0u; r < ROWS; r++) {
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                }
            }
        }
        // wg_kv is written next by the group after, or by score_tile, and wg_weights by the next tile.
        workgroupBarrier();
    }
    return tile;
}
