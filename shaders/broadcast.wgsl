// Purpose: attention in one kernel without workgroup memory and without barriers: rows in registers, keys and values shared by
// subgroup shuffles. For devices where a load costs many times what an arithmetic instruction does: software drivers.
// Grid: one workgroup, which is one subgroup of LANES invocations, owns TILE_Q query rows of one head and one chunk of value
// channels; an invocation owns ROWS rows, and in each tile of TILE_KV = LANES keys loads one key and one value row for all.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: query, key, value, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod, alibi, bias,
// dropout, add, order, state, acc, own_rows.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1; a row lies in one invocation, so nothing is reduced across lanes.

// The functions that unrolled loops call are no more than a compiler puts in line; they keep the text, and what it costs to read, short.

// The products of all rows with key k of a tile, whose lane has its channels: two sums a row, since each addition waits for the one
// before it. But one (SUMS) where weights are made of the lse, by scores that are summed so: what both round alike cancels.
fn multiply_key(scores: ptr<function, array<f32, ROWS * LANES>>, query_rows: ptr<function, array<vec4<f32>, ROWS * D4>>,
    own: ptr<function, array<vec4<f32>, D4>>, k: u32) {
    var even: array<f32, ROWS>;
    var odd: array<f32, ROWS>;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        even[r] = 0.0;
        odd[r] = 0.0;
    }
    /*unroll*/ for (var d = 0u; d < D4; d++) {
        let channels = subgroupShuffle((*own)[d], k);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let q = (*query_rows)[r * D4 + d];
            even[r] = fma(q.y, channels.y, fma(q.x, channels.x, even[r]));
            if (SUMS == 1u) {
                even[r] = fma(q.w, channels.w, fma(q.z, channels.z, even[r]));
            } else {
                odd[r] = fma(q.w, channels.w, fma(q.z, channels.z, odd[r]));
            }
        }
    }
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        /*unroll*/ for (var c = 0u; c < LANES; c++) {
            (*scores)[r * LANES + c] = select((*scores)[r * LANES + c], even[r] + odd[r], c == k);
        }
    }
}

// Rescales the same channels of all rows and adds those of the tile's values, weighted.
fn add_channels(acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, weights: ptr<function, array<f32, ROWS * LANES>>,
    rescales: ptr<function, array<f32, ROWS>>, own: vec4<f32>, d: u32) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        (*acc)[r * DV4_CHUNK + d] = (*acc)[r * DV4_CHUNK + d] * (*rescales)[r];
    }
    /*unroll*/ for (var k = 0u; k < LANES; k++) {
        let channels = subgroupBroadcast(own, k);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            (*acc)[r * DV4_CHUNK + d] = add_weighted((*acc)[r * DV4_CHUNK + d], (*weights)[r * LANES + k], channels);
        }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    if (is_behind_end(position)) {
        return;
    }
    let sequence = position.sequence;
    let q_first = position.q_first + lane;
    let first_d4 = select(position.chunk * DV4_CHUNK, 0u, V_CHUNKS == 1u);
    let query_head = params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + sequence.query_base * params.query_row;
    let key_head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + sequence.key_base * params.key_row;
    let value_head = params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + sequence.key_base * params.value_row;
    let out_head = params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + sequence.query_base * params.out_row;

    // [r * D4 + d]: channels 4 d to 4 d + 3 of row q_first + LANES * r.
    var query_rows: array<vec4<f32>, ROWS * D4>;
    // [r * DV4_CHUNK + d], likewise.
    var acc: array<vec4<f32>, ROWS * DV4_CHUNK>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    load_rows(position, q_first, query_head, &query_rows);
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(q_first + LANES * r, position.q_last);
        row_max[r] = resume_row_max(position, i);
        row_sum[r] = resume_row_sum(row_max[r]);
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            acc[r * DV4_CHUNK + d] = resume_acc(out_head + i * params.out_row, min(first_d4 + d, DV4 - 1u));
        }
    }

    let visit = visit_of(position);
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        if (is_skipped(position, visited)) {
            continue;
        }
        let own_key = min(visited.kv_first + lane, sequence.kv_end - 1u);

        // [r * LANES + k]: of row r and key k of the tile: their product, then their score, then their weight.
        var scores: array<f32, ROWS * LANES>;
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            /*unroll*/ for (var k = 0u; k < LANES; k++) {
                scores[r * LANES + k] = 0.0;
            }
        }
        let key_row = key_head + own_key * params.key_row;
        var own: array<vec4<f32>, D4>;
        /*unroll*/ for (var d = 0u; d < D4; d++) {
            own[d] = turned_key(position, own_key, key_row, d);
        }
        // grid_x is at least 1, so there are LANES trips; a bound that no compiler knows keeps the loop a loop.
        let keys = LANES + min(params.grid_x, 1u) - 1u;
        for (var k = 0u; k < keys; k++) {
            multiply_key(&scores, &query_rows, &own, k);
        }

        var rescales: array<f32, ROWS>;
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let i = q_first + LANES * r;
            var highest = row_max[r];
            /*unroll*/ for (var k = 0u; k < LANES; k++) {
                let score = finish_score(scores[r * LANES + k], position, i, visited.kv_first + k, visited.wholly_open);
                scores[r * LANES + k] = score;
                highest = max(highest, score);
            }
            let rescale = exp_below(row_max[r] - highest);
            row_max[r] = highest;
            var sum = 0.0;
            /*unroll*/ for (var k = 0u; k < LANES; k++) {
                let weight = weight_of(scores[r * LANES + k], highest);
                scores[r * LANES + k] = weight;
                sum += weight;
            }
            row_sum[r] = fma(row_sum[r], rescale, sum);
            /*unroll*/ for (var t = 0u; t < LANES4; t++) {
                let kept = drop_weights(vec4<f32>(scores[r * LANES + 4u * t], scores[r * LANES + 4u * t + 1u],
                    scores[r * LANES + 4u * t + 2u], scores[r * LANES + 4u * t + 3u]), position, i,
                    visited.kv_first + 4u * t);
                scores[r * LANES + 4u * t] = kept.x;
                scores[r * LANES + 4u * t + 1u] = kept.y;
                scores[r * LANES + 4u * t + 2u] = kept.z;
                scores[r * LANES + 4u * t + 3u] = kept.w;
            }
            rescales[r] = rescale;
        }

        let value_row = value_head + own_key * params.value_row;
        var step = 0u;
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            // Behind the end lies nothing: weight 0, times the last value again, were NaN if that is infinite.
            let own = select(vec4<f32>(0.0), load_value(value_row + step, min(first_d4 + d, DV4 - 1u)),
                visited.kv_first + lane < sequence.kv_end);
            add_channels(&acc, &scores, &rescales, own, d);
            step = next_step(step, &acc, d);
        }
    }

    store_rows(position, q_first, out_head, first_d4, &acc, &row_max, &row_sum);
}
