// Purpose: the tiles of keys that a tile of rows visits: all from the first key that causal rule and window leave open to the
// last. Hook of slot `visit`: defines visit_of, visited_tile,
// is_skipped and is_visited. Needs slots `causal` and `window`.

struct Visit {
    // First key of the first tile: a whole number of tiles from the region's beginning.
    first: u32,
    tiles: u32,
}

struct VisitedTile {
    kv_first: u32,
    // Whether mask_mod need not be asked.
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

// Whether a visited tile is left out after all.
fn is_skipped(position: Position, visited: VisitedTile) -> bool {
    return false;
}

// Whether the tile of keys at kv_first is one of those.
fn is_visited(visit: Visit, position: Position, kv_first: u32) -> bool {
    return kv_first >= visit.first && kv_first < visit.first + visit.tiles * TILE_KV;
}
