// Purpose: squares of the sums of values on their way between matrices and lanes, through wg_scores. Needs matrix/scores.wgsl and
// slots `value` and `matrix_guard`. A matrix has no elements that a lane could name.

// One of the subgroup's squares.
struct Square {
    // Where it lies in wg_scores, and the row of this lane, of all subgroups' squares that are there together.
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

// Each row times its lanes' factor.
fn rescaled(acc: MatrixC, square: Square, factor: f32) -> MatrixC {
    coopStoreT(acc, &wg_scores[square.at], S_STRIDE);
    // Written by its subgroup, read and written by the lanes of each row, read by its subgroup.
    workgroupBarrier();
    for (var c4 = square.tx; c4 < square.columns4; c4 += ROW_LANES) {
        set_scratch(square, c4, scratch_at(square, c4) * factor);
    }
    workgroupBarrier();
    return coopLoadT<MatrixC>(&wg_scores[square.at], S_STRIDE);
}

// What an earlier dispatch left in out, channels 4 * first_d4 and on, times `factor`.
fn resumed(square: Square, row: u32, first_d4: u32, factor: f32) -> MatrixC {
    // Whoever read the square before has finished.
    workgroupBarrier();
    for (var c4 = square.tx; c4 < square.columns4; c4 += ROW_LANES) {
        var channels = vec4<f32>(0.0);
        if (first_d4 + c4 < DV4) {
            channels = resume_acc(row, first_d4 + c4) * factor;
        }
        set_scratch(square, c4, channels);
    }
    // Written by the lanes of each row, read by its subgroup.
    workgroupBarrier();
    return coopLoadT<MatrixC>(&wg_scores[square.at], S_STRIDE);
}

// With what the lanes' weights make of values that are not finite, channels 4 * first_d4 and on. The lanes of a row add one after
// another.
fn with_exceptions(acc: MatrixC, square: Square, position: Position, kv_first: u32, first_d4: u32,
    weights: array<vec4<f32>, KEYS4>) -> MatrixC {
    // Whoever read the square before has finished.
    workgroupBarrier();
    for (var x = 0u; x < ROW_LANES; x++) {
        if (x == square.tx) {
            for (var c4 = 0u; c4 < square.columns4; c4++) {
                var sum = vec4<f32>(0.0);
                if (x > 0u) {
                    sum = scratch_at(square, c4);
                }
                if (first_d4 + c4 < DV4) {
                    /*unroll*/ for (var g = 0u; g < KEYS4; g++) {
                        /*unroll*/ for (var c = 0u; c < 4u; c++) {
                            let j = kv_first + 4u * (square.tx + ROW_LANES * g) + c;
                            if (j < position.sequence.kv_end) {
                                let channels = load_value(value_head(position) + j * params.value_row, first_d4 + c4);
                                sum += weighted_exception(weights[g][c], channels);
                            }
                        }
                    }
                }
                set_scratch(square, c4, sum);
            }
        }
        // Read by the row's next lane, at last by its subgroup.
        workgroupBarrier();
    }
    return acc + coopLoadT<MatrixC>(&wg_scores[square.at], S_STRIDE);
}
