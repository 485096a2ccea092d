// Purpose: the largest and the sum of what the TX lanes of a row hold, through workgroup memory, for devices without subgroup
// operations. Hook of slot `rows`: defines highest_of_rows and sums_of_rows.

// One vec4 is what one lane holds of four of its rows: [ROWS4][THREADS]. (The last one of each lane holds its last row again
// where ROWS is no multiple of four.)
var<workgroup> wg_part: array<vec4<f32>, ROWS4 * THREADS>;

fn share_rows(own: array<f32, ROWS>, lane: u32) {
    /*unroll*/ for (var g = 0u; g < ROWS4; g++) {
        wg_part[g * THREADS + lane] = vec4<f32>(own[4u * g], own[min(4u * g + 1u, ROWS - 1u)],
            own[min(4u * g + 2u, ROWS - 1u)], own[min(4u * g + 3u, ROWS - 1u)]);
    }
    // wg_part, written by all lanes, is read by the lanes of the same row; it is written next after another barrier.
    workgroupBarrier();
}

// The largest that any lane of a row holds, [r] for row ty + TY * r. Holds a barrier: all have finished with wg_kv's keys.
fn highest_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    share_rows(own, lane);
    let first = lane / TX * TX;
    var highest: array<f32, ROWS>;
    /*unroll*/ for (var g = 0u; g < ROWS4; g++) {
        var part = wg_part[g * THREADS + first];
        /*unroll*/ for (var x = 0u; x < TX; x++) {
            part = max(part, wg_part[g * THREADS + first + x]);
        }
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            highest[min(4u * g + c, ROWS - 1u)] = part[c];
        }
    }
    return highest;
}

// The sum of what the lanes of a row hold, likewise, the same in each of them.
fn sums_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    share_rows(own, lane);
    let first = lane / TX * TX;
    var sums: array<f32, ROWS>;
    /*unroll*/ for (var g = 0u; g < ROWS4; g++) {
        var part = vec4<f32>(0.0);
        /*unroll*/ for (var x = 0u; x < TX; x++) {
            part += wg_part[g * THREADS + first + x];
        }
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            sums[min(4u * g + c, ROWS - 1u)] = part[c];
        }
    }
    return sums;
}
