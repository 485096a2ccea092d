// Purpose: from products to scores, for a whole tile. Needs tile/scores.wgsl, score/finish.wgsl and score/open.wgsl.

fn finish_tile(tile: ScoreTile, position: Position, visited: VisitedTile, kind: u32, lane: u32) -> ScoreTile {
    let q_idx = position.q_first + lane / TX;
    let kv_idx = visited.kv_first + lane % TX;
    let mod_open = visited.wholly_open;
    var finished: ScoreTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = q_idx + TY * r;
        let products = tile.rows[r];
        if (kind == TILE_OPEN) {
            finished.rows[r] = vec4<f32>(
                finish_open_score(products.x, position, i, kv_idx),
                finish_open_score(products.y, position, i, kv_idx + TX),
                finish_open_score(products.z, position, i, kv_idx + 2u * TX),
                finish_open_score(products.w, position, i, kv_idx + 3u * TX),
            );
        } else {
            finished.rows[r] = vec4<f32>(
                finish_score(products.x, position, i, kv_idx, mod_open),
                finish_score(products.y, position, i, kv_idx + TX, mod_open),
                finish_score(products.z, position, i, kv_idx + 2u * TX, mod_open),
                finish_score(products.w, position, i, kv_idx + 3u * TX, mod_open),
            );
        }
    }
    return finished;
}
