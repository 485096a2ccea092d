// Purpose: keys may be closed, and a closed key's value, whatever it is, must not reach the result: 0 * NaN is NaN. Hook of
// slot `matrix_guard`: defines guard_begin, guarded_values, values_are_finite and weighted_exception. The product of matrices sees
// 0 for a value that is not finite; from the first such value on, what open weights make of these is added one by one.

// [0] is 1 once some value of this workgroup was infinite or NaN; [1] is where others write, and nobody reads. Set by any lane in
// guarded_values, read by all after a barrier in values_are_finite, never cleared. Four words, so that what follows lies at a multiple
// of 16 bytes.
var<workgroup> wg_not_finite: array<atomic<u32>, 4>;

fn guard_begin(lane: u32) {
    if (lane == 0u) {
        atomicStore(&wg_not_finite[0], 0u);
    }
}

fn not_finite(channels: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(channels) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u);
}

fn guarded_values(rows: array<vec4<f32>, 4>) -> array<vec4<f32>, 4> {
    var guarded: array<vec4<f32>, 4>;
    var exceptions = vec4<bool>(false);
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        let here = not_finite(rows[c]);
        guarded[c] = select(rows[c], vec4<f32>(0.0), here);
        exceptions = exceptions | here;
    }
    atomicStore(&wg_not_finite[select(1u, 0u, any(exceptions))], 1u);
    return guarded;
}

fn values_are_finite() -> bool {
    return atomicLoad(&wg_not_finite[0]) == 0u;
}

// What a weight makes of the values that guarded_values left out.
fn weighted_exception(weight: f32, channels: vec4<f32>) -> vec4<f32> {
    let counts = not_finite(channels) & vec4<bool>(bitcast<u32>(weight) != CLOSED_WEIGHT_BITS);
    return select(vec4<f32>(0.0), weight * channels, counts);
}
