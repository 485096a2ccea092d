// Purpose: four channels of key in one load: every row begins at a multiple of four elements and is a multiple of four
// long. Needs the shader feature f16.
// Hook of slot `key`: defines load_key.
// Binding 2: key, f16, [batch, kv_heads, seqlen_k, head_dim], contiguous channels.

@group(0) @binding(2) var<storage, read> key: array<vec4<f16>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_key(row: u32, d4: u32) -> vec4<f32> {
    return vec4<f32>(key[(row >> 2u) + d4]);
}
