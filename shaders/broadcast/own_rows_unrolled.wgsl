// Purpose: an invocation's rows come and go one after another, each by text of its own: SwiftShader takes minutes to compile rows that
// move from place to place. Hook of slot `own_rows`: defines load_rows and store_rows. Needs broadcast/own_row.wgsl.

fn load_rows(position: Position, q_first: u32, query_head: u32, query_rows: ptr<function, array<vec4<f32>, ROWS * D4>>) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(q_first + LANES * r, position.q_last);
        /*unroll*/ for (var d = 0u; d < D4; d++) {
            (*query_rows)[r * D4 + d] = turned_query(position, i, query_head + i * params.query_row, d);
        }
    }
}

fn store_rows(position: Position, q_first: u32, out_head: u32, first_d4: u32,
    acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, row_max: ptr<function, array<f32, ROWS>>,
    row_sum: ptr<function, array<f32, ROWS>>) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = q_first + LANES * r;
        store_own_row(position, i, out_head + i * params.out_row, first_d4, acc, r, (*row_max)[r], (*row_sum)[r]);
    }
}
