// Purpose: four channels of key one by one: rows may begin anywhere and have any length; channels past the end are 0.
// Hook of slot `key`: defines load_key.
// Binding 2: key, f32, [batch, kv_heads, seqlen_k, head_dim], contiguous channels.

@group(0) @binding(2) var<storage, read> key: array<f32>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_key(row: u32, d4: u32) -> vec4<f32> {
    let d = 4u * d4;
    var channels = vec4<f32>(0.0);
    if (d + 3u < HEAD_DIM) {
        channels = vec4<f32>(key[row + d], key[row + d + 1u], key[row + d + 2u], key[row + d + 3u]);
    } else {
        if (d < HEAD_DIM) {
            channels.x = key[row + d];
        }
        if (d + 1u < HEAD_DIM) {
            channels.y = key[row + d + 1u];
        }
        if (d + 2u < HEAD_DIM) {
            channels.z = key[row + d + 2u];
        }
    }
    return channels;
}
