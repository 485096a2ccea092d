// Purpose: the caller has no mask_mod. Hook of slot `mask_mod`: defines mod_open.

fn mod_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}
