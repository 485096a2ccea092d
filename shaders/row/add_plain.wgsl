// Purpose: every key is open, so 0 * inf in the products is what IEEE 754 says. Hook of slot `add`: defines add_weighted.

fn add_weighted(acc: vec4<f32>, weight: f32, channels: vec4<f32>) -> vec4<f32> {
    return fma(vec4<f32>(weight), channels, acc);
}
