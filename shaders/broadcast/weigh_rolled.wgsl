// Purpose: the scores of an invocation's rows are finished in a loop, a row a trip, so that what each score loads stands in the text
// once a key. Rows change places: what was row 0 comes last. Hook of slot `weigh`: defines weigh_rows. Needs broadcast.wgsl.

fn weigh_rows(position: Position, own: Own, visited: VisitedTile, scores: ptr<function, array<f32, ROWS * LANES>>,
    row_max: ptr<function, array<f32, ROWS>>, row_sum: ptr<function, array<f32, ROWS>>,
    rescales: ptr<function, array<f32, ROWS>>) {
    for (var n = 0u; n < row_trips(); n++) {
        weigh_row(position, own.q_first + LANES * n, visited, scores, row_max, row_sum, rescales, 0u);
        let state = vec3<f32>((*row_max)[0], (*row_sum)[0], (*rescales)[0]);
        var weights: array<f32, LANES>;
        /*unroll*/ for (var k = 0u; k < LANES; k++) {
            weights[k] = (*scores)[k];
        }
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let above = min(r + 1u, ROWS - 1u);
            (*row_max)[r] = (*row_max)[above];
            (*row_sum)[r] = (*row_sum)[above];
            (*rescales)[r] = (*rescales)[above];
            /*unroll*/ for (var k = 0u; k < LANES; k++) {
                (*scores)[r * LANES + k] = (*scores)[above * LANES + k];
            }
        }
        (*row_max)[ROWS - 1u] = state.x;
        (*row_sum)[ROWS - 1u] = state.y;
        (*rescales)[ROWS - 1u] = state.z;
        /*unroll*/ for (var k = 0u; k < LANES; k++) {
            (*scores)[(ROWS - 1u) * LANES + k] = weights[k];
        }
    }
}
