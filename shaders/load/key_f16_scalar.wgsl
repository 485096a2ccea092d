// Purpose: four channels of key one by one: rows may begin anywhere and have any length; channels past the end are 0. Two halves a word, so no shader feature is needed.
// Hook of slot `key`: defines load_key.
// Binding 2: key, f16, [batch, kv_heads, seqlen_k, head_dim], contiguous channels.

@group(0) @binding(2) var<storage, read> key: array<u32>;

fn key_at(at: u32) -> f32 {
    return unpack2x16float(key[at >> 1u])[at & 1u];
}

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_key(row: u32, d4: u32) -> vec4<f32> {
    let d = 4u * d4;
    var channels = vec4<f32>(0.0);
    if (d + 3u < HEAD_DIM) {
        channels = vec4<f32>(key_at(row + d), key_at(row + d + 1u), key_at(row + d + 2u), key_at(row + d + 3u));
    } else {
        if (d < HEAD_DIM) {
            channels.x = key_at(row + d);
        }
        if (d + 1u < HEAD_DIM) {
            channels.y = key_at(row + d + 1u);
        }
        if (d + 2u < HEAD_DIM) {
            channels.z = key_at(row + d + 2u);
        }
    }
    return channels;
}
