// Purpose: writes new rows into a cache, each sequence's from a row of its own on.
// Grid: one workgroup of THREADS invocations owns THREADS chunks; an invocation owns one chunk of one row, a word or a vector as
// the hook says.
// Bindings: 0 params; those of the hooks.
// Hooks: write_index(batch), the row of the cache that row 0 of a sequence's update goes to; copy_chunk(from, to, chunk), which
// copies a chunk of the row that begins at element `from` of the update's binding and `to` of the cache's.
// Source: ONNX, operator TensorScatter (opset 24).

// Host twin: `kernel/params.rs`. Offsets are in elements, modulo 2^32, as in params.wgsl. A block is what one sequence has in
// one of `outer`: cache_len rows of the cache, update_len rows of the update, of `inner` elements.
struct ScatterParams {
    // How many chunks there are, and how many of a row.
    chunks: u32,
    chunks_of_row: u32,
    // The blocks and the rows of each block's update that this dispatch writes, if they go to these rows of the cache.
    block_begin: u32,
    row_begin: u32,
    row_count: u32,
    slot_begin: u32,
    slot_end: u32,
    outer: u32,
    cache_len: u32,
    update_len: u32,
    inner: u32,
    grid_x: u32,
    update_offset: u32,
    write_indices_offset: u32,
    present_cache_offset: u32,
}

@group(0) @binding(0) var<uniform> params: ScatterParams;

// The row of the cache that a row of the update goes to; one beyond the cache goes nowhere. Rows are below 2^30, so that
// a negative sum is a large number.
fn slot_of(row: u32, index: i32) -> u32 {
    if (CIRCULAR == 0u) {
        return bitcast<u32>(index) + row;
    }
    let length = bitcast<i32>(params.cache_len);
    let remainder = index % length;
    let start = select(remainder, remainder + length, remainder < 0);
    let slot = bitcast<u32>(start) + row;
    return select(slot, slot - params.cache_len, slot >= params.cache_len);
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = (workgroup.y * params.grid_x + workgroup.x) * THREADS + lane;
    if (number >= params.chunks) {
        return;
    }
    let row_number = number / params.chunks_of_row;
    let block = params.block_begin + row_number / params.row_count;
    let row = params.row_begin + row_number % params.row_count;
    let slot = slot_of(row, write_index(block / params.outer));
    if (slot < params.slot_begin || slot >= params.slot_end) {
        return;
    }
    let from_element = params.update_offset + (block * params.update_len + row) * params.inner;
    let to_element = params.present_cache_offset + (block * params.cache_len + slot) * params.inner;
    copy_chunk(from_element, to_element, number % params.chunks_of_row);
}
