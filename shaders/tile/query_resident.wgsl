// Purpose: workgroup memory holds the whole query tile from start to end. Hook of slot `query_tile`: defines stage_query,
// stage_query_chunk and query_column.

// One vec4 is four channels of one query row: [TILE_Q][D_CHUNKS * D4_CHUNK], rows Q_STRIDE apart (one spare against bank
// conflicts).
var<workgroup> wg_query: array<StagedQuery, TILE_Q * Q_STRIDE>;

// Written once by all lanes; read by score_tile after the barrier there.
fn stage_query(position: Position, lane: u32) {
    let head = params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + position.sequence.query_base * params.query_row;
    for (var i = lane; i < TILE_Q * D_CHUNKS * D4_CHUNK; i += THREADS) {
        let row = i / (D_CHUNKS * D4_CHUNK);
        let d4 = i % (D_CHUNKS * D4_CHUNK);
        var channels = vec4<f32>(0.0);
        if (position.q_first + row < position.sequence.q_end && d4 < D4) {
            channels = turned_query(position, position.q_first + row, head + (position.q_first + row) * params.query_row, d4);
        }
        wg_query[row * Q_STRIDE + d4] = StagedQuery(channels);
    }
}

fn stage_query_chunk(position: Position, chunk: u32, lane: u32) {
}

fn query_column(chunk: u32, d4: u32) -> u32 {
    return chunk * D4_CHUNK + d4;
}
