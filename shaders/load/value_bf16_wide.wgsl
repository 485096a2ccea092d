// Purpose: four channels of value, loaded with four neighbours as two words of 64 bits; each is the upper half of a single: every row
// begins at a multiple of eight elements and is a multiple of eight long. For drivers whose loads cost by the number, not by the
// size; both fours are one load to them.
// Hook of slot `value`: defines load_value.
// Binding 3: value, bf16, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<vec2<u64>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    let all = value[(row >> 3u) + (d4 >> 1u)];
    let words = select(all.x, all.y, (d4 & 1u) == 1u);
    let low = u32(words);
    let high = u32(words >> 32u);
    return bitcast<vec4<f32>>(vec4<u32>(low << 16u, low & 0xffff0000u, high << 16u, high & 0xffff0000u));
}
