// Purpose: joins partial attention results, each of some of the keys, by their log-sum-exp:
// lse = ln sum_n exp(lse_n), out = sum_n exp(lse_n - lse) out_n.
// Grid: one workgroup of THREADS invocations owns THREADS words of out; an invocation owns one word, which is OUT_PER_WORD
// elements, perhaps of two rows, and with the first element of a row that row's lse.
// Bindings: 1 out_parts, 3 out. Hooks: those of merge/lse.wgsl.
// What earlier dispatches left is one part more, which lies in out itself.
// Source: Dao, "FlashAttention-2" (2023), 3.1; the joining of states in Ye et al., "FlashInfer" (2025), 2.2.

// [parts, rows, head_dim_v], words of PARTS_DTYPE; a row is one query of one head of one batch.
@group(0) @binding(1) var<storage, read> out_parts: array<u32>;

// [rows, head_dim_v], words of OUT_DTYPE.
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

// One element of out, and its row's lse, as bits.
struct Merged {
    out: u32,
    lse: u32,
}

fn merge(element: u32) -> Merged {
    let row = element / params.head_dim_v;
    let parts = row_parts(row);
    if (parts.spoiled) {
        return Merged(nan_bits(OUT_DTYPE), merged_lse_bits(parts, 0.0));
    }
    if (!parts.any) {
        return Merged(0u, merged_lse_bits(parts, 0.0));
    }
    var sum = 0.0;
    var acc = 0.0;
    if (!is_empty(parts.earlier)) {
        sum = weight_of_part(parts.earlier, parts.largest);
        let at = params.out_offset + element;
        acc = sum * widen(OUT_DTYPE, out[word_of(OUT_DTYPE, at)], at);
    }
    for (var n = params.part_begin; n < params.part_end; n++) {
        let bits = part_lse_bits(row, n);
        if (!is_empty(bits)) {
            let at = params.out_parts_offset + n * params.out_part_stride + element;
            let weight = weight_of_part(bits, parts.largest);
            sum += weight;
            acc = fma(weight, widen(PARTS_DTYPE, out_parts[word_of(PARTS_DTYPE, at)], at), acc);
        }
    }
    // The part of the largest lse has weight 1, so the sum is at least that.
    return Merged(narrow(OUT_DTYPE, acc / sum), merged_lse_bits(parts, sum));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = (workgroup.y * params.grid_x + workgroup.x) * THREADS + lane;
    let word = word_of(OUT_DTYPE, params.out_offset + params.element_begin) + number;
    var bits = 0u;
    // Which bits of the word are this dispatch's: the first and the last word may hold an element of somebody else.
    var written = 0u;
    /*unroll*/ for (var k = 0u; k < OUT_PER_WORD; k++) {
        // Modulo 2^32, below `element_begin` too.
        let element = word * OUT_PER_WORD + k - params.out_offset;
        if (element - params.element_begin < params.element_count) {
            let merged = merge(element);
            bits |= merged.out << (16u * k);
            written |= mask_of(OUT_DTYPE, k);
            if (element % params.head_dim_v == 0u) {
                lse[params.lse_offset + element / params.head_dim_v] = merged.lse;
            }
        }
    }
    if (written == 0xffffffffu) {
        out[word] = bits;
    } else if (written != 0u) {
        out[word] = (out[word] & ~written) | bits;
    }
}
