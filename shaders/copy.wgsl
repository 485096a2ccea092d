// Purpose: copies elements from one buffer to another, bit by bit.
// Grid: one workgroup of THREADS invocations owns THREADS words of the destination; an invocation owns one word, which is PER_WORD
// elements.
// Bindings: 1 source, 2 destination. Hooks: none.

// Words of DTYPE.
@group(0) @binding(1) var<storage, read> source: array<u32>;

// Words of DTYPE.
@group(0) @binding(2) var<storage, read_write> destination: array<u32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = (workgroup.y * params.grid_x + workgroup.x) * THREADS + lane;
    let word = word_of(DTYPE, params.destination_offset + params.element_begin) + number;
    var bits = 0u;
    // Which bits of the word are copied: the first and the last word may hold an element of somebody else.
    var written = 0u;
    /*unroll*/ for (var k = 0u; k < PER_WORD; k++) {
        // Modulo 2^32, below `element_begin` too.
        let element = word * PER_WORD + k - params.destination_offset;
        if (element - params.element_begin < params.element_count) {
            let at = params.source_offset + element;
            bits |= bits_of(DTYPE, source[word_of(DTYPE, at)], at) << (16u * k);
            written |= mask_of(DTYPE, k);
        }
    }
    if (written == 0xffffffffu) {
        destination[word] = bits;
    } else if (written != 0u) {
        destination[word] = (destination[word] & ~written) | bits;
    }
}
