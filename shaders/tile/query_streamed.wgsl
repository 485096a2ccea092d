// Purpose: workgroup memory holds one chunk of the query tile at a time. Hook of slot `query_tile`: defines stage_query,
// stage_query_chunk and query_column.

// One vec4 is four channels of one query row: [TILE_Q][D4_CHUNK], rows Q_STRIDE apart (one spare against bank conflicts).
var<workgroup> wg_query: array<StagedQuery, TILE_Q * Q_STRIDE>;

fn stage_query(position: Position, lane: u32) {
}

// Written by all lanes; read by score_tile after the barrier there. Rows past the end, which nobody stores, are the last one.
fn stage_query_chunk(position: Position, chunk: u32, lane: u32) {
    let head = params.query_offset + position.batch * params.query_batch + position.head * params.query_head
        + position.sequence.query_base * params.query_row;
    let column = lane % D4_CHUNK;
    let d4 = chunk * D4_CHUNK + column;
    var staged: array<vec4<f32>, QUERY_STAGES>;
    /*unroll*/ for (var n = 0u; n < QUERY_STAGES; n++) {
        let i = min(position.q_first + n * (THREADS / D4_CHUNK) + lane / D4_CHUNK, position.q_last);
        staged[n] = vec4<f32>(0.0);
        if (D4 % D4_CHUNK == 0u || d4 < D4) {
            staged[n] = turned_query(position, i, head + i * params.query_row, d4);
        }
    }
    /*unroll*/ for (var n = 0u; n < QUERY_STAGES; n++) {
        wg_query[(n * (THREADS / D4_CHUNK) + lane / D4_CHUNK) * Q_STRIDE + column] = StagedQuery(staged[n]);
    }
}

fn query_column(chunk: u32, d4: u32) -> u32 {
    return d4;
}
