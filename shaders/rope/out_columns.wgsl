// Purpose: out of two elements a word, where each row begins and ends with a word and two neighbouring pairs of the half
// split are two. PAIRS is 2, rotary_pairs even.
// Bindings: 1 out. Hooks defined: out_word, store_pairs.

// [batch, heads, seqlen, head_dim], words of OUT_DTYPE.
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

fn out_word(word: u32) -> u32 {
    return out[word];
}

fn store_pairs(out_row: u32, pair: u32, bits: array<vec2<u32>, PAIRS>) {
    if (pair < params.rotary_pairs) {
        out[(out_row + pair) >> 1u] = bits[0].x | (bits[1].x << 16u);
        out[(out_row + pair + params.rotary_pairs) >> 1u] = bits[0].y | (bits[1].y << 16u);
        return;
    }
    // Pairs that pass through are words themselves.
    out[(out_row >> 1u) + pair] = bits[0].x | (bits[0].y << 16u);
    if (2u * (pair + 1u) < params.head_dim) {
        out[(out_row >> 1u) + pair + 1u] = bits[1].x | (bits[1].y << 16u);
    }
}
