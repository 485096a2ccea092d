// Purpose: four channels of query, loaded with four neighbours as two words of 64 bits: every row begins at a multiple of eight
// elements and is a multiple of eight long. For drivers whose loads cost by the number, not by the size; both fours are one load to them.
// Hook of slot `query`: defines load_query.
// Binding 1: query, f16, [batch, heads, seqlen_q, head_dim], contiguous channels.

@group(0) @binding(1) var<storage, read> query: array<vec2<u64>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_query(row: u32, d4: u32) -> vec4<f32> {
    let all = query[(row >> 3u) + (d4 >> 1u)];
    let words = select(all.x, all.y, (d4 & 1u) == 1u);
    return vec4<f32>(unpack2x16float(u32(words)), unpack2x16float(u32(words >> 32u)));
}
