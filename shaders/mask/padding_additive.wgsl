// Purpose: additive key padding. Hook of slot `padding`: defines padding_open and padding_score.
// Binding 9: padding, one f32 a key, [batch, masked_keys]; -inf closes.

@group(0) @binding(9) var<storage, read> padding: array<f32>;

fn padding_open(batch: u32, kv_idx: u32) -> bool {
    return !(padding_score(batch, kv_idx) < CLOSED);
}

fn padding_score(batch: u32, kv_idx: u32) -> f32 {
    return padding[params.padding_offset + batch * params.padding_batch + kv_idx];
}
