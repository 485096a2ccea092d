// Purpose: third of three kernels: out = weights · value.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q rows of one head and one chunk of value channels; an
// invocation owns ROWS rows and V_GROUPS vec4 of the chunk's channels.
// Bindings: 0 params, 3 value, 4 out, 6 weights; others where a hook declares them.
// Hooks: value, out, sequence, visit, causal, window, dropout, guard, acc.

// [batch, heads, seqlen_q, seqlen_k], f32, rows that sum to 1; minus zero at closed positions, and only there.
@group(0) @binding(6) var<storage, read> weights: array<f32>;

fn load_weight(at: u32, key: u32, kv_end: u32) -> f32 {
    var weight = bitcast<f32>(CLOSED_WEIGHT_BITS);
    if (key < kv_end) {
        weight = weights[at + key];
    }
    return weight;
}

// Weights after dropout. A dropped one is plain zero, even if a prob_mod had made it negative.
fn keep_open(dropped: vec4<f32>, before: vec4<f32>) -> vec4<f32> {
    return select(dropped, vec4<f32>(0.0), is_closed_weight(dropped) & !is_closed_weight(before));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    let tx = lane % TX;
    let ty = lane / TX;
    if (is_behind_end(position)) {
        return;
    }
    let q_last = position.q_last;
    let out_head = params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + position.sequence.query_base * params.out_row;
    let weights_head = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head;
    guard_begin(lane);
    // The guard's flag is set before any value is looked at.
    workgroupBarrier();

    var values: ValueTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = min(position.q_first + ty + TY * r, q_last);
        /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        }
    }
    // Keys that are closed for the whole tile have weight 0.
    let visit = visit_of(position);
    let kv_end = position.sequence.kv_end;
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        let kv_first = visited.kv_first;
        if (is_skipped(position, visited)) {
            continue;
        }
        for (var i = lane; i < TILE_Q * TX; i += THREADS) {
            let at = weights_head + min(position.q_first + i / TX, q_last) * params.scores_row;
            let key = kv_first + i % TX;
            let weights_of_lane = vec4<f32>(load_weight(at, key, kv_end), load_weight(at, key + TX, kv_end),
                load_weight(at, key + 2u * TX, kv_end), load_weight(at, key + 3u * TX, kv_end));
            let dropped = drop_weights(weights_of_lane, position, position.q_first + i / TX, key);
            wg_weights[(i / TX) * P_STRIDE + i % TX] = keep_open(dropped, weights_of_lane);
        }
        values = add_values(values, position, kv_first, TILE_ANY, lane);
    }
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let i = position.q_first + ty + TY * r;
        if (i <= q_last) {
            /*unroll*/ for (var g = 0u; g < V_GROUPS; g++) {
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            }
        }
    }
}
