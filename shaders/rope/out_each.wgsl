// Purpose: out of a word an element, stored one by one. PAIRS is 1.
// Bindings: 1 out. Hooks: channels_of. Hooks defined: out_word, store_pairs.

// [batch, heads, seqlen, head_dim], f32.
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

fn out_word(word: u32) -> u32 {
    return out[word];
}

fn store_pairs(out_row: u32, pair: u32, bits: array<vec2<u32>, PAIRS>) {
    let channels = channels_of(pair);
    out[out_row + channels.x] = bits[0].x;
    if (channels.y < params.head_dim) {
        out[out_row + channels.y] = bits[0].y;
    }
}
