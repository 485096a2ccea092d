// Purpose: a chunk is a word of the cache, as far as the row reaches into it: PER_WORD elements, fewer at the row's ends, where
// another row's invocation may own the rest.
// Bindings: 1 new_rows (the update), 3 present_cache. Hooks defined: copy_chunk.

// [batch, outer, update_len, inner], words of DTYPE.
@group(0) @binding(1) var<storage, read> new_rows: array<u32>;

// [batch, outer, cache_len, inner], words of DTYPE.
@group(0) @binding(3) var<storage, read_write> present_cache: array<atomic<u32>>;

fn copy_chunk(from_element: u32, to_element: u32, chunk: u32) {
    let word = word_of(DTYPE, to_element) + chunk;
    var bits = 0u;
    var written = 0u;
    /*unroll*/ for (var k = 0u; k < PER_WORD; k++) {
        // Modulo 2^32, below the row's first element too.
        let i = word * PER_WORD + k - to_element;
        if (i < params.inner) {
            let at = from_element + i;
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
