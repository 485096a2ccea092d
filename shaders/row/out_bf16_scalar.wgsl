// Purpose: four channels of out one by one: rows may begin anywhere and have any length. Two invocations may own one half
// each of a word, so a half is written by clearing it and setting it, atomically: the other half is never touched, and the
// order of the two does not matter.
// Hook of slot `out`: defines store_out. Needs type/narrow_bf16.wgsl.
// Binding 4: out, bf16, two a word, [batch, heads, seqlen_q, head_dim_v], contiguous channels.

@group(0) @binding(4) var<storage, read_write> out: array<atomic<u32>>;

fn store_out(row: u32, d4: u32, channels: vec4<f32>) {
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        if (4u * d4 + c < HEAD_DIM_V) {
            let at = row + 4u * d4 + c;
            let shift = 16u * (at & 1u);
            atomicAnd(&out[at >> 1u], ~(0xffffu << shift));
            atomicOr(&out[at >> 1u], narrow(channels[c]) << shift);
        }
    }
}
