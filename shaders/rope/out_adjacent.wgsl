// Purpose: out of two elements a word, where each row begins and ends with a word and a pair is one: interleaved ones and
// those that pass through. PAIRS is 1.
// Bindings: 1 out. Hooks defined: out_word, store_pairs.

// [batch, heads, seqlen, head_dim], words of OUT_DTYPE.
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

fn out_word(word: u32) -> u32 {
    return out[word];
}

fn store_pairs(out_row: u32, pair: u32, bits: array<vec2<u32>, PAIRS>) {
    out[(out_row >> 1u) + pair] = bits[0].x | (bits[0].y << 16u);
}
