// Purpose: the loop over the tiles of keys, with every test for each of them. Hook of slot `loops`: defines visit_tiles. Needs slot
// `visit` and tile/step.wgsl.

fn visit_tiles(before: TileState, position: Position, lane: u32) -> TileState {
    let visit = visit_of(position);
    var state = before;
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        if (is_skipped(position, visited)) {
            continue;
        }
        state = visit_tile(state, position, visited, TILE_ANY, lane);
    }
    return state;
}
