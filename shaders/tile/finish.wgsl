// Purpose: from products to scores, for a whole tile. Needs tile/scores.wgsl and score/finish.wgsl.

fn finish_tile(tile: ScoreTile, position: Position, visited: VisitedTile, lane: u32) -> ScoreTile {
    let q_idx = position.q_first + lane / TX;
    let kv_idx = visited.kv_first + lane % TX;
    let open = visited.wholly_open;
    var finished: ScoreTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = q_idx + TY * r;
        finished.rows[r] = vec4<f32>(
            finish_score(tile.rows[r].x, position, i, kv_idx, open),
            finish_score(tile.rows[r].y, position, i, kv_idx + TX, open),
            finish_score(tile.rows[r].z, position, i, kv_idx + 2u * TX, open),
            finish_score(tile.rows[r].w, position, i, kv_idx + 3u * TX, open),
        );
    }
    return finished;
}
