// Purpose: four channels of out one by one: rows may begin anywhere and have any length.
// Hook of slot `out`: defines load_out and store_out.
// Binding 4: out, f32, [batch, heads, seqlen_q, head_dim_v], contiguous channels.

@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn load_out(row: u32, d4: u32) -> vec4<f32> {
    var channels = vec4<f32>(0.0);
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        if (4u * d4 + c < HEAD_DIM_V) {
            channels[c] = out[row + 4u * d4 + c];
        }
    }
    return channels;
}

fn store_out(row: u32, d4: u32, channels: vec4<f32>) {
    /*unroll*/ for (var c = 0u; c < 4u; c++) {
        if (4u * d4 + c < HEAD_DIM_V) {
            out[row + 4u * d4 + c] = channels[c];
        }
    }
}
