// Purpose: pow that also takes negative bases, which WGSL's own does not, with whole exponents. Called by translated
// expressions.

fn HOOK_pow(x: f32, y: f32) -> f32 {
    let size = pow(abs(x), y);
    let signed = select(size, -size, x < 0.0 && fract(y * 0.5) != 0.0);
    let known = select(pow(x, y), signed, x >= 0.0 || trunc(y) == y);
    return select(known, 1.0, y == 0.0);
}
