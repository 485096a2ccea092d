// Purpose: merge_states.wgsl by vectors, for rows of a multiple of eight elements that begin at multiples of 16 bytes.
// Grid: one workgroup of THREADS invocations owns 8 * THREADS elements of out; an invocation owns eight neighbours of one row,
// and with the first eight of a row that row's lse.
// Bindings: 1 out_parts, 3 out. Hooks: those of merge/lse.wgsl.

// [parts, rows, head_dim_v], words of PARTS_DTYPE; a row is one query of one head of one batch.
@group(0) @binding(1) var<storage, read> out_parts: array<vec4<u32>>;

// [rows, head_dim_v], words of OUT_DTYPE.
@group(0) @binding(3) var<storage, read_write> out: array<vec4<u32>>;

struct Eight {
    low: vec4<f32>,
    high: vec4<f32>,
}

// Eight elements from index `at` on.
fn load_parts(at: u32) -> Eight {
    if (PARTS_DTYPE == F32) {
        return Eight(bitcast<vec4<f32>>(out_parts[at >> 2u]), bitcast<vec4<f32>>(out_parts[(at >> 2u) + 1u]));
    }
    let words = out_parts[at >> 3u];
    return Eight(widen_four(PARTS_DTYPE, words.xy), widen_four(PARTS_DTYPE, words.zw));
}

fn load_out(at: u32) -> Eight {
    if (OUT_DTYPE == F32) {
        return Eight(bitcast<vec4<f32>>(out[at >> 2u]), bitcast<vec4<f32>>(out[(at >> 2u) + 1u]));
    }
    let words = out[at >> 3u];
    return Eight(widen_four(OUT_DTYPE, words.xy), widen_four(OUT_DTYPE, words.zw));
}

fn store_out(at: u32, x: Eight) {
    if (OUT_DTYPE == F32) {
        out[at >> 2u] = bitcast<vec4<u32>>(x.low);
        out[(at >> 2u) + 1u] = bitcast<vec4<u32>>(x.high);
    } else {
        out[at >> 3u] = vec4<u32>(narrow_four(OUT_DTYPE, x.low), narrow_four(OUT_DTYPE, x.high));
    }
}

// The same bits everywhere, by words of the storage type.
fn fill_out(at: u32, word: u32) {
    if (OUT_DTYPE == F32) {
        out[at >> 2u] = vec4<u32>(word);
        out[(at >> 2u) + 1u] = vec4<u32>(word);
    } else {
        out[at >> 3u] = vec4<u32>(word);
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = (workgroup.y * params.grid_x + workgroup.x) * THREADS + lane;
    if (number >= params.element_count / 8u) {
        return;
    }
    let element = params.element_begin + 8u * number;
    let row = element / params.head_dim_v;
    let parts = row_parts(row);
    var sum = 0.0;
    if (parts.spoiled || !parts.any) {
        let nan = nan_bits(OUT_DTYPE);
        let nan_word = select(nan | (nan << 16u), nan, OUT_DTYPE == F32);
        fill_out(params.out_offset + element, select(0u, nan_word, parts.spoiled));
    } else {
        var acc = Eight(vec4<f32>(0.0), vec4<f32>(0.0));
        if (!is_empty(parts.earlier)) {
            sum = weight_of_part(parts.earlier, parts.largest);
            let earlier = load_out(params.out_offset + element);
            acc = Eight(sum * earlier.low, sum * earlier.high);
        }
        for (var n = params.part_begin; n < params.part_end; n++) {
            let bits = part_lse_bits(row, n);
            if (!is_empty(bits)) {
                let weight = weight_of_part(bits, parts.largest);
                let part = load_parts(params.out_parts_offset + n * params.out_part_stride + element);
                sum += weight;
                acc.low = fma(vec4<f32>(weight), part.low, acc.low);
                acc.high = fma(vec4<f32>(weight), part.high, acc.high);
            }
        }
        // The part of the largest lse has weight 1, so the sum is at least that.
        store_out(params.out_offset + element, Eight(acc.low / sum, acc.high / sum));
    }
    if (element % params.head_dim_v == 0u) {
        lse[params.lse_offset + row] = merged_lse_bits(parts, sum);
    }
}
