// Purpose: merging begins afresh: what lies in out counts as empty.
// Hooks defined: earlier_lse_bits.

fn earlier_lse_bits(row: u32) -> u32 {
    return bitcast<u32>(params.negative_infinity);
}
