// Purpose: four channels of value one by one: rows may begin anywhere and have any length; channels past the end are 0. Two halves a word, so no shader feature is needed.
// Hook of slot `value`: defines load_value.
// Binding 3: value, f16, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<u32>;

fn value_at(at: u32) -> f32 {
    return unpack2x16float(value[at >> 1u])[at & 1u];
}

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    let d = 4u * d4;
    var channels = vec4<f32>(0.0);
    if (d + 3u < HEAD_DIM_V) {
        channels = vec4<f32>(value_at(row + d), value_at(row + d + 1u), value_at(row + d + 2u), value_at(row + d + 3u));
    } else {
        if (d < HEAD_DIM_V) {
            channels.x = value_at(row + d);
        }
        if (d + 1u < HEAD_DIM_V) {
            channels.y = value_at(row + d + 1u);
        }
        if (d + 2u < HEAD_DIM_V) {
            channels.z = value_at(row + d + 2u);
        }
    }
    return channels;
}
