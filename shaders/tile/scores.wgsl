// Purpose: query · key for a tile of TILE_Q rows and TILE_KV keys, ROWS rows and four keys an invocation.
// Needs hooks `query`, `key`, `query_tile`, `turn_query`, `turn_key`. Rows of an invocation are ty + TY * r; its keys are tx + TX * c: so the lanes of
// a row of invocations read neighbouring rows of wg_kv, each one vec4 further along the banks.
// Source: the two-level tiling of any matrix product (Volkov & Demmel, 2008); K by chunks of D4_CHUNK vec4.

// One vec4 is four channels of one key (here) or of one value row (tile/values.wgsl), rows KV_STRIDE apart.
var<workgroup> wg_kv: array<StagedKv, TILE_KV * KV_STRIDE>;

struct ScoreTile {
    // [r]: the products of row ty + TY * r with keys tx, tx + TX, tx + 2 TX and tx + 3 TX of the tile.
    rows: array<vec4<f32>, ROWS>,
}

// Lanes stage keys and channels of a chunk side by side: so many keys at a time, each lane one vec4 of them.
const KEYS_STAGED: u32 = THREADS / D4_CHUNK;

// The products of keys past the end of the sequence are those of its last key: nobody may use them.
fn score_tile(position: Position, kv_first: u32, kind: u32, lane: u32) -> ScoreTile {
    let tx = lane % TX;
    let ty = lane / TX;
    let head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + position.sequence.key_base * params.key_row;
    var tile: ScoreTile;
    /*unroll*/ for (var r = 0u; r < ROWS; r++) {
        tile.rows[r] = vec4<f32>(0.0);
    }
    for (var chunk = 0u; chunk < trips(D_CHUNKS, kind); chunk++) {
        // Whoever read wg_kv and wg_query last (the chunk before, or the values of the tile before) has finished.
        workgroupBarrier();
        stage_query_chunk(position, chunk, lane);
        // All loads before the first store, so that none waits for another.
        let column = lane % D4_CHUNK;
        let d4 = chunk * D4_CHUNK + column;
        let own_key = lane / D4_CHUNK;
        var staged: array<vec4<f32>, KEY_STAGES>;
        /*unroll*/ for (var n = 0u; n < KEY_STAGES; n++) {
            let first = kv_first + n * KEYS_STAGED;
            var key = first + own_key;
            var row = head + first * params.key_row + own_key * params.key_row;
            if (kind != TILE_OPEN) {
                key = min(key, position.sequence.kv_end - 1u);
                row = head + key * params.key_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (D4 % D4_CHUNK == 0u || d4 < D4) {
                staged[n] = turned_key(position, key, row, d4);
            }
        }
        /*unroll*/ for (var n = 0u; n < KEY_STAGES; n++) {
            wg_kv[(n * KEYS_STAGED + own_key) * KV_STRIDE + column] = StagedKv(staged[n]);
        }
        // wg_kv and wg_query, written by all lanes, are read by all below.
        workgroupBarrier();
        for (var d4 = 0u; d4 < trips(D4_CHUNK, kind); d4++) {
            let k0 = vec4<f32>(wg_kv[tx * KV_STRIDE + d4]);
            let k1 = vec4<f32>(wg_kv[(tx + TX) * KV_STRIDE + d4]);
            let k2 = vec4<f32>(wg_kv[(tx + 2u * TX) * KV_STRIDE + d4]);
            let k3 = vec4<f32>(wg_kv[(tx + 3u * TX) * KV_STRIDE + d4]);
            let kx = vec4<f32>(k0.x, k1.x, k2.x, k3.x);
            let ky = vec4<f32>(k0.y, k1.y, k2.y, k3.y);
            let kz = vec4<f32>(k0.z, k1.z, k2.z, k3.z);
            let kw = vec4<f32>(k0.w, k1.w, k2.w, k3.w);
            let column = query_column(chunk, d4);
            /*unroll*/ for (var r = 0u; r < ROWS; r++) {
                let q = vec4<f32>(wg_query[(ty + TY * r) * Q_STRIDE + column]);
                tile.rows[r] = fma(vec4<f32>(q.w), kw, fma(vec4<f32>(q.z), kz, fma(vec4<f32>(q.y), ky,
                    fma(vec4<f32>(q.x), kx, tile.rows[r]))));
            }
        }
    }
    return tile;
}
