// Purpose: four channels of query in two loads of 64 bits: every row begins at a multiple of four
// elements and is a multiple of four long. For drivers whose loads cost by the number, not by the size.
// Hook of slot `query`: defines load_query.
// Binding 1: query, f32, [batch, heads, seqlen_q, head_dim], contiguous channels.

@group(0) @binding(1) var<storage, read> query: array<vec2<u64>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_query(row: u32, d4: u32) -> vec4<f32> {
    let words = query[(row >> 2u) + d4];
    return vec4<f32>(bitcast<f32>(u32(words.x)), bitcast<f32>(u32(words.x >> 32u)), bitcast<f32>(u32(words.y)),
        bitcast<f32>(u32(words.y >> 32u)));
}
