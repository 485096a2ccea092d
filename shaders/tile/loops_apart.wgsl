// Purpose: the loop over the tiles of keys, in two: first the tiles that are open to every row, without a test, then the others.
// Hook of slot `loops`: defines visit_tiles. Needs slot `visit` and tile/step.wgsl, whose function a compiler makes two of.

fn visit_tiles(before: TileState, position: Position, lane: u32) -> TileState {
    let visit = visit_of(position);
    var state = before;
    for (var n = visit.open_begin; n < visit.open_end; n++) {
        let visited = visited_tile(visit, n);
        if (is_open(position, visited)) {
            state = visit_tile(state, position, visited, TILE_OPEN, lane);
        }
    }
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        let is_done = n >= visit.open_begin && n < visit.open_end && is_open(position, visited);
        if (!is_done && !is_skipped(position, visited)) {
            state = visit_tile(state, position, visited, TILE_REST, lane);
        }
    }
    return state;
}
