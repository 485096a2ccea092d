// Purpose: the scores of an invocation's rows are finished one row after another, each by text of its own. Hook of slot `weigh`:
// defines weigh_rows. Needs broadcast.wgsl.

fn weigh_rows(position: Position, own: Own, visited: VisitedTile, scores: ptr<function, array<f32, ROWS * LANES>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>,
    rescales: ptr<function, array<f32, ROWS>>) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        weigh_row(position, own.q_first + LANES * r, visited, scores, row_max, row_sum, rescales, r);
    }
}
