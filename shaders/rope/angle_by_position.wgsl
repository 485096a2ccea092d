// Purpose: cos and sin from tables by position. A position outside of them has no angles.
// Bindings: 5 cos_cache, 6 sin_cache. Hooks: position_of. Hooks defined: has_angles, cos_sin.

// [max_positions, rotary_dim / 2], words of CACHE_DTYPE.
@group(0) @binding(5) var<storage, read> cos_cache: array<u32>;
@group(0) @binding(6) var<storage, read> sin_cache: array<u32>;

fn has_angles(batch: u32, row: u32) -> bool {
    // A negative position is a large unsigned one.
    return bitcast<u32>(position_of(batch, row)) < params.max_positions;
}

fn cos_sin(batch: u32, row: u32, pair: u32) -> vec2<f32> {
    let index = bitcast<u32>(position_of(batch, row)) * params.rotary_pairs + pair;
    let cos_index = params.cos_offset + index;
    let sin_index = params.sin_offset + index;
    return vec2(
        widen(CACHE_DTYPE, cos_cache[word_of(CACHE_DTYPE, cos_index)], cos_index),
        widen(CACHE_DTYPE, sin_cache[word_of(CACHE_DTYPE, sin_index)], sin_index),
    );
}
