// Purpose: query · key for a tile, by products of matrices. Needs matrix/stage.wgsl
// and slot `matrix_query`.

// [TILE_Q][TILE_KV], rows S_STRIDE apart. Here: products of query and key, written square by square, read by the lanes of each
// row. Later: sums of values on their way between matrices and lanes.
var<workgroup> wg_scores: array<f32, TILE_Q * S_STRIDE>;

// A subgroup's scores of its squares of the tile: `part`, `part + parts`, and so on. Not an array, since there are none of matrices.
var<private> scores0: MatrixC;
var<private> scores1: MatrixC;
var<private> scores2: MatrixC;
var<private> scores3: MatrixC;

// Adds the products of MATRIX channels, d * MATRIX and on.
fn add_scores(query: MatrixA, part: u32, parts: u32, d: u32) {
    // The constant says as much, to compilers that do not know the number of subgroups.
    let squares = KV_SQUARES / parts;
    scores0 = coopMultiplyAdd(query, key_square(part, d), scores0);
    if (KV_SQUARES > 1u && squares > 1u) {
        scores1 = coopMultiplyAdd(query, key_square(part + parts, d), scores1);
    }
    if (KV_SQUARES > 2u && squares > 2u) {
        scores2 = coopMultiplyAdd(query, key_square(part + 2u * parts, d), scores2);
    }
    if (KV_SQUARES > 3u && squares > 3u) {
        scores3 = coopMultiplyAdd(query, key_square(part + 3u * parts, d), scores3);
    }
}

// A subgroup's rows are those from `first_row` on.
fn multiply_scores(first_row: u32, part: u32, parts: u32) {
    let squares = KV_SQUARES / parts;
    var none: MatrixC;
    scores0 = none;
    scores1 = none;
    scores2 = none;
    scores3 = none;
    multiply_channels(first_row, part, parts);
    let at = first_row * S_STRIDE + part * MATRIX;
    coopStoreT(scores0, &wg_scores[at], S_STRIDE);
    if (KV_SQUARES > 1u && squares > 1u) {
        coopStoreT(scores1, &wg_scores[at + parts * MATRIX], S_STRIDE);
    }
    if (KV_SQUARES > 2u && squares > 2u) {
        coopStoreT(scores2, &wg_scores[at + 2u * parts * MATRIX], S_STRIDE);
    }
    if (KV_SQUARES > 3u && squares > 3u) {
        coopStoreT(scores3, &wg_scores[at + 3u * parts * MATRIX], S_STRIDE);
    }
}

// Channels d * MATRIX and on of MATRIX keys.
fn key_square(square: u32, d: u32) -> MatrixB {
    return coopLoad<MatrixB>(&wg_kv[square * MATRIX * D_STRIDE + d * MATRIX], D_STRIDE);
}
