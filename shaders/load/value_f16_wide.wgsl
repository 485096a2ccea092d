// Purpose: four channels of value in one load of 64 bits: every row begins at a multiple of four
// elements and is a multiple of four long. For drivers whose loads cost by the number, not by the size.
// Hook of slot `value`: defines load_value.
// Binding 3: value, f16, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<u64>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    let words = value[(row >> 2u) + d4];
    return vec4<f32>(unpack2x16float(u32(words)), unpack2x16float(u32(words >> 32u)));
}
