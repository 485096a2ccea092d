// Purpose: four channels of out in one load or store: rows begin at multiples of four elements and are multiples of four long.
// Hook of slot `out`: defines load_out and store_out.
// Binding 4: out, f32, [batch, heads, seqlen_q, head_dim_v], contiguous channels.

@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

fn load_out(row: u32, d4: u32) -> vec4<f32> {
    return out[(row >> 2u) + d4];
}

fn store_out(row: u32, d4: u32, channels: vec4<f32>) {
    out[(row >> 2u) + d4] = channels;
}
