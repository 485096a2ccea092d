// Purpose: an invocation's rows come and go in loops, so that a driver compiles one row's loads and stores. In each trip the
// other rows move up by one place, since only a literal finds a row in registers. Hook of slot `own_rows`: defines load_rows,
// begin_rows and store_rows. Needs broadcast/own_row.wgsl.

fn load_rows(position: Position, own: Own, query_rows: ptr<function, array<vec4<f32>, ROWS * D4>>) {
    for (var n = 0u; n < row_trips(); n++) {
        let i = min(own.q_first + LANES * n, position.q_last);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            /*unroll*/ for (var d = 0u; d < D4; d++) {
                (*query_rows)[r * D4 + d] = (*query_rows)[min(r + 1u, ROWS - 1u) * D4 + d];
            }
        }
        /*unroll*/ for (var d = 0u; d < D4; d++) {
            (*query_rows)[(ROWS - 1u) * D4 + d] = turned_query(position, i, own.query_head + i * params.query_row, d);
        }
    }
}

fn begin_rows(position: Position, own: Own, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>) {
    for (var n = 0u; n < row_trips(); n++) {
        let i = min(own.q_first + LANES * n, position.q_last);
        let before = resume_row_max(position, i);
        let begun_max = begin_row_max((*row_max)[0], before);
        let rescale = begin_rescale(begun_max, before);
        var begun: array<vec4<f32>, DV4_CHUNK>;
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            let resumed = resume_acc(own.out_head + i * params.out_row, min(own.first_d4 + d, DV4 - 1u));
            begun[d] = begin_channels((*acc)[d], resumed, rescale);
        }
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let above = min(r + 1u, ROWS - 1u);
            (*row_max)[r] = (*row_max)[above];
            (*row_sum)[r] = (*row_sum)[above];
            /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
                (*acc)[r * DV4_CHUNK + d] = (*acc)[above * DV4_CHUNK + d];
            }
        }
        (*row_max)[ROWS - 1u] = begun_max;
        (*row_sum)[ROWS - 1u] = resume_row_sum(before) * rescale;
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            (*acc)[(ROWS - 1u) * DV4_CHUNK + d] = begun[d];
        }
    }
}

fn store_rows(position: Position, own: Own, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>) {
    for (var n = 0u; n < row_trips(); n++) {
        let i = own.q_first + LANES * n;
        store_own_row(position, own, i, acc, 0u, (*row_max)[0], (*row_sum)[0]);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let above = min(r + 1u, ROWS - 1u);
            (*row_max)[r] = (*row_max)[above];
            (*row_sum)[r] = (*row_sum)[above];
            /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
                (*acc)[r * DV4_CHUNK + d] = (*acc)[above * DV4_CHUNK + d];
            }
        }
    }
}
