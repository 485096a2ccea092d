// Purpose: weights · value for a tile, by products of matrices, and the way of the sums between matrices and lanes, through wg_scores:
// a matrix has no elements that a lane could name. Needs matrix/stage.wgsl, matrix/scores.wgsl and slots `value`, `acc` and
// `matrix_guard`.

// A subgroup's sums of values, MATRIX rows and as many channels each: slot 0 and on. Not an array, since there are none of matrices.
var<private> acc0: MatrixC;
var<private> acc1: MatrixC;
var<private> acc2: MatrixC;
var<private> acc3: MatrixC;
var<private> acc4: MatrixC;
var<private> acc5: MatrixC;
var<private> acc6: MatrixC;
var<private> acc7: MatrixC;

// Where a subgroup's sums lie in wg_scores meanwhile.
struct Square {
    // Its first element, and that of the row of this lane, which is as long as all squares side by side.
    at: u32,
    row_at: u32,
    // How many vec4 such a row has, and which of the row's lanes this is.
    columns4: u32,
    tx: u32,
}

fn scratch_at(square: Square, c4: u32) -> vec4<f32> {
    let at = square.row_at + 4u * c4;
    return vec4<f32>(wg_scores[at], wg_scores[at + 1u], wg_scores[at + 2u], wg_scores[at + 3u]);
}

fn set_scratch(square: Square, c4: u32, channels: vec4<f32>) {
    let at = square.row_at + 4u * c4;
    wg_scores[at] = channels.x;
    wg_scores[at + 1u] = channels.y;
    wg_scores[at + 2u] = channels.z;
    wg_scores[at + 3u] = channels.w;
}

fn store_sums(slot: u32, square: Square) {
    switch (slot) {
        case 0u: {
            coopStoreT(acc0, &wg_scores[square.at], S_STRIDE);
        }
        case 1u: {
            coopStoreT(acc1, &wg_scores[square.at], S_STRIDE);
        }
        case 2u: {
            coopStoreT(acc2, &wg_scores[square.at], S_STRIDE);
        }
        case 3u: {
            coopStoreT(acc3, &wg_scores[square.at], S_STRIDE);
        }
        case 4u: {
            coopStoreT(acc4, &wg_scores[square.at], S_STRIDE);
        }
        case 5u: {
            coopStoreT(acc5, &wg_scores[square.at], S_STRIDE);
        }
        case 6u: {
            coopStoreT(acc6, &wg_scores[square.at], S_STRIDE);
        }
        case 7u, default: {
            coopStoreT(acc7, &wg_scores[square.at], S_STRIDE);
        }
    }
}

fn load_sums(slot: u32, square: Square) {
    let sums = coopLoadT<MatrixC>(&wg_scores[square.at], S_STRIDE);
    switch (slot) {
        case 0u: {
            acc0 = sums;
        }
        case 1u: {
            acc1 = sums;
        }
        case 2u: {
            acc2 = sums;
        }
        case 3u: {
            acc3 = sums;
        }
        case 4u: {
            acc4 = sums;
        }
        case 5u: {
            acc5 = sums;
        }
        case 6u: {
            acc6 = sums;
        }
        case 7u, default: {
            acc7 = sums;
        }
    }
}

// What an earlier dispatch left in out, channels 4 * first_d4 and on, times `factor`; zeros, if there was none.
fn begin_sums(slot: u32, square: Square, row: u32, first_d4: u32, factor: f32) {
    for (var c4 = square.tx; c4 < square.columns4; c4 += ROW_LANES) {
        var channels = vec4<f32>(0.0);
        if (first_d4 + c4 < DV4) {
            channels = resume_acc(row, first_d4 + c4) * factor;
        }
        set_scratch(square, c4, channels);
    }
    // Written by the lanes of each row, read by its subgroup.
    workgroupBarrier();
    load_sums(slot, square);
    // Written next by the slot after, or by multiply_scores.
    workgroupBarrier();
}

// Each row times its lanes' factor.
fn rescale_sums(slot: u32, square: Square, factor: f32) {
    store_sums(slot, square);
    // Written by its subgroup, read and written by the lanes of each row, read by its subgroup, which writes it next.
    workgroupBarrier();
    for (var c4 = square.tx; c4 < square.columns4; c4 += ROW_LANES) {
        set_scratch(square, c4, scratch_at(square, c4) * factor);
    }
    workgroupBarrier();
    load_sums(slot, square);
}

// And what the lanes' weights make of values that are not finite, channels 4 * first_d4 and on. The lanes of a row add one after
// another.
fn add_exceptions(slot: u32, square: Square, position: Position, kv_first: u32, first_d4: u32,
    weights: array<vec4<f32>, KEYS4>) {
    // Whoever read the square before has finished.
    workgroupBarrier();
    store_sums(slot, square);
    // Written by its subgroup, read and written by the lanes of each row, one after another, read by its subgroup.
    workgroupBarrier();
    for (var x = 0u; x < ROW_LANES; x++) {
        if (x == square.tx) {
            for (var c4 = 0u; c4 < square.columns4 && first_d4 + c4 < DV4; c4++) {
                var sum = scratch_at(square, c4);
                /*unroll*/ for (var g = 0u; g < KEYS4; g++) {
                    /*unroll*/ for (var c = 0u; c < 4u; c++) {
                        let j = kv_first + 4u * (square.tx + ROW_LANES * g) + c;
                        if (j < position.sequence.kv_end) {
                            let channels = load_value(value_head(position) + j * params.value_row, first_d4 + c4);
                            sum += weighted_exception(weights[g][c], channels);
                        }
                    }
                }
                set_scratch(square, c4, sum);
            }
        }
        workgroupBarrier();
    }
    load_sums(slot, square);
}

// A square of MATRIX channels, from `slot` times all subgroups' squares on, and the keys k * MATRIX and on.
fn value_square(part: u32, parts: u32, slot: u32, k: u32) -> MatrixB {
    return coopLoad<MatrixB>(&wg_kv[(part + slot * parts) * MATRIX * V_STRIDE + k * MATRIX], V_STRIDE);
}

fn with_product(acc: MatrixC, weights: MatrixA, rest: MatrixA, values: MatrixB) -> MatrixC {
    let sum = coopMultiplyAdd(weights, values, acc);
    if (WEIGHT_PARTS == 2u) {
        return coopMultiplyAdd(rest, values, sum);
    }
    return sum;
}

// Adds the products of the weights of MATRIX keys and these keys' values, from key k * MATRIX of the tile on.
fn add_products(weights: MatrixA, rest: MatrixA, part: u32, parts: u32, k: u32) {
    // The constant says as much, to compilers that do not know the number of subgroups.
    let slots = V_SQUARES / parts;
    acc0 = with_product(acc0, weights, rest, value_square(part, parts, 0u, k));
    if (1u < V_SQUARES && 1u < slots) {
        acc1 = with_product(acc1, weights, rest, value_square(part, parts, 1u, k));
    }
    if (2u < V_SQUARES && 2u < slots) {
        acc2 = with_product(acc2, weights, rest, value_square(part, parts, 2u, k));
    }
    if (3u < V_SQUARES && 3u < slots) {
        acc3 = with_product(acc3, weights, rest, value_square(part, parts, 3u, k));
    }
    if (4u < V_SQUARES && 4u < slots) {
        acc4 = with_product(acc4, weights, rest, value_square(part, parts, 4u, k));
    }
    if (5u < V_SQUARES && 5u < slots) {
        acc5 = with_product(acc5, weights, rest, value_square(part, parts, 5u, k));
    }
    if (6u < V_SQUARES && 6u < slots) {
        acc6 = with_product(acc6, weights, rest, value_square(part, parts, 6u, k));
    }
    if (7u < V_SQUARES && 7u < slots) {
        acc7 = with_product(acc7, weights, rest, value_square(part, parts, 7u, k));
    }
}
