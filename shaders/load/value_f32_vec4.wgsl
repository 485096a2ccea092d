// Purpose: four channels of value in one load: every row begins at a multiple of four elements and is a multiple of four
// long.
// Hook of slot `value`: defines load_value.
// Binding 3: value, f32, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<vec4<f32>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    return value[(row >> 2u) + d4];
}
