// Purpose: no block mask. Hook of slot `block`: defines block_allows. Needs slot `mask_mod`.

fn block_allows(position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> bool {
    return mod_open(position, q_idx, kv_idx);
}
