// Purpose: a block mask of any block size, looked up for each position. Hook of slot `block`: defines block_allows. Needs
// slot `mask_mod` and block/lookup.wgsl.

fn block_allows(position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> bool {
    let state = block_state(position.batch, position.head, q_idx, kv_idx);
    return state == 2u || (state != 0u && mod_open(position, q_idx, kv_idx));
}
