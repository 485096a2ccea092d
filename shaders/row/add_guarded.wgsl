// Purpose: keys may be closed, and a closed key's value, whatever it is, must not reach the result: 0 * NaN is NaN. Hook of
// slot `add`: defines add_weighted. The comparison is the same for all channels, so compilers make it once.

fn add_weighted(acc: vec4<f32>, weight: f32, channels: vec4<f32>) -> vec4<f32> {
    let closed = bitcast<u32>(weight) == CLOSED_WEIGHT_BITS;
    return select(fma(vec4<f32>(weight), channels, acc), acc, vec4<bool>(closed));
}
