// Purpose: what one dispatch of linear.wgsl or average_heads.wgsl works on. Host twin: `kernel/params.rs`.
// Binding 0, uniform. Strides and offsets in elements.

struct LinearParams {
    // Rows of input, as rows_per_batch times the number of batches, and the first and last of this dispatch.
    row_begin: u32,
    row_end: u32,
    rows_per_batch: u32,
    in_features: u32,
    out_features: u32,
    workgroups: u32,
    grid_x: u32,
    input_offset: u32,
    input_batch: u32,
    input_row: u32,
    weight_offset: u32,
    weight_row: u32,
    bias_offset: u32,
    output_offset: u32,
    output_batch: u32,
    output_row: u32,
}

@group(0) @binding(0) var<uniform> params: LinearParams;
