// Purpose: query · key for a tile, by products of matrices. Needs matrix/stage.wgsl.

// [TILE_Q][TILE_KV], rows S_STRIDE apart. Here: products of query and key, written square by square, read by the lanes of each
// row. Later: sums of values on their way between matrices and lanes.
var<workgroup> wg_scores: array<f32, TILE_Q * S_STRIDE>;

// A subgroup's rows are those from `first_row` on; its squares of the tile are `part`, `part + parts`, and so on.
fn multiply_scores(first_row: u32, part: u32, parts: u32) {
    // The constant says as much, to compilers that do not know the number of subgroups.
    let squares = KV_SQUARES / parts;
    var s0: MatrixC;
    var s1: MatrixC;
    var s2: MatrixC;
    var s3: MatrixC;
    for (var d = 0u; d < D_SQUARES; d++) {
        let q = coopLoadT<MatrixA>(&wg_query[first_row * D_STRIDE + d * MATRIX], D_STRIDE);
        s0 = coopMultiplyAdd(q, key_square(part, d), s0);
        if (KV_SQUARES > 1u && squares > 1u) {
            s1 = coopMultiplyAdd(q, key_square(part + parts, d), s1);
        }
        if (KV_SQUARES > 2u && squares > 2u) {
            s2 = coopMultiplyAdd(q, key_square(part + 2u * parts, d), s2);
        }
        if (KV_SQUARES > 3u && squares > 3u) {
            s3 = coopMultiplyAdd(q, key_square(part + 3u * parts, d), s3);
        }
    }
    let at = first_row * S_STRIDE + part * MATRIX;
    coopStoreT(s0, &wg_scores[at], S_STRIDE);
    if (KV_SQUARES > 1u && squares > 1u) {
        coopStoreT(s1, &wg_scores[at + parts * MATRIX], S_STRIDE);
    }
    if (KV_SQUARES > 2u && squares > 2u) {
        coopStoreT(s2, &wg_scores[at + 2u * parts * MATRIX], S_STRIDE);
    }
    if (KV_SQUARES > 3u && squares > 3u) {
        coopStoreT(s3, &wg_scores[at + 3u * parts * MATRIX], S_STRIDE);
    }
}

// Channels d * MATRIX and on of MATRIX keys.
fn key_square(square: u32, d: u32) -> MatrixB {
    return coopLoad<MatrixB>(&wg_kv[square * MATRIX * D_STRIDE + d * MATRIX], D_STRIDE);
}
