// Purpose: attention in one kernel by products of matrices, for devices with units for these: out and lse of TILE_Q rows, never
// storing a score outside the workgroup.
// Grid: one workgroup of THREADS = TILE_Q * ROW_LANES invocations owns TILE_Q query rows of one head and one chunk of value channels. A
// subgroup owns MATRIX of the rows and, if there are several subgroups for these rows, every second of their squares of MATRIX keys or
// channels. For the softmax in between, ROW_LANES invocations own a row, and KEYS4 times four keys of each tile.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: matrices, matrix_query, query, key, value, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod,
// mask_mod, alibi, bias, dropout, matrix_guard, state, acc, loops.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1. Sums of values are rescaled only when a row's maximum has risen by more than a
// factor of 2^8, since a matrix gives no access to its rows.

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
    own = own_of(position, subgroup, lane, lanes);
    let i = position.q_first + own.row;
    let chunk_d4 = position.chunk * DV4_CHUNK;
    let slot_d4 = own.parts * MATRIX4;
    let out_row = params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + (position.sequence.query_base + min(i, position.q_last)) * params.out_row;
    guard_begin(lane);
    stage_query(position, lane);

    var state: TileState;
    state.row_max = resume_row_max(position, min(i, position.q_last));
    state.row_sum = select(0.0, resume_row_sum(state.row_max), own.tx == 0u);
    for (var slot = 0u; slot < V_SQUARES; slot++) {
        begin_sums(own.square, out_row, chunk_d4 + slot * slot_d4, own.weight_scale);
    }

    state = visit_tiles(state, position, lane);

    wg_part[lane] = state.row_sum;
    // wg_part, written by all lanes, is read by the lanes of the same row.
    workgroupBarrier();
    var sum = 0.0;
    /*unroll*/ for (var x = 0u; x < ROW_LANES; x++) {
        sum += wg_part[own.row * ROW_LANES + x];
    }
    sum = sum_or_nan(sum);
    // Some open key has a score of at least row_max - MOST_RISE; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = sum == 0.0;
    let factor = select(1.0 / (sum * own.weight_scale), 0.0, empty);
    for (var slot = 0u; slot < V_SQUARES; slot++) {
        store_sums(own.square);
        move_up(acc0);
        // wg_scores, written by its subgroup, is read by the lanes of each row.
        workgroupBarrier();
        for (var c4 = own.tx; c4 < slot_d4; c4 += ROW_LANES) {
            let d4 = slot * slot_d4 + c4;
            if (i <= position.q_last && d4 < DV4_CHUNK && chunk_d4 + d4 < DV4) {
                store_out(out_row, chunk_d4 + d4, scratch_at(own.square, c4) * factor);
            }
        }
        // wg_scores is written next by the slot after.
        workgroupBarrier();
    }
    if (own.tx == 0u && i <= position.q_last && position.chunk == params.chunk_begin) {
        store_lse(position, i, select(log_sum_exp(state.row_max, sum), params.negative_infinity, empty));
    }
}
