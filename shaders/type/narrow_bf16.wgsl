// Purpose: a single to the bits of a bf16, rounded to nearest, ties to even. Defines narrow.

fn narrow(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    // Adding just under half of the last place that stays carries into it exactly when rounding up is right.
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    let not_a_number = (bits & 0x7fffffffu) > 0x7f800000u;
    return select(rounded, (bits >> 16u) | 0x40u, not_a_number);
}
