// Purpose: query stays in workgroup memory: for heads of more channels than registers hold. Hook of slot `matrix_query`: defines
// stage_query and multiply_channels. Needs slots `query`, `turn_query` and `matrices`, matrix/stage.wgsl and matrix/scores.wgsl.

// [TILE_Q][MATRIX * D_SQUARES], rows D_STRIDE apart: written once by all lanes, read by multiply_channels.
var<workgroup> wg_query: array<Element, TILE_Q * D_STRIDE>;

// Before the first barrier of the loop over tiles.
fn stage_query(position: Position, lane: u32) {
    let head = query_head(position);
    for (var d4 = lane % D_LANES; d4 < D_SQUARES * MATRIX4; d4 += D_LANES) {
        for (var row = lane / D_LANES; row < TILE_Q; row += THREADS / D_LANES) {
            let i = min(position.q_first + row, position.q_last);
            let there = position.q_first + row == i && d4 < D4;
            let channels = turned_query(position, i, head + i * params.query_row, min(d4, D4 - 1u));
            let at = row * D_STRIDE + 4u * d4;
            wg_query[at] = existing(channels.x, there);
            wg_query[at + 1u] = existing(channels.y, there);
            wg_query[at + 2u] = existing(channels.z, there);
            wg_query[at + 3u] = existing(channels.w, there);
        }
    }
}

fn multiply_channels(first_row: u32, part: u32, parts: u32) {
    for (var d = 0u; d < D_SQUARES; d++) {
        add_scores(coopLoadT<MatrixA>(&wg_query[first_row * D_STRIDE + d * MATRIX], D_STRIDE), part, parts, d);
    }
}
