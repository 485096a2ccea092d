// Purpose: an invocation's rows come and go in loops, so that a driver compiles a quarter of the loads and stores. In each trip the
// other rows move up by one place, since only a literal finds a row in registers. Hook of slot `own_rows`: defines load_rows and
// store_rows. Needs broadcast/own_row.wgsl.

// ROWS, which no compiler knows it to be (grid_x is at least 1): so a loop stays a loop.
fn row_trips() -> u32 {
    return ROWS + min(params.grid_x, 1u) - 1u;
}

fn load_rows(position: Position, q_first: u32, query_head: u32, query_rows: ptr<function, array<vec4<f32>, ROWS * D4>>) {
    for (var n = 0u; n < row_trips(); n++) {
        let i = min(q_first + LANES * n, position.q_last);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            /*unroll*/ for (var d = 0u; d < D4; d++) {
                (*query_rows)[r * D4 + d] = (*query_rows)[min(r + 1u, ROWS - 1u) * D4 + d];
            }
        }
        /*unroll*/ for (var d = 0u; d < D4; d++) {
            (*query_rows)[(ROWS - 1u) * D4 + d] = turned_query(position, i, query_head + i * params.query_row, d);
        }
    }
}

fn store_rows(position: Position, q_first: u32, out_head: u32, first_d4: u32,
    acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, row_max: ptr<function, array<f32, ROWS>>,
    row_sum: ptr<function, array<f32, ROWS>>) {
    for (var n = 0u; n < row_trips(); n++) {
        let i = q_first + LANES * n;
        store_own_row(position, i, out_head + i * params.out_row, first_d4, acc, 0u, (*row_max)[0], (*row_sum)[0]);
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
