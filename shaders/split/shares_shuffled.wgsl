// Purpose: the eight lanes that share a key add up their products by subgroup shuffles (SHARE is 8). Hook of slot `shares`: defines
// add_shares. Each lane gets the same sum, bit for bit: it adds the same pairs.

fn add_shares(scores: ptr<function, array<f32, ROWS * KEYS>>, lane: u32) {
    /*unroll*/ for (var n = 0u; n < PRODUCTS; n++) {
        var sum = (*scores)[n];
        sum += subgroupShuffleXor(sum, 1u);
        sum += subgroupShuffleXor(sum, 2u);
        sum += subgroupShuffleXor(sum, 4u);
        (*scores)[n] = sum;
    }
}
