// Purpose: attention in one kernel without workgroup memory and without barriers: rows in registers, keys and values shared by
// subgroup shuffles. For devices where a load costs many times what an arithmetic instruction does: software drivers.
// Grid: one workgroup, which is one subgroup of LANES invocations, owns TILE_Q query rows of one head and one chunk of value
// channels; an invocation owns ROWS rows, and in each tile of TILE_KV = LANES keys loads one key and one value row for all.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: query, key, value, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod, alibi, bias,
// dropout, add, order, state, acc, weigh, own_rows, rounds, which has main.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1; a row lies in one invocation, so nothing is reduced across lanes.

// What an invocation owns: its lane, the first of its rows, the first vec4 of its value channels, and where its head's rows begin.
struct Own {
    lane: u32,
    q_first: u32,
    first_d4: u32,
    query_head: u32,
    key_head: u32,
    value_head: u32,
    out_head: u32,
}

// What this lane owns of the tile.
fn own_of(position: Position, lane: u32) -> Own {
    let sequence = position.sequence;
    var own: Own;
    own.lane = lane;
    own.q_first = position.q_first + lane;
    own.first_d4 = select(position.chunk * DV4_CHUNK, 0u, V_CHUNKS == 1u);
    own.query_head = params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + sequence.query_base * params.query_row;
    own.key_head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + sequence.key_base * params.key_row;
    own.value_head = params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + sequence.key_base * params.value_row;
    own.out_head = params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + sequence.query_base * params.out_row;
    return own;
}

// ROWS, which no compiler knows it to be (grid_x is at least 1): so a loop stays a loop.
fn row_trips() -> u32 {
    return ROWS + min(params.grid_x, 1u) - 1u;
}

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
    var sums: array<vec4<f32>, ROWS>;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        sums[r] = (*acc)[r * DV4_CHUNK + d] * (*rescales)[r];
    }
    /*unroll*/ for (var k = 0u; k < LANES; k++) {
        let channels = subgroupBroadcast(own, k);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            sums[r] = add_weighted(sums[r], (*weights)[r * LANES + k], channels);
        }
    }
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        (*acc)[r * DV4_CHUNK + d] = sums[r];
    }
}

// Row i, which is r in registers: from products with a tile's keys to weights, and what that does to its state.
fn weigh_row(position: Position, i: u32, visited: VisitedTile, scores: ptr<function, array<f32, ROWS * LANES>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>,
    rescales: ptr<function, array<f32, ROWS>>, r: u32) {
    var highest = (*row_max)[r];
    /*unroll*/ for (var k = 0u; k < LANES; k++) {
        let score = finish_score((*scores)[r * LANES + k], position, i, visited.kv_first + k, visited.wholly_open);
        (*scores)[r * LANES + k] = score;
        highest = max(highest, score);
    }
    let rescale = exp_below((*row_max)[r] - highest);
    (*row_max)[r] = highest;
    var sum = 0.0;
    /*unroll*/ for (var k = 0u; k < LANES; k++) {
        let weight = round_weight((*scores)[r * LANES + k], highest);
        (*scores)[r * LANES + k] = weight;
        sum += weight;
    }
    (*row_sum)[r] = fma((*row_sum)[r], rescale, sum);
    /*unroll*/ for (var t = 0u; t < LANES4; t++) {
        let at = r * LANES + 4u * t;
        let weights = vec4<f32>((*scores)[at], (*scores)[at + 1u], (*scores)[at + 2u], (*scores)[at + 3u]);
        let kept = round_kept(weights, drop_weights(weights, position, i, visited.kv_first + 4u * t));
        (*scores)[at] = kept.x;
        (*scores)[at + 1u] = kept.y;
        (*scores)[at + 2u] = kept.z;
        (*scores)[at + 3u] = kept.w;
    }
    (*rescales)[r] = rescale;
}

// One round over the tiles.
fn visit_tiles(position: Position, own: Own, query_rows: ptr<function, array<vec4<f32>, ROWS * D4>>,
    acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, row_max: ptr<function, array<f32, ROWS>>,
    row_sum: ptr<function, array<f32, ROWS>>) {
    let visit = visit_of(position);
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        if (is_skipped(position, visited)) {
            continue;
        }
        let own_key = min(visited.kv_first + own.lane, position.sequence.kv_end - 1u);

        // [r * LANES + k]: of row r and key k of the tile: their product, then their score, then their weight.
        var scores: array<f32, ROWS * LANES>;
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            /*unroll*/ for (var k = 0u; k < LANES; k++) {
                scores[r * LANES + k] = 0.0;
            }
        }
        let key_begin = own.key_head + own_key * params.key_row;
        var key_row: array<vec4<f32>, D4>;
        /*unroll*/ for (var d = 0u; d < D4; d++) {
            key_row[d] = turned_key(position, own_key, key_begin, d);
        }
        // grid_x is at least 1, so there are LANES trips; a bound that no compiler knows keeps the loop a loop.
        let keys = LANES + min(params.grid_x, 1u) - 1u;
        for (var k = 0u; k < keys; k++) {
            multiply_key(&scores, query_rows, &key_row, k);
        }

        var rescales: array<f32, ROWS>;
        weigh_rows(position, own, visited, &scores, row_max, row_sum, &rescales);

        let value_row = own.value_head + own_key * params.value_row;
        var step = 0u;
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            // Behind the end lies nothing: weight 0, times the last value again, were NaN if that is infinite.
            let channels = select(vec4<f32>(0.0), load_value(value_row + step, min(own.first_d4 + d, DV4 - 1u)),
                visited.kv_first + own.lane < position.sequence.kv_end);
            add_channels(acc, &scores, &rescales, value_part(channels), d);
            step = next_step(step, acc, d);
        }
    }
}
