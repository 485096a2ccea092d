// Purpose: boolean mask. Hook of slot `mask`: defines mask_open.
// Binding 7: mask, one byte an element, four to a word, [batch, heads, seqlen_q, masked_keys] with broadcast strides; 0 closes.

@group(0) @binding(7) var<storage, read> mask: array<u32>;

fn mask_open(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    let at = params.mask_offset + batch * params.mask_batch + head * params.mask_head + q_idx * params.mask_row
        + kv_idx * params.mask_key;
    return ((mask[at >> 2u] >> ((at & 3u) * 8u)) & 0xffu) != 0u;
}
