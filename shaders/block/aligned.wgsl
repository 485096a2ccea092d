// Purpose: a block mask whose blocks are whole tiles: closed ones are not visited, and open ones are known for the tile. Hook of
// slot `block`: defines block_allows. Needs slot `mask_mod`.

fn block_allows(position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> bool {
    return wholly_open || mod_open(position, q_idx, kv_idx);
}
