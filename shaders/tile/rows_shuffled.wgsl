// Purpose: the largest and the sum of what the TX lanes of a row hold, by subgroup shuffles. Hook of slot `rows`: defines
// highest_of_rows and sums_of_rows. Needs TX = 8, and that the lanes 8 n to 8 n + 7 of a workgroup are neighbours in one subgroup
// (DeviceCaps::lanes_in_order): so they are in each other's reach by the lowest three bits of their number.

// The largest that any lane of a row holds, [r] for row ty + TY * r. Holds a barrier: all have finished with wg_kv's keys.
fn highest_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    var highest = own;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        highest[r] = max(highest[r], subgroupShuffleXor(highest[r], 1u));
        highest[r] = max(highest[r], subgroupShuffleXor(highest[r], 2u));
        highest[r] = max(highest[r], subgroupShuffleXor(highest[r], 4u));
    }
    workgroupBarrier();
    return highest;
}

// The sum of what the lanes of a row hold, likewise. The same in each of them: both of a pair add the same two numbers.
fn sums_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    var sums = own;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        sums[r] += subgroupShuffleXor(sums[r], 1u);
        sums[r] += subgroupShuffleXor(sums[r], 2u);
        sums[r] += subgroupShuffleXor(sums[r], 4u);
    }
    return sums;
}
