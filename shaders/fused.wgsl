// Purpose: attention in one kernel: out and lse of TILE_Q rows, never storing a score outside the workgroup.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q query rows of one head and one chunk of value channels;
// an invocation owns ROWS rows, four keys of each tile and V_GROUPS vec4 of the chunk's channels.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: query, key, value, query_tile, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod,
// alibi, bias, dropout, guard, rows, state, acc.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1, without its split of the row sums: here each lane of a row keeps the
// sum of its own keys until the end.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    let tx = lane % TX;
    let ty = lane / TX;
    if (is_behind_end(position)) {
        return;
    }
    let q_last = position.q_last;
    let out_head = params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + position.sequence.query_base * params.out_row;
    guard_begin(lane);
    stage_query(position, lane);

    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    var values: ValueTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(position.q_first + ty + TY * r, q_last);
        row_max[r] = resume_row_max(position, i);
        row_sum[r] = select(0.0, resume_row_sum(row_max[r]), tx == 0u);
        /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        }
    }

    let visit = visit_of(position);
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        if (is_skipped(position, visited)) {
            continue;
        }
        let products = score_tile(position, visited.kv_first, lane);
        let scores = finish_tile(products, position, visited, lane);
        var own_max: array<f32, ROWS>;
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let s = scores.rows[r];
            own_max[r] = max(max(s.x, s.y), max(s.z, s.w));
        }
        let tile_max = highest_of_rows(own_max, lane);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let highest = max(row_max[r], tile_max[r]);
            let rescale = exp_below(row_max[r] - highest);
            row_max[r] = highest;
            let s = scores.rows[r];
            let p = vec4<f32>(weight_of(s.x, highest), weight_of(s.y, highest), weight_of(s.z, highest),
                weight_of(s.w, highest));
            row_sum[r] = fma(row_sum[r], rescale, (p.x + p.y) + (p.z + p.w));
            wg_weights[(ty + TY * r) * P_STRIDE + tx] = drop_weights(p, position, position.q_first + ty + TY * r,
                visited.kv_first + tx);
            /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
                values.acc[g * ROWS + r] = values.acc[g * ROWS + r] * rescale;
            }
        }
        values = add_values(values, position, visited.kv_first, lane);
    }

    let sums = sums_of_rows(row_sum, lane);
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = position.q_first + ty + TY * r;
        let sum = sum_or_nan(sums[r]);
        // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
        let empty = sum == 0.0;
        let factor = select(1.0 / sum, 0.0, empty);
        if (i <= q_last) {
            /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r] * factor);
                }
            }
            if (tx == 0u && position.chunk == params.chunk_begin) {
                let value = select(log_sum_exp(row_max[r], sum), params.negative_infinity, empty);
                store_lse(position, i, value);
            }
        }
    }
}
