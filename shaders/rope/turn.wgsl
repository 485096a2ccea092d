// Purpose: cos and sin of position * inv_freq, right at any position: the angle is a whole number of 2^-64 turns, whose
// multiples lose nothing, and only what is left of it within an eighth of a turn becomes an f32. Defines turn_of.
// Source: the polynomials are those of Moshier, "Cephes" (1989), sinf.c: 1 unit in the last place on this range.

const RADIANS_OF_STEP: f32 = 1.4629180792671596e-9; // 2 pi / 2^32

// The high word of a * b.
fn high_product(a: u32, b: u32) -> u32 {
    let a_low = a & 0xffffu;
    let a_high = a >> 16u;
    let b_low = b & 0xffffu;
    let b_high = b >> 16u;
    let across = a_high * b_low + ((a_low * b_low) >> 16u);
    let other = a_low * b_high + (across & 0xffffu);
    return a_high * b_high + (across >> 16u) + (other >> 16u);
}

// position * step without whole turns, in 2^-32 turns, rounded down.
fn fraction_of_turn(position: i32, step: vec2<u32>) -> u32 {
    // A negative position is read 2^32 too large.
    let excess = select(0u, step.x, position < 0);
    return bitcast<u32>(position) * step.y + high_product(bitcast<u32>(position), step.x) - excess;
}

// cos and sin of position steps.
fn turn_of(position: i32, step: vec2<u32>) -> vec2<f32> {
    let fraction = fraction_of_turn(position, step);
    // The nearest quarter of a turn, and what is left.
    let quarter = (fraction + 0x20000000u) >> 30u;
    let angle = f32(bitcast<i32>(fraction - (quarter << 30u))) * RADIANS_OF_STEP;
    let square = angle * angle;
    let sine = fma(
        angle * square,
        fma(square, fma(square, -1.9515295891e-4, 8.3321608736e-3), -1.6666654611e-1),
        angle,
    );
    let cosine = fma(
        square * square,
        fma(square, fma(square, 2.443315711809948e-5, -1.388731625493765e-3), 4.166664568298827e-2),
        fma(square, -0.5, 1.0),
    );
    let swapped = (quarter & 1u) == 1u;
    let turn = select(vec2(cosine, sine), vec2(-sine, cosine), swapped);
    return select(turn, -turn, (quarter & 2u) == 2u);
}
