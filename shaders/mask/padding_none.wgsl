// Purpose: no key padding. Hook of slot `padding`: defines padding_open and padding_score.

fn padding_open(batch: u32, kv_idx: u32) -> bool {
    return true;
}

fn padding_score(batch: u32, kv_idx: u32) -> f32 {
    return 0.0;
}
