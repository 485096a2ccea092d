// Purpose: four channels of value in one load: every row begins at a multiple of four elements and is a multiple of four
// long. Two numbers a word, each the upper half of a single.
// Hook of slot `value`: defines load_value.
// Binding 3: value, bf16, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<vec2<u32>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    let words = value[(row >> 2u) + d4];
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
