// Purpose: writes new rows into a cache, each sequence's from a row of its own on.
// Grid: one workgroup of THREADS invocations owns THREADS words of the cache; an invocation owns one word, as far as one row
// reaches into it: PER_WORD elements, fewer at a row's ends, where the next row's invocation may own the rest.
// Bindings: 0 params, 1 new_rows (the update), 3 present_cache; 2 write_indices where a hook declares it.
// Hooks: write_index(batch), the row of the cache that row 0 of a sequence's update goes to.
// Source: ONNX, operator TensorScatter (opset 24).

// Host twin: `kernel/params.rs`. Offsets are in elements, modulo 2^32, as in params.wgsl. A block is what one sequence has in
// one of `outer`: cache_len rows of the cache, update_len rows of the update, of `inner` elements.
struct ScatterParams {
    // How many invocations have work, and how many words a row's elements may touch.
    words: u32,
    words_of_row: u32,
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

// [batch, outer, update_len, inner], words of DTYPE.
@group(0) @binding(1) var<storage, read> new_rows: array<u32>;

// [batch, outer, cache_len, inner], words of DTYPE.
@group(0) @binding(3) var<storage, read_write> present_cache: array<atomic<u32>>;

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
    if (number >= params.words) {
        return;
    }
    let row_number = number / params.words_of_row;
    let block = params.block_begin + row_number / params.row_count;
    let row = params.row_begin + row_number % params.row_count;
    let slot = slot_of(row, write_index(block / params.outer));
    if (slot < params.slot_begin || slot >= params.slot_end) {
        return;
    }
    let first_new = params.update_offset + (block * params.update_len + row) * params.inner;
    let first = params.present_cache_offset + (block * params.cache_len + slot) * params.inner;
    let word = word_of(DTYPE, first) + number % params.words_of_row;
    var bits = 0u;
    var written = 0u;
    /*unroll*/ for (var k = 0u; k < PER_WORD; k++) {
        let i = word * PER_WORD + k - first;
        if (i < params.inner) {
            let at = first_new + i;
            bits |= bits_of(DTYPE, new_rows[word_of(DTYPE, at)], at) << (16u * k);
            written |= mask_of(DTYPE, k);
        }
    }
    if (written == 0xffffffffu) {
        atomicStore(&present_cache[word], bits);
    } else if (written != 0u) {
        // The word's other bits are another invocation's, or nobody's; in whatever order, each sets its own.
        atomicAnd(&present_cache[word], ~written);
        atomicOr(&present_cache[word], bits);
    }
}
