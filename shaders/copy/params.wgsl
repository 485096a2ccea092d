// Purpose: what one dispatch of a copy works on.
// Bindings: 0 params.

// Host twin: `kernel/params.rs`. Offsets are in elements, modulo 2^32, as in params.wgsl.
struct CopyParams {
    // The elements that this dispatch copies.
    element_begin: u32,
    element_count: u32,
    grid_x: u32,
    source_offset: u32,
    destination_offset: u32,
}

@group(0) @binding(0) var<uniform> params: CopyParams;
