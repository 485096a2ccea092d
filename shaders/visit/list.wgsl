// Purpose: the tiles of keys that a tile of rows visits: those that the block mask's list names, as far as causal rule and
// window reach. Hook of slot `visit`: defines visit_of, visited_tile, is_skipped and is_open. Needs slots `causal` and `window`.
// Binding 17: tile_lists, u32, [batch, heads, units of LIST_Q rows, 1 + units of LIST_KV keys] with broadcast strides: how many
// units of keys are not closed, then each in ascending order, times two, plus one where it is wholly open.

@group(0) @binding(17) var<storage, read> tile_lists: array<u32>;

const TILES_OF_UNIT: u32 = LIST_KV / TILE_KV;

struct Visit {
    // Where the row's list begins, behind its length.
    first: u32,
    tiles: u32,
    // Those among which is_open: all.
    open_begin: u32,
    open_end: u32,
}

struct VisitedTile {
    kv_first: u32,
    // Whether mask_mod need not be asked.
    wholly_open: bool,
}

fn visit_of(position: Position) -> Visit {
    let row = params.list_offset + position.batch * params.list_batch + position.head * params.list_head
        + (position.q_first / LIST_Q) * params.list_row;
    let tiles = tile_lists[row] * TILES_OF_UNIT;
    return Visit(row + 1u, tiles, 0u, tiles);
}

fn visited_tile(visit: Visit, n: u32) -> VisitedTile {
    let unit = tile_lists[visit.first + n / TILES_OF_UNIT];
    return VisitedTile((unit >> 1u) * LIST_KV + (n % TILES_OF_UNIT) * TILE_KV, (unit & 1u) == 1u);
}

// Whether a visited tile is left out after all: outside of this dispatch's keys, or of what causal rule and window leave open.
fn is_skipped(position: Position, visited: VisitedTile) -> bool {
    let begin = max(window_kv_begin(position), params.kv_begin);
    let end = min(causal_kv_end(position), window_kv_end(position));
    return visited.kv_first + TILE_KV <= begin || visited.kv_first >= end;
}

// Whether a tile is wholly open by the block mask, and lies before the end of the keys and within what causal rule and window
// leave open to every row.
fn is_open(position: Position, visited: VisitedTile) -> bool {
    let begin = max(window_open_begin(position), params.kv_begin);
    let end = min(min(causal_open_end(position), window_open_end(position)), params.masked_keys);
    return visited.wholly_open && visited.kv_first >= begin && visited.kv_first + TILE_KV <= end;
}
