// Purpose: the driver would put all loads first and all arithmetic behind them, where nothing stays in a register: so the address of
// the next value channels is a sum with what was just computed. Hook of slot `order`: defines next_step, what is added to that
// address: 0, which no compiler knows, since grid_x is at least 1. Two vec4 may be one load, so it changes behind the second.

fn next_step(step: u32, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, d: u32) -> u32 {
    if (d % 2u == 0u) {
        return step;
    }
    var bits = vec4<u32>(0u);
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let channels = r * DV4_CHUNK + d;
        bits |= bitcast<vec4<u32>>((*acc)[channels - 1u]) | bitcast<vec4<u32>>((*acc)[channels]);
    }
    return (bits.x | bits.y | bits.z | bits.w) & (min(params.grid_x, 1u) - 1u);
}
