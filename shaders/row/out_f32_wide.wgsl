// Purpose: four channels of out in two loads or stores of 64 bits: rows begin at multiples of four elements and are multiples of
// four long. For drivers whose loads and stores cost by the number, not by the size.
// Hook of slot `out`: defines load_out and store_out.
// Binding 4: out, f32, [batch, heads, seqlen_q, head_dim_v], contiguous channels.

@group(0) @binding(4) var<storage, read_write> out: array<vec2<u64>>;

fn load_out(row: u32, d4: u32) -> vec4<f32> {
    let words = out[(row >> 2u) + d4];
    return vec4<f32>(bitcast<f32>(u32(words.x)), bitcast<f32>(u32(words.x >> 32u)), bitcast<f32>(u32(words.y)),
        bitcast<f32>(u32(words.y >> 32u)));
}

fn store_out(row: u32, d4: u32, channels: vec4<f32>) {
    let words = bitcast<vec4<u32>>(channels);
    out[(row >> 2u) + d4] = vec2<u64>(u64(words.x) | (u64(words.y) << 32u), u64(words.z) | (u64(words.w) << 32u));
}
