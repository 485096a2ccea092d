// Purpose: attention in one kernel: out and lse of TILE_Q rows, never storing a score outside the workgroup.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q query rows of one head and one chunk of value channels;
// an invocation owns ROWS rows, four keys of each tile and V_GROUPS vec4 of the chunk's channels.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: query, key, value, query_tile, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod,
// alibi, bias, dropout, guard, rows, state, acc, loops.
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

    var state: TileState;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(position.q_first + ty + TY * r, q_last);
        state.row_max[r] = resume_row_max(position, i);
        state.row_sum[r] = select(0.0, resume_row_sum(state.row_max[r]), tx == 0u);
        /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        }
    }

    state = visit_tiles(state, position, lane);

    let sums = sums_of_rows(state.row_sum, lane);
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
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            }
            if (tx == 0u && position.chunk == params.chunk_begin) {
                let value = select(log_sum_exp(state.row_max[r], sum), params.negative_infinity, empty);
                store_lse(position, i, value);
            }
        }
    }
}
