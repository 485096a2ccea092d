// Purpose: a single to the bits of an IEEE 754 half, rounded to nearest, ties to even, by integers alone: WGSL leaves the
// rounding of pack2x16float open, and what it makes of numbers too large for a half. Defines narrow.

fn narrow(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    // Normal halves: the exponent moves by 112, and 13 bits of fraction go.
    let normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13u) & 1u)) >> 13u;
    // Subnormal halves: count in units of 2^-24, the fraction with its leading one shifted into place.
    let shift = min(126u - min(magnitude >> 23u, 126u), 31u);
    let fraction = (magnitude & 0x7fffffu) | 0x800000u;
    let kept = fraction >> shift;
    let rest = fraction & ((1u << shift) - 1u);
    let middle = (1u << shift) >> 1u;
    let up = rest > middle || (rest == middle && (kept & 1u) == 1u);
    let subnormal = select(kept, kept + 1u, up && shift > 0u);
    var half_bits = select(subnormal, normal, magnitude >= 0x38800000u);
    // From 65520 on, half of the last place above the largest half, it rounds to infinity.
    half_bits = select(half_bits, 0x7c00u, magnitude >= 0x477ff000u);
    half_bits = select(half_bits, 0x7e00u, magnitude > 0x7f800000u);
    return sign | half_bits;
}
