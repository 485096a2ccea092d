// Purpose: a chunk is a vector, 4 * PER_WORD elements, for rows that begin and end at multiples of 16 bytes.
// Bindings: 1 new_rows (the update), 3 present_cache. Hooks defined: copy_chunk.

// [batch, outer, update_len, inner], words of DTYPE.
@group(0) @binding(1) var<storage, read> new_rows: array<vec4<u32>>;

// [batch, outer, cache_len, inner], words of DTYPE.
@group(0) @binding(3) var<storage, read_write> present_cache: array<vec4<u32>>;

const PER_VECTOR: u32 = 4u * PER_WORD;

fn copy_chunk(from_element: u32, to_element: u32, chunk: u32) {
    present_cache[to_element / PER_VECTOR + chunk] = new_rows[from_element / PER_VECTOR + chunk];
}
