// Purpose: the lse of a row's parts, for merging.
// Bindings: 0 params, 2 lse_parts, 4 lse. Hooks: earlier_lse_bits(row), the lse of what earlier dispatches left in out.
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

// [parts, rows], the bits of f32: natural logarithms.
@group(0) @binding(2) var<storage, read> lse_parts: array<u32>;

// [rows], the bits of f32: natural logarithms.
@group(0) @binding(4) var<storage, read_write> lse: array<u32>;

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

// A row's parts, those that earlier dispatches joined among them as one more.
struct RowParts {
    // The lse of what earlier dispatches left in out, as bits.
    earlier: u32,
    // The largest lse of the parts that are not empty.
    largest: f32,
    any: bool,
    // An lse is NaN or positive infinity: so is the result, NaN.
    spoiled: bool,
}

fn row_parts(row: u32) -> RowParts {
    let earlier = earlier_lse_bits(row);
    // No finite lse is below CLOSED.
    var parts = RowParts(earlier, CLOSED, false, false);
    if (!is_empty(earlier)) {
        parts.largest = max(parts.largest, bitcast<f32>(select(earlier, 0u, is_not_finite(earlier))));
        parts.spoiled = is_not_finite(earlier);
        parts.any = true;
    }
    for (var n = params.part_begin; n < params.part_end; n++) {
        let bits = part_lse_bits(row, n);
        if (!is_empty(bits)) {
            parts.largest = max(parts.largest, bitcast<f32>(select(bits, 0u, is_not_finite(bits))));
            parts.spoiled = parts.spoiled || is_not_finite(bits);
            parts.any = true;
        }
    }
    return parts;
}

fn part_lse_bits(row: u32, n: u32) -> u32 {
    return lse_parts[params.lse_parts_offset + n * params.lse_part_stride + row];
}

// The lse of all parts, given the sum of their weights against the largest.
fn merged_lse_bits(parts: RowParts, sum: f32) -> u32 {
    if (parts.spoiled) {
        return nan_bits(F32);
    }
    if (!parts.any) {
        return bitcast<u32>(params.negative_infinity);
    }
    return bitcast<u32>(parts.largest + log(sum));
}
