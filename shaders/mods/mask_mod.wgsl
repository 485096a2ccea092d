// Purpose: the caller's mask_mod. Hook of slot `mask_mod`: defines mod_open, on top of the caller's
// mask_mod(batch, head, q_idx, kv_idx).

fn mod_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return mask_mod(position.batch, position.head, q_idx, kv_idx);
}
