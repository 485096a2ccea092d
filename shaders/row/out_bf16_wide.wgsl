// Purpose: four channels of out in one store of 64 bits: rows begin at multiples of four elements and are multiples of four long.
// For drivers whose stores cost by the number, not by the size.
// Hook of slot `out`: defines store_out. Needs type/narrow_bf16.wgsl.
// Binding 4: out, bf16, two a word, [batch, heads, seqlen_q, head_dim_v], contiguous channels.

@group(0) @binding(4) var<storage, read_write> out: array<u64>;

fn store_out(row: u32, d4: u32, channels: vec4<f32>) {
    let low = narrow(channels.x) | (narrow(channels.y) << 16u);
    let high = narrow(channels.z) | (narrow(channels.w) << 16u);
    out[(row >> 2u) + d4] = u64(low) | (u64(high) << 32u);
}
