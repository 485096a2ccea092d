// Purpose: cos and sin from tables of the rows themselves.
// Bindings: 5 cos_cache, 6 sin_cache. Hooks defined: has_angles, cos_sin.

// [batch, seqlen, rotary_dim / 2], words of CACHE_DTYPE.
@group(0) @binding(5) var<storage, read> cos_cache: array<u32>;
@group(0) @binding(6) var<storage, read> sin_cache: array<u32>;

fn has_angles(batch: u32, row: u32) -> bool {
    return true;
}

fn cos_sin(batch: u32, row: u32, pair: u32) -> vec2<f32> {
    let index = batch * params.cache_batch + row * params.rotary_pairs + pair;
    let cos_index = params.cos_offset + index;
    let sin_index = params.sin_offset + index;
    return vec2(
        widen(CACHE_DTYPE, cos_cache[word_of(CACHE_DTYPE, cos_index)], cos_index),
        widen(CACHE_DTYPE, sin_cache[word_of(CACHE_DTYPE, sin_index)], sin_index),
    );
}
