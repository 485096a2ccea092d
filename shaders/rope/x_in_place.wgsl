// Purpose: x is what lies in out. An invocation reads its pairs before it writes them, and nobody else does either.
// Hooks: out_word. Hooks defined: x_word.

fn x_word(word: u32) -> u32 {
    return out_word(word);
}
