// Purpose: query in registers, each subgroup its own rows: up to eight squares of channels. Hook of slot `matrix_query`: defines
// stage_query and multiply_channels. Needs slots `query`, `turn_query` and `matrices`, matrix/stage.wgsl and matrix/scores.wgsl.

// Not an array, since there are none of matrices.
var<private> query0: MatrixA;
var<private> query1: MatrixA;
var<private> query2: MatrixA;
var<private> query3: MatrixA;
var<private> query4: MatrixA;
var<private> query5: MatrixA;
var<private> query6: MatrixA;
var<private> query7: MatrixA;

// So many rows at a time find room where keys will lie.
const ROUND: u32 = min(TILE_Q, TILE_KV);

fn stage_query(position: Position, lane: u32) {
    let head = query_head(position);
    for (var first = 0u; first < TILE_Q; first += ROUND) {
        for (var d4 = lane % D_LANES; d4 < D_SQUARES * MATRIX4; d4 += D_LANES) {
            for (var row = lane / D_LANES; row < ROUND; row += THREADS / D_LANES) {
                let i = min(position.q_first + first + row, position.q_last);
                let there = position.q_first + first + row == i && d4 < D4;
                let channels = turned_query(position, i, head + i * params.query_row, min(d4, D4 - 1u));
                let at = row * D_STRIDE + 4u * d4;
                wg_kv[at] = existing(channels.x, there);
                wg_kv[at + 1u] = existing(channels.y, there);
                wg_kv[at + 2u] = existing(channels.z, there);
                wg_kv[at + 3u] = existing(channels.w, there);
            }
        }
        // wg_kv, written by all lanes, is read by the subgroups of these rows, and written next by the next round or by stage_key.
        workgroupBarrier();
        if (own.first_row / ROUND == first / ROUND) {
            let at = own.first_row % ROUND * D_STRIDE;
            query0 = query_square(at, 0u);
            query1 = query_square(at, 1u);
            query2 = query_square(at, 2u);
            query3 = query_square(at, 3u);
            query4 = query_square(at, 4u);
            query5 = query_square(at, 5u);
            query6 = query_square(at, 6u);
            query7 = query_square(at, 7u);
        }
        workgroupBarrier();
    }
}

// Squares that there are not are never used.
fn query_square(at: u32, d: u32) -> MatrixA {
    return coopLoadT<MatrixA>(&wg_kv[at + min(d, D_SQUARES - 1u) * MATRIX], D_STRIDE);
}

fn multiply_channels(first_row: u32, part: u32, parts: u32) {
    add_scores(query0, part, parts, 0u);
    if (D_SQUARES > 1u) {
        add_scores(query1, part, parts, 1u);
    }
    if (D_SQUARES > 2u) {
        add_scores(query2, part, parts, 2u);
    }
    if (D_SQUARES > 3u) {
        add_scores(query3, part, parts, 3u);
    }
    if (D_SQUARES > 4u) {
        add_scores(query4, part, parts, 4u);
    }
    if (D_SQUARES > 5u) {
        add_scores(query5, part, parts, 5u);
    }
    if (D_SQUARES > 6u) {
        add_scores(query6, part, parts, 6u);
    }
    if (D_SQUARES > 7u) {
        add_scores(query7, part, parts, 7u);
    }
}
