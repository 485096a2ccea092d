// Purpose: the largest and the sum of what the TX lanes of a row hold, through workgroup memory, for devices without subgroup
// operations. Hook of slot `rows`: defines highest_of_rows and sums_of_rows.

// One float is what one lane holds of one row: [TILE_Q][TX].
var<workgroup> wg_part: array<f32, TILE_Q * TX>;

// The largest that any lane of a row holds, [r] for row ty + TY * r. Holds a barrier: all have finished with wg_kv's keys.
fn highest_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    let first = lane / TX * TX;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        wg_part[TY * TX * r + lane] = own[r];
    }
    // wg_part, written by all lanes, is read by the lanes of the same row; it is written next after another barrier.
    workgroupBarrier();
    var highest = own;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        /*unroll*/ for (var x = 0u; x < TX; x++) {
            highest[r] = max(highest[r], wg_part[TY * TX * r + first + x]);
        }
    }
    return highest;
}

// The sum of what the lanes of a row hold, likewise, the same in each of them.
fn sums_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    let first = lane / TX * TX;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        wg_part[TY * TX * r + lane] = own[r];
    }
    // wg_part, written by all lanes, is read by the lanes of the same row.
    workgroupBarrier();
    var sums: array<f32, ROWS>;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        sums[r] = 0.0;
        /*unroll*/ for (var x = 0u; x < TX; x++) {
            sums[r] += wg_part[TY * TX * r + first + x];
        }
    }
    return sums;
}
