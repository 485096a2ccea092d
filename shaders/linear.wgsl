// Purpose: y = x Wᵀ + b, a projection. The product is that of scores.wgsl: rows of x are its query, rows of W its keys.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q rows of x and TILE_KV output features; what position.wgsl
// calls a chunk is a tile of features here. An invocation owns ROWS rows and four features.
// Bindings: 0 params, 1 query (x, [batch, rows, in_features]), 2 key (W, [out_features, in_features]),
// 6 y; 8 bias (b, [out_features]) where a hook declares it. Hooks: query, key, query_tile, sequence, bias.

// [batch, rows, out_features], f32.
@group(0) @binding(6) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    let first = params.kv_begin + position.chunk * TILE_KV;
    stage_query(position, lane);
    let tile = score_tile(position, first, TILE_ANY, lane);
    let batch = params.scores_offset + position.batch * params.scores_batch;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = position.q_first + lane / TX + TY * r;
        /*unroll*/ for (var c = 0u; c < 4u; c++) {
            let j = first + lane % TX + TX * c;
            if (i < params.q_end && j < params.kv_end) {
                y[batch + i * params.scores_row + j] = tile.rows[r][c] + bias_score(0u, 0u, 0u, j);
            }
        }
    }
}
