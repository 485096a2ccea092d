// Purpose: x is an operand of its own.
// Bindings: 2 x. Hooks defined: x_word.

// [batch, heads, seqlen, head_dim], words of X_DTYPE.
@group(0) @binding(2) var<storage, read> x: array<u32>;

fn x_word(word: u32) -> u32 {
    return x[word];
}
