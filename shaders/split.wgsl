// Purpose: attention of few query rows over many keys: the keys cut into runs that workgroups visit side by side, and all rows
// that share a key/value head visited together, so that each key and value is loaded once.
// Grid: one workgroup of THREADS invocations owns ROWS packed rows (row n is query n / group_size of head n % group_size) of one
// key/value head, and one run of keys. SHARE neighbouring invocations, the lanes of a key, have KEYS neighbouring keys of each tile of
// it: each lane every SHARE-th vec4 of their channels.
// Bindings: 0 params, 1 query, 2 key, 3 value; 7 mask, 8 bias, 9 padding where a hook declares them; out and lse by `part`.
// Hooks: query, key, value, part, sequence, causal, window, mask, padding, softcap, score_mod, mask_mod, alibi, bias, dropout,
// add, state, shares, lanes.
// Source: "Flash-Decoding" (Dao et al., 2023). The lanes of a key keep a state of their own, joined once at the end: in the loop over
// keys nothing passes from key to key.

// The functions that unrolled loops call are no more than a compiler puts in line; they keep the text, and what it costs to read, short.

// Adds what this lane's vec4 d of channels of its key c contributes to that key's products with all rows.
fn multiply_channels(scores: ptr<function, array<f32, ROWS * KEYS>>, query_rows: ptr<function, array<vec4<f32>, ROWS * D4_OWN>>,
    channels: vec4<f32>, c: u32, d: u32) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let q = (*query_rows)[r * D4_OWN + d];
        (*scores)[r * KEYS + c] = fma(q.w, channels.w, fma(q.z, channels.z, fma(q.y, channels.y,
            fma(q.x, channels.x, (*scores)[r * KEYS + c]))));
    }
}

// Adds the same channels of its value c, weighted.
fn add_channels(acc: ptr<function, array<vec4<f32>, ROWS * DV4_OWN>>, weights: ptr<function, array<f32, ROWS * KEYS>>,
    channels: vec4<f32>, c: u32, d: u32) {
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        (*acc)[r * DV4_OWN + d] = add_weighted((*acc)[r * DV4_OWN + d], (*weights)[r * KEYS + c], channels);
    }
}

// Whether each lane has channels of query and key in all of its vec4.
const WHOLE_SHARES: bool = D4 % SHARE == 0u;

// Which vec4 of a row's channels a lane's n-th is.
fn own_vec4(share: u32, n: u32) -> u32 {
    return select(n * SHARE + share, n, SHARE == 1u);
}

fn attend(workgroup: vec3<u32>, lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    // Runs of keys fastest, then rows, then key/value heads, then batches.
    let tiles = params.packed_tiles;
    let run = number % params.chunk_count;
    let tile = (number / params.chunk_count) % tiles;
    let kv_heads = params.head_count / params.group_size;
    let kv_number = number / (params.chunk_count * tiles);
    let key_lane = lane / SHARE;
    let share = lane % SHARE;
    var position: Position;
    position.kv_head = params.head_begin / params.group_size + kv_number % kv_heads;
    position.batch = params.batch_begin + kv_number / kv_heads;
    position.sequence = sequence_of(position.batch);
    let sequence = position.sequence;
    let packed_first = tile * ROWS;
    position.q_first = params.q_begin + packed_first / params.group_size;
    if (is_behind_end(position)) {
        return;
    }
    position.q_last = min(params.q_begin + (packed_first + ROWS - 1u) / params.group_size, sequence.q_end - 1u);
    let packed_last = (position.q_last - params.q_begin) * params.group_size + params.group_size - 1u;

    let query_batch = params.query_offset + position.batch * params.query_batch + sequence.query_base * params.query_row;
    let key_head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + sequence.key_base * params.key_row;
    let value_head = params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + sequence.key_base * params.value_row;

    // Of each row: its query and head; [r * D4_OWN + d]: vec4 own_vec4(share, d) of its channels.
    var rows: array<Position, ROWS>;
    var query_rows: array<vec4<f32>, ROWS * D4_OWN>;
    // [r * DV4_OWN + d]: what this lane's keys add to its channels of out.
    var acc: array<vec4<f32>, ROWS * DV4_OWN>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        let packed = min(packed_first + r, packed_last);
        let i = params.q_begin + packed / params.group_size;
        rows[r] = position;
        rows[r].head = position.kv_head * params.group_size + packed % params.group_size;
        rows[r].q_first = i;
        rows[r].q_last = i;
        let row = query_batch + rows[r].head * params.query_head + i * params.query_row;
        load_query_row(&query_rows, r, rows[r], i, row, lane);
        // A sink is counted once: by the first key's lanes of the first run.
        let first = run == 0u && key_lane == 0u;
        row_max[r] = select(CLOSED, resume_row_max(rows[r], i), first);
        row_sum[r] = select(0.0, resume_row_sum(row_max[r]), first);
        /*unroll*/ for (var d = 0u; d < DV4_OWN; d++) {
            acc[r * DV4_OWN + d] = vec4<f32>(0.0);
        }
    }

    // Both ends of a run are multiples of TILE_KV, but for the last one's.
    let begin = run * params.run_keys;
    let open_begin = max(window_kv_begin(position), begin) / TILE_KV * TILE_KV;
    let open_end = min(min(causal_kv_end(position), window_kv_end(position)), begin + params.run_keys);
    for (var kv_first = open_begin; kv_first < open_end; kv_first += TILE_KV) {
        // [r * KEYS + c]: of row r and this lane's key c: the product, then the score, then the weight.
        var scores: array<f32, ROWS * KEYS>;
        /*unroll*/ for (var c = 0u; c < KEYS; c++) {
            let own_key = min(kv_first + key_lane * KEYS + c, sequence.kv_end - 1u);
            let key_row = key_head + own_key * params.key_row;
            /*unroll*/ for (var r = 0u; r < ROWS; r++) {
                scores[r * KEYS + c] = 0.0;
            }
            /*unroll*/ for (var d = 0u; d < D4_OWN; d++) {
                let own = own_vec4(share, d);
                // Behind the last channel query is 0, which times infinity were NaN.
                let channels = select(vec4<f32>(0.0), turned_key(position, own_key, key_row, min(own, D4 - 1u)),
                    WHOLE_SHARES || own < D4);
                multiply_channels(&scores, &query_rows, channels, c, d);
            }
        }
        add_shares(&scores, lane);
        /*unroll*/ for (var r = 0u; r < ROWS; r++) {
            let i = rows[r].q_first;
            var highest = row_max[r];
            /*unroll*/ for (var c = 0u; c < KEYS; c++) {
                let score = finish_score(scores[r * KEYS + c], rows[r], i, kv_first + key_lane * KEYS + c, false);
                scores[r * KEYS + c] = score;
                highest = max(highest, score);
            }
            let rescale = exp_below(row_max[r] - highest);
            row_max[r] = highest;
            row_sum[r] = row_sum[r] * rescale;
            /*unroll*/ for (var c = 0u; c < KEYS; c++) {
                let weight = weight_of(scores[r * KEYS + c], highest);
                row_sum[r] += weight;
                scores[r * KEYS + c] = drop_weights(vec4<f32>(weight), rows[r], i, kv_first + key_lane * KEYS + c).x;
            }
            /*unroll*/ for (var d = 0u; d < DV4_OWN; d++) {
                acc[r * DV4_OWN + d] = acc[r * DV4_OWN + d] * rescale;
            }
        }
        /*unroll*/ for (var d = 0u; d < DV4_OWN; d++) {
            let own = min(own_vec4(share, d), DV4 - 1u);
            /*unroll*/ for (var c = 0u; c < KEYS; c++) {
                let own_key = min(kv_first + key_lane * KEYS + c, sequence.kv_end - 1u);
                // Behind the end lies nothing: weight 0, times the last value again, were NaN if that is infinite.
                let channels = select(vec4<f32>(0.0), load_value(value_head + own_key * params.value_row, own),
                    kv_first + key_lane * KEYS + c < sequence.kv_end);
                add_channels(&acc, &scores, channels, c, d);
            }
        }
    }

    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        store_row(rows[r], run, packed_first + r <= packed_last, row_max[r], row_sum[r], &acc, r, lane);
    }
}
