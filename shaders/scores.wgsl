// Purpose: first of three kernels: the scores of every query row with every key, masked ones as CLOSED.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q rows and TILE_KV keys of one head; what position.wgsl calls
// a chunk is a tile of keys here. An invocation owns ROWS rows and four keys.
// Bindings: 0 params, 1 query, 2 key, 6 scores; 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: query, key, query_tile, causal, mask, padding, bias.

// [batch, heads, seqlen_q, seqlen_k], f32.
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

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
    let q_last = min(position.q_first + TILE_Q, params.q_end) - 1u;

    var tile: ScoreTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        tile.rows[r] = vec4<f32>(CLOSED);
    }
    if (kv_first < causal_kv_end(q_last)) {
        stage_query(position, lane);
        let products = score_tile(position, kv_first, lane);
        tile = finish_tile(products, position, kv_first, lane);
    }
    let head = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = position.q_first + ty + TY * r;
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            let j = kv_first + tx + TX * c;
            if (i <= q_last && j < params.kv_end) {
                scores[head + i * params.scores_row + j] = tile.rows[r][c];
            }
        }
    }
}
