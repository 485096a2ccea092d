// Purpose: keys may be closed, and a closed key's value, whatever it is, must not reach the result: 0 * NaN is NaN. Hook of
// slot `guard`: defines guard_begin, guard_value, values_are_plain and guarded_add. As long as every value seen is finite,
// the plain product is right (its closed weights are 0); from the first one that is not, closed weights are left out one by one.

// 1 once some value of this workgroup was infinite or NaN. Set by any lane in guard_value, read by all in values_are_plain.
var<workgroup> wg_not_finite: atomic<u32>;

fn guard_begin(lane: u32) {
    if (lane == 0u) {
        atomicStore(&wg_not_finite, 0u);
    }
}

fn guard_value(channels: vec4<f32>) {
    let exponent = bitcast<vec4<u32>>(channels) & vec4<u32>(0x7f800000u);
    if (any(exponent == vec4<u32>(0x7f800000u))) {
        atomicStore(&wg_not_finite, 1u);
    }
}

// Holds the barrier that makes wg_kv and wg_weights readable. The flag changes again only after the next barrier.
fn values_are_plain() -> bool {
    workgroupBarrier();
    return atomicLoad(&wg_not_finite) == 0u;
}

fn guarded_add(acc: vec4<f32>, weights: vec4<f32>, c: u32, channels: vec4<f32>) -> vec4<f32> {
    let weight = vec4<f32>(weights[c]);
    return select(fma(weight, channels, acc), acc, is_closed_weight(weight));
}
