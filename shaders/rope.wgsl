// Purpose: rotary position embedding: out1 = x1 cos - x2 sin, out2 = x2 cos + x1 sin for each pair of channels; channels
// that do not rotate are copied, as pairs (2p, 2p + 1) behind the others.
// Grid: one workgroup of THREADS invocations owns THREADS units; a unit is PAIRS neighbouring pairs of one row in
// params.unit_heads heads, for which an invocation computes their cos and sin once.
// Bindings: 0 params; x, out and what the angles come from are declared by hooks.
// Hooks: x_word, out_word, store_pairs (rope/x_*, rope/out_*), channels_of (rope/half_split, rope/interleaved),
// cos_sin, has_angles (rope/angle_*) and, by those that need it, position_of (rope/position_*).
// Source: Su et al., "RoFormer" (2021), 3.4.2.

// Host twin: `kernel/params.rs`. Offsets and strides are in elements, offsets modulo 2^32, as in params.wgsl.
struct RopeParams {
    // Units of this dispatch.
    units: u32,
    grid_x: u32,
    // The sequences, heads and rows of this dispatch.
    batch_begin: u32,
    head_begin: u32,
    head_end: u32,
    row_begin: u32,
    row_count: u32,
    // Units of a row, heads of a unit, and groups of that many heads.
    row_units: u32,
    unit_heads: u32,
    head_groups: u32,
    head_dim: u32,
    // Pairs that rotate, rotary_dim / 2.
    rotary_pairs: u32,
    // Position of row 0, where no operand says.
    position: i32,
    // Rows of cos and sin, where they are given by position.
    max_positions: u32,
    // Factor of cos and sin, where they are computed.
    attention_scaling: f32,
    x_offset: u32,
    x_batch: u32,
    x_head: u32,
    x_row: u32,
    out_offset: u32,
    out_batch: u32,
    out_head: u32,
    out_row: u32,
    ids_offset: u32,
    ids_batch: u32,
    cos_offset: u32,
    sin_offset: u32,
    // Of cos and sin, where they are given by row.
    cache_batch: u32,
}

@group(0) @binding(0) var<uniform> params: RopeParams;

// Element `index` of x.
fn x_at(index: u32) -> f32 {
    return widen(X_DTYPE, x_word(word_of(X_DTYPE, index)), index);
}

// The bits of an element that passes through: those of x itself where out's storage type is the same.
fn passed(index: u32) -> u32 {
    if (X_DTYPE != OUT_DTYPE) {
        return narrow(OUT_DTYPE, x_at(index));
    }
    let word = x_word(word_of(X_DTYPE, index));
    if (X_DTYPE == F32) {
        return word;
    }
    return (word >> ((index & 1u) * 16u)) & 0xffffu;
}

// The bits of a pair of out. Turned by an angle that nobody knows, it is NaN.
fn turned(x_at_row: u32, pair: u32, turn: vec2<f32>, known: bool) -> vec2<u32> {
    let channels = x_at_row + channels_of(pair);
    if (pair >= params.rotary_pairs) {
        // Of an odd head_dim's last channel there is no second.
        let last = x_at_row + params.head_dim - 1u;
        return vec2(passed(channels.x), passed(min(channels.y, last)));
    }
    if (!known) {
        return vec2(nan_bits(OUT_DTYPE));
    }
    let first = x_at(channels.x);
    let second = x_at(channels.y);
    return vec2(
        narrow(OUT_DTYPE, first * turn.x - second * turn.y),
        narrow(OUT_DTYPE, second * turn.x + first * turn.y),
    );
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = (workgroup.y * params.grid_x + workgroup.x) * THREADS + lane;
    if (number >= params.units) {
        return;
    }
    let pair = number % params.row_units * PAIRS;
    let row_number = number / params.row_units;
    let row = params.row_begin + row_number % params.row_count;
    let group_number = row_number / params.row_count;
    let batch = params.batch_begin + group_number / params.head_groups;
    let head_first = params.head_begin + group_number % params.head_groups * params.unit_heads;
    let head_last = min(head_first + params.unit_heads, params.head_end);

    let known = has_angles(batch, row);
    // The cos and sin of each pair.
    var turns: array<vec2<f32>, PAIRS>;
    /*unroll*/ for (var k = 0u; k < PAIRS; k++) {
        if (known && pair + k < params.rotary_pairs) {
            turns[k] = cos_sin(batch, row, pair + k);
        }
    }
    let x_row = params.x_offset + batch * params.x_batch + row * params.x_row;
    let out_row = params.out_offset + batch * params.out_batch + row * params.out_row;
    for (var head = head_first; head < head_last; head++) {
        var bits: array<vec2<u32>, PAIRS>;
        /*unroll*/ for (var k = 0u; k < PAIRS; k++) {
            if (2u * (pair + k) < params.head_dim) {
                bits[k] = turned(x_row + head * params.x_head, pair + k, turns[k], known);
            }
        }
        store_pairs(out_row + head * params.out_head, pair, bits);
    }
}
