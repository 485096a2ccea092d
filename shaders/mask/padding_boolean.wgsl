// Purpose: boolean key padding. Hook of slot `padding`: defines padding_open and padding_score.
// Binding 9: padding, one byte a key, four to a word, [batch, masked_keys]; 0 closes.

@group(0) @binding(9) var<storage, read> padding: array<u32>;

fn padding_open(batch: u32, kv_idx: u32) -> bool {
    let at = params.padding_offset + batch * params.padding_batch + kv_idx;
    return ((padding[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu) != 0u;
}

fn padding_score(batch: u32, kv_idx: u32) -> f32 {
    return 0.0;
}
