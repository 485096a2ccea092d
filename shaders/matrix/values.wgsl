// Purpose: weights · value for a tile, by products of matrices, and the way of the sums between matrices and lanes, through wg_scores:
// a matrix has no elements that a lane could name. Needs matrix/own.wgsl, matrix/stage.wgsl, matrix/scores.wgsl and slots
// `value`, `acc` and `matrix_guard`.

// A subgroup's sums of values, MATRIX rows and as many channels each: slot 0 and on. Not an array, since there are none of matrices.
var<private> acc0: MatrixC;
var<private> acc1: MatrixC;
var<private> acc2: MatrixC;
var<private> acc3: MatrixC;
var<private> acc4: MatrixC;
var<private> acc5: MatrixC;
var<private> acc6: MatrixC;
var<private> acc7: MatrixC;

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

// The sums of slot 0, on their way out.
fn store_sums(square: Square) {
    coopStoreT(acc0, &wg_scores[square.at], S_STRIDE);
}

// Back into the last slot, while all others move up by one.
fn load_sums(square: Square) {
    move_up(coopLoadT<MatrixC>(&wg_scores[square.at], S_STRIDE));
}

// After V_SQUARES times, each with the sums of slot 0, all are where they were. So the text is short: a switch over the slots would
// name each of them twice.
fn move_up(sums: MatrixC) {
    // V_SQUARES is even.
    acc0 = acc1;
    if (V_SQUARES > 2u) {
        acc1 = acc2;
        acc2 = acc3;
    }
    if (V_SQUARES > 4u) {
        acc3 = acc4;
        acc4 = acc5;
    }
    if (V_SQUARES > 6u) {
        acc5 = acc6;
        acc6 = acc7;
    }
    switch (V_SQUARES) {
        case 2u: {
            acc1 = sums;
        }
        case 4u: {
            acc3 = sums;
        }
        case 6u: {
            acc5 = sums;
        }
        default: {
            acc7 = sums;
        }
    }
}

// Of slot 0, as all that follow: what an earlier dispatch left in out, channels 4 * first_d4 and on, times `factor`; zeros, if there
// was none.
fn begin_sums(square: Square, row: u32, first_d4: u32, factor: f32) {
    for (var c4 = square.tx; c4 < square.columns4; c4 += ROW_LANES) {
        var channels = vec4<f32>(0.0);
        if (first_d4 + c4 < DV4) {
            channels = resume_acc(row, first_d4 + c4) * factor;
        }
        set_scratch(square, c4, channels);
    }
    // Written by the lanes of each row, read by its subgroup.
    workgroupBarrier();
    load_sums(square);
    // Written next by the slot after, or by multiply_scores.
    workgroupBarrier();
}

// Each row times its lanes' factor.
fn rescale_sums(square: Square, factor: f32) {
    store_sums(square);
    // Written by its subgroup, read and written by the lanes of each row, read by its subgroup, which writes it next.
    workgroupBarrier();
    for (var c4 = square.tx; c4 < square.columns4; c4 += ROW_LANES) {
        set_scratch(square, c4, scratch_at(square, c4) * factor);
    }
    workgroupBarrier();
    load_sums(square);
}

// And what the lanes' weights make of values that are not finite, channels 4 * first_d4 and on. The lanes of a row add one after
// another.
fn add_exceptions(square: Square, position: Position, kv_first: u32, first_d4: u32,
    weights: array<vec4<f32>, KEYS4>) {
    // Whoever read the square before has finished.
    workgroupBarrier();
    store_sums(square);
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
                            let channels = load_value(own.value_head + j * params.value_row, first_d4 + c4);
                            sum += weighted_exception(weights[g][c], channels);
                        }
                    }
                }
                set_scratch(square, c4, sum);
            }
        }
        workgroupBarrier();
    }
    load_sums(square);
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
