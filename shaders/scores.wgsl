// Purpose: the scores of query rows with every key: the first of three kernels, and what hands out weights and scores of the
// rows that somebody wants to look at.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q rows and TILE_KV keys of one head; what position.wgsl calls
// a chunk is a tile of keys here. An invocation owns ROWS rows and four keys.
// Bindings: 0 params, 1 query, 2 key, 6 scores or weights; others where a hook declares them.
// Hooks: query, key, query_tile, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod, alibi, bias, emit.

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    let tx = lane % TX;
    let ty = lane / TX;
    let kv_first = params.kv_begin + position.chunk * TILE_KV;
    // Before masks count, every score is computed.
    let unmasked = STAGE == STAGE_SCALED || STAGE == STAGE_CAPPED;
    let closed = select(CLOSED, 0.0, unmasked);

    var tile: ScoreTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        tile.rows[r] = vec4<f32>(closed);
    }
    let exists = !is_behind_end(position) && kv_first < position.sequence.kv_end;
    if (exists && (unmasked || is_visited(visit_of(position), position, kv_first))) {
        stage_query(position, lane);
        let products = score_tile(position, kv_first, TILE_ANY, lane);
        tile = finish_tile(products, position, VisitedTile(kv_first, false), TILE_ANY, lane);
    }
    let head = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = position.q_first + ty + TY * r;
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        }
    }
}
