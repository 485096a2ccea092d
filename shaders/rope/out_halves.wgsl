// Purpose: out of two elements a word, at any place. Invocations that own the halves of one word change it in turn, each
// its own bits only. PAIRS is 1.
// Bindings: 1 out. Hooks: channels_of. Hooks defined: out_word, store_pairs.

// [batch, heads, seqlen, head_dim], words of OUT_DTYPE.
@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;

fn out_word(word: u32) -> u32 {
    return atomicLoad(&out[word]);
}

fn store_half(index: u32, bits: u32) {
    let shift = (index & 1u) * 16u;
    atomicAnd(&out[index >> 1u], ~(0xffffu << shift));
    atomicOr(&out[index >> 1u], bits << shift);
}

fn store_pairs(out_row: u32, pair: u32, bits: array<vec2<u32>, PAIRS>) {
    let channels = channels_of(pair);
    store_half(out_row + channels.x, bits[0].x);
    if (channels.y < params.head_dim) {
        store_half(out_row + channels.y, bits[0].y);
    }
}
