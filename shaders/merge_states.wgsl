// Purpose: joins partial attention results, each of some of the keys, by their log-sum-exp:
// lse = ln sum_n exp(lse_n), out = sum_n exp(lse_n - lse) out_n.
// Grid: one workgroup of THREADS invocations owns THREADS words of out; an invocation owns one word, which is OUT_PER_WORD
// elements, and with the first element of a row that row's lse.
// Bindings: 0 params, 1 out_parts, 2 lse_parts, 3 out, 4 lse; 5 earlier_lse where the hook declares it.
// Hooks: earlier_lse_bits(row), the lse of what earlier dispatches left in out.
// What earlier dispatches left is one part more, which lies in out itself.
// Source: Dao, "FlashAttention-2" (2023), 3.1; the joining of states in Ye et al., "FlashInfer" (2025), 2.2.
//
// An lse of -inf, a part without open keys, and NaN are told by their bits, and never meet arithmetic.

// Host twin: `kernel/params.rs`. Offsets are in elements, modulo 2^32, as in params.wgsl.
struct MergeParams {
    // The elements of out that this dispatch computes, whole rows of them.
    element_begin: u32,
    element_count: u32,
    // The parts that this dispatch joins, and how far apart they lie in out_parts and in lse_parts.
    part_begin: u32,
    part_end: u32,
    out_part_stride: u32,
    lse_part_stride: u32,
    head_dim_v: u32,
    grid_x: u32,
    out_parts_offset: u32,
    lse_parts_offset: u32,
    out_offset: u32,
    lse_offset: u32,
    earlier_lse_offset: u32,
    // The bits of -inf: the lse of a row without open keys.
    negative_infinity: f32,
}

@group(0) @binding(0) var<uniform> params: MergeParams;

// [parts, rows, head_dim_v], words of PARTS_DTYPE; a row is one query of one head of one batch.
@group(0) @binding(1) var<storage, read> out_parts: array<u32>;

// [parts, rows], the bits of f32: natural logarithms.
@group(0) @binding(2) var<storage, read> lse_parts: array<u32>;

// [rows, head_dim_v], words of OUT_DTYPE.
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

// [rows], the bits of f32: natural logarithms.
@group(0) @binding(4) var<storage, read_write> lse: array<u32>;

// One element of out, and its row's lse, as bits.
struct Merged {
    out: u32,
    lse: u32,
}

fn is_empty(lse_bits: u32) -> bool {
    return lse_bits == bitcast<u32>(params.negative_infinity);
}

// NaN, or infinite of either sign.
fn is_not_finite(bits: u32) -> bool {
    return (bits & 0x7f800000u) == 0x7f800000u;
}

// exp(lse - largest), where their difference may be beyond f32.
fn weight_of_part(lse_bits: u32, largest: f32) -> f32 {
    let half = 0.5 * bitcast<f32>(lse_bits) - 0.5 * largest;
    return exp_below(2.0 * max(half, -200.0));
}

fn merge(element: u32) -> Merged {
    let row = element / params.head_dim_v;
    let first_lse = params.lse_parts_offset + row;
    let earlier = earlier_lse_bits(row);

    // The largest lse, which no finite one is below at first. What is not finite and not empty makes the result NaN.
    var largest = CLOSED;
    var parts = 0u;
    var spoiled = false;
    if (!is_empty(earlier)) {
        largest = max(largest, bitcast<f32>(select(earlier, 0u, is_not_finite(earlier))));
        spoiled = is_not_finite(earlier);
        parts = 1u;
    }
    for (var n = params.part_begin; n < params.part_end; n++) {
        let bits = lse_parts[first_lse + n * params.lse_part_stride];
        if (!is_empty(bits)) {
            largest = max(largest, bitcast<f32>(select(bits, 0u, is_not_finite(bits))));
            spoiled = spoiled || is_not_finite(bits);
            parts += 1u;
        }
    }
    if (spoiled) {
        return Merged(nan_bits(OUT_DTYPE), nan_bits(F32));
    }
    if (parts == 0u) {
        return Merged(0u, bitcast<u32>(params.negative_infinity));
    }

    var sum = 0.0;
    var acc = 0.0;
    if (!is_empty(earlier)) {
        sum = weight_of_part(earlier, largest);
        let at = params.out_offset + element;
        acc = sum * widen(OUT_DTYPE, out[word_of(OUT_DTYPE, at)], at);
    }
    for (var n = params.part_begin; n < params.part_end; n++) {
        let bits = lse_parts[first_lse + n * params.lse_part_stride];
        if (!is_empty(bits)) {
            let at = params.out_parts_offset + n * params.out_part_stride + element;
            let weight = weight_of_part(bits, largest);
            sum += weight;
            acc = fma(weight, widen(PARTS_DTYPE, out_parts[word_of(PARTS_DTYPE, at)], at), acc);
        }
    }
    // The part of the largest lse has weight 1, so the sum is at least that.
    return Merged(narrow(OUT_DTYPE, acc / sum), bitcast<u32>(largest + log(sum)));
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
