// Purpose: keys may be closed, and a closed key's value, whatever it is, must not reach the result: 0 * NaN is NaN. Hook of
// slot `guard`: defines guard_begin, guard_values, values_are_plain and guarded_add. As long as every value seen is finite,
// the plain product is right (its closed weights are 0); from the first one that is not, closed weights are left out one by one.

// [0] is 1 once some value of this workgroup was infinite or NaN; [1] is where others write, and nobody reads. Set by any lane in
// guard_values, read by all in values_are_plain. Four, as large as a vec4: a driver lays out workgroup memory without gaps, and
// loads a vec4 that lies at no multiple of its size in four pieces.
var<workgroup> wg_not_finite: array<atomic<u32>, 4>;

fn guard_begin(lane: u32) {
    if (lane == 0u) {
        atomicStore(&wg_not_finite[0], 0u);
    }
}

// Without a branch, of which each doubles and more the time that SwiftShader takes to compile.
fn guard_values(values: array<vec4<f32>, VALUE_STAGES>) {
    var exponents = vec4<u32>(0u);
    /*unroll*/ for (var n = 0u; n < VALUE_STAGES; n++) {
        exponents = max(exponents, bitcast<vec4<u32>>(values[n]) & vec4<u32>(0x7f800000u));
    }
    atomicStore(&wg_not_finite[select(1u, 0u, any(exponents == vec4<u32>(0x7f800000u)))], 1u);
}

// After the barrier that makes wg_kv and wg_weights readable. The flag changes again only after the next barrier.
fn values_are_plain() -> bool {
    return atomicLoad(&wg_not_finite[0]) == 0u;
}

fn guarded_add(acc: vec4<f32>, weight: f32, channels: vec4<f32>) -> vec4<f32> {
    return select(fma(vec4<f32>(weight), channels, acc), acc, bitcast<u32>(weight) == CLOSED_WEIGHT_BITS);
}
