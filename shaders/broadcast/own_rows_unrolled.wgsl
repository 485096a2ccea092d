// Purpose: an invocation's rows come and go one after another, each by text of its own: SwiftShader takes minutes to compile rows that
// move from place to place. Hook of slot `own_rows`: defines load_rows, begin_rows and store_rows. Needs broadcast/own_row.wgsl.

fn load_rows(position: Position, own: Own, query_rows: ptr<function, array<vec4<f32>, ROWS * D4>>) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(own.q_first + LANES * r, position.q_last);
        /*unroll*/ for (var d = 0u; d < D4; d++) {
            (*query_rows)[r * D4 + d] = turned_query(position, i, own.query_head + i * params.query_row, d);
        }
    }
}

fn begin_rows(position: Position, own: Own, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(own.q_first + LANES * r, position.q_last);
        let before = resume_row_max(position, i);
        (*row_max)[r] = begin_row_max((*row_max)[r], before);
        let rescale = begin_rescale((*row_max)[r], before);
        (*row_sum)[r] = resume_row_sum(before) * rescale;
        /*unroll*/ for (var d = 0u; d < DV4_CHUNK; d++) {
            let resumed = resume_acc(own.out_head + i * params.out_row, min(own.first_d4 + d, DV4 - 1u));
            (*acc)[r * DV4_CHUNK + d] = begin_channels((*acc)[r * DV4_CHUNK + d], resumed, rescale);
        }
    }
}

fn store_rows(position: Position, own: Own, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = own.q_first + LANES * r;
        store_own_row(position, own, i, acc, r, (*row_max)[r], (*row_sum)[r]);
    }
}
