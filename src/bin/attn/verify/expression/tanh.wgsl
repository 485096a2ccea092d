// Purpose: tanh of any argument. Drivers compute it from exponentials, which overflow to NaN; beyond 15 it is 1 in f32. NaN
// passes. Called by translated expressions.

fn HOOK_tanh(x: f32) -> f32 {
    return select(tanh(x), sign(x), abs(x) > 15.0);
}
