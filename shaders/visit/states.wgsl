// Purpose: the tiles of keys that a tile of rows visits: all between the first key that causal rule and window leave open and
// the last, but those that lie in a closed block. Hook of slot `visit`: defines visit_of, visited_tile, is_skipped and
// is_visited. Needs slots `causal` and `window`, block/lookup.wgsl, and blocks that are whole tiles.

struct Visit {
    // First key of the first tile: a whole number of tiles from the region's beginning.
    first: u32,
    tiles: u32,
}

struct VisitedTile {
    kv_first: u32,
    // Whether mask_mod need not be asked: here it is looked up for each position.
    wholly_open: bool,
}

fn visit_of(position: Position) -> Visit {
    let begin = max(window_kv_begin(position), params.kv_begin);
    let end = min(causal_kv_end(position), window_kv_end(position));
    let first = params.kv_begin + (begin - params.kv_begin) / TILE_KV * TILE_KV;
    return Visit(first, (max(end, first) - first + TILE_KV - 1u) / TILE_KV);
}

fn visited_tile(visit: Visit, n: u32) -> VisitedTile {
    return VisitedTile(visit.first + n * TILE_KV, false);
}

fn is_skipped(position: Position, visited: VisitedTile) -> bool {
    return block_state(position.batch, position.head, position.q_first, visited.kv_first) == 0u;
}

fn is_visited(visit: Visit, position: Position, kv_first: u32) -> bool {
    let inside = kv_first >= visit.first && kv_first < visit.first + visit.tiles * TILE_KV;
    return inside && !is_skipped(position, VisitedTile(kv_first, false));
}
