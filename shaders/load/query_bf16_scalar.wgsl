// Purpose: four channels of query one by one: rows may begin anywhere and have any length; channels past the end are 0. Two numbers a word, each the upper half of a single.
// Hook of slot `query`: defines load_query.
// Binding 1: query, bf16, [batch, heads, seqlen_q, head_dim], contiguous channels.

@group(0) @binding(1) var<storage, read> query: array<u32>;

fn query_at(at: u32) -> f32 {
    let word = query[at >> 1u];
    return bitcast<f32>(select(word << 16u, word & 0xffff0000u, (at & 1u) == 1u));
}

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_query(row: u32, d4: u32) -> vec4<f32> {
    let d = 4u * d4;
    var channels = vec4<f32>(0.0);
    if (d + 3u < HEAD_DIM) {
        channels = vec4<f32>(query_at(row + d), query_at(row + d + 1u), query_at(row + d + 2u), query_at(row + d + 3u));
    } else {
        if (d < HEAD_DIM) {
            channels.x = query_at(row + d);
        }
        if (d + 1u < HEAD_DIM) {
            channels.y = query_at(row + d + 1u);
        }
        if (d + 2u < HEAD_DIM) {
            channels.z = query_at(row + d + 2u);
        }
    }
    return channels;
}
