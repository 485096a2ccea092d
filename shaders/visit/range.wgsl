// Purpose: the tiles of keys that a tile of rows visits: all from the first key that causal rule and window leave open to the
// last. Hook of slot `visit`: defines visit_of, visited_tile, is_skipped, is_open and is_visited. Needs slots `causal` and
// `window`.

struct Visit {
    // First key of the first tile: a whole number of tiles from the region's beginning.
    first: u32,
    tiles: u32,
    // Those among which is_open: numbers from open_begin on, up to open_end.
    open_begin: u32,
    open_end: u32,
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
    let open_first = max(window_open_begin(position), first);
    let open_end = min(min(causal_open_end(position), window_open_end(position)), params.masked_keys);
    let open_tiles = (max(open_end, first) - first) / TILE_KV;
    return Visit(first, (max(end, first) - first + TILE_KV - 1u) / TILE_KV, (open_first - first + TILE_KV - 1u) / TILE_KV,
        open_tiles);
}

fn visited_tile(visit: Visit, n: u32) -> VisitedTile {
    return VisitedTile(visit.first + n * TILE_KV, false);
}

// Whether a visited tile is left out after all.
fn is_skipped(position: Position, visited: VisitedTile) -> bool {
    return false;
}

// Whether a tile from open_begin to open_end lies before the end of the keys and within what causal rule and window leave open
// to every row.
fn is_open(position: Position, visited: VisitedTile) -> bool {
    return true;
}

// Whether the tile of keys at kv_first is one of those.
fn is_visited(visit: Visit, position: Position, kv_first: u32) -> bool {
    return kv_first >= visit.first && kv_first < visit.first + visit.tiles * TILE_KV;
}
