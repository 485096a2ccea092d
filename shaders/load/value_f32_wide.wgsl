// Purpose: four channels of value, loaded with four neighbours as four words of 64 bits: every row begins at a multiple of eight
// elements and is a multiple of eight long. For drivers whose loads cost by the number, not by the size; both fours are one load to them.
// Hook of slot `value`: defines load_value.
// Binding 3: value, f32, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<vec4<u64>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    let all = value[(row >> 3u) + (d4 >> 1u)];
    let words = select(all.xy, all.zw, (d4 & 1u) == 1u);
    return vec4<f32>(bitcast<f32>(u32(words.x)), bitcast<f32>(u32(words.x >> 32u)), bitcast<f32>(u32(words.y)),
        bitcast<f32>(u32(words.y >> 32u)));
}
