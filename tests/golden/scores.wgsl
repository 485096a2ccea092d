const THREADS: u32 = 64u;
const TX: u32 = 8u;
const TY: u32 = 8u;
const ROWS: u32 = 4u;
const TILE_Q: u32 = 32u;
const TILE_KV: u32 = 32u;
const KV_STRIDE: u32 = 9u;
const QUERY_STAGES: u32 = 4u;
const KEY_STAGES: u32 = 4u;
const VALUE_STAGES: u32 = 4u;
const ROWS4: u32 = 1u;
const STAGE: u32 = 0u;
const HEAD_DIM: u32 = 64u;
const D4: u32 = 16u;
const D4_CHUNK: u32 = 8u;
const D_CHUNKS: u32 = 2u;
const Q_STRIDE: u32 = 9u;

// ---- params.wgsl ----
// Purpose: what one dispatch of an attention kernel works on. Host twin: `kernel/params.rs`, compared offset by offset in
// tests/shaders.rs.
// Binding 0, uniform. Indexes and strides are in elements; an operand's offset is that of its element [0, 0, 0, 0] from the
// start of its binding, modulo 2^32: a binding that is a window into a large operand begins after that element, and the
// sum with the strides wraps back to the right place.

struct Params {
    // The region of the problem that this dispatch computes.
    batch_begin: u32,
    head_begin: u32,
    head_count: u32,
    q_begin: u32,
    q_end: u32,
    kv_begin: u32,
    kv_end: u32,
    // First chunk of DV_CHUNK value channels, and how many of them.
    chunk_begin: u32,
    chunk_count: u32,
    // Workgroups that have work, and how many lie along x (the rest fold into y).
    workgroups: u32,
    grid_x: u32,
    // Query heads that share one key/value head.
    group_size: u32,
    // Few rows over many keys: tiles of packed rows, keys of a run, runs that were made of a row, and how far apart these lie.
    packed_tiles: u32,
    run_keys: u32,
    part_count: u32,
    part_stride: u32,
    part_lse_stride: u32,
    // Keys from here on are open to every query, whatever the masks say.
    masked_keys: u32,
    heads: u32,
    seqlen_q: u32,
    seqlen_k: u32,
    // Rows of all packed sequences.
    tokens_q: u32,
    tokens_k: u32,
    cu_q_offset: u32,
    cu_k_offset: u32,
    // Key j passes the causal rule for query i when j <= i + causal_offset.
    causal_offset: i32,
    // Key j lies in the window of query i when -window_left <= j - i - window_offset <= window_right.
    window_offset: i32,
    window_left: i32,
    window_right: i32,
    // Key j is |i + alibi_offset - j| away from query i.
    alibi_offset: i32,
    alibi_slopes_offset: u32,
    sinks_offset: u32,
    scale: f32,
    softcap: f32,
    // -inf, which WGSL cannot spell: the lse of a row with no open key.
    negative_infinity: f32,
    // Dropout: a word of the generator below the threshold drops; what is kept is scaled.
    dropout_threshold: u32,
    dropout_scale: f32,
    dropout_key_low: u32,
    dropout_key_high: u32,
    dropout_call: u32,
    dropout_offset: u32,
    dropout_batch: u32,
    dropout_head: u32,
    dropout_row: u32,
    padding_offset: u32,
    padding_batch: u32,
    lse_offset: u32,
    lse_batch: u32,
    lse_head: u32,
    // The block mask, and the lists of tiles made from it.
    block_offset: u32,
    block_batch: u32,
    block_head: u32,
    block_row: u32,
    list_offset: u32,
    list_batch: u32,
    list_head: u32,
    list_row: u32,
    // Rotary embedding: positions of row 0, or where position ids lie, and the factor of cos and sin.
    rope_query_offset: i32,
    rope_key_offset: i32,
    query_ids_offset: u32,
    query_ids_batch: u32,
    key_ids_offset: u32,
    key_ids_batch: u32,
    rope_scaling: f32,
    query_offset: u32,
    query_batch: u32,
    query_head: u32,
    query_row: u32,
    key_offset: u32,
    key_batch: u32,
    key_head: u32,
    key_row: u32,
    value_offset: u32,
    value_batch: u32,
    value_head: u32,
    value_row: u32,
    out_offset: u32,
    out_batch: u32,
    out_head: u32,
    out_row: u32,
    scores_offset: u32,
    scores_batch: u32,
    scores_head: u32,
    scores_row: u32,
    mask_offset: u32,
    mask_batch: u32,
    mask_head: u32,
    mask_row: u32,
    mask_key: u32,
    bias_offset: u32,
    bias_batch: u32,
    bias_head: u32,
    bias_row: u32,
    bias_key: u32,
}

@group(0) @binding(0) var<uniform> params: Params;

// ---- state.wgsl ----
// Purpose: the attention state of a row, (row_max, row_sum, acc), and the numbers that stand for closed positions.
// Source: Milakov & Gimelshein, "Online normalizer calculation for softmax" (2018); Dao, "FlashAttention-2" (2023), 3.1.
//
// WGSL has no infinities in constant expressions and lets implementations assume that none occur, so a closed score is a
// finite number of its own, and no open score may equal it.

// Score of a closed position: the lowest finite f32.
const CLOSED: f32 = -3.4028234663852886e38;
// The lowest score that an open position can have: one step above CLOSED.
const LOWEST_OPEN: f32 = -3.4028232635611926e38;
// Weight of a closed position: minus zero, equal to zero in every sum, but told apart from an open weight that underflowed.
const CLOSED_WEIGHT_BITS: u32 = 0x80000000u;
const LOG2_E: f32 = 1.4426950408889634;

// Keeps an open score apart from CLOSED. NaN passes.
fn open_score(score: f32) -> f32 {
    return select(score, LOWEST_OPEN, score < LOWEST_OPEN);
}

// exp(x) for x <= 0 that underflows to 0 without ever meeting an infinity. NaN becomes NaN or infinity.
fn exp_below(x: f32) -> f32 {
    return exp2(select(x, -200.0, x < -200.0) * LOG2_E);
}

// The unnormalised weight of a score against the row's maximum.
fn weight_of(score: f32, row_max: f32) -> f32 {
    return select(exp_below(score - row_max), bitcast<f32>(CLOSED_WEIGHT_BITS), score == CLOSED);
}

// By its bits: compilers may take it that no NaN occurs in comparisons.
fn is_not_a_number(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// The sum of a row's weights, or NaN: weights are at most 1, so a sum that is not finite had a NaN in it. WGSL's exp2 and log
// promise nothing for NaN: SwiftShader's exp2 makes an infinity of it, its log a finite number.
fn sum_or_nan(row_sum: f32) -> f32 {
    let bits = bitcast<u32>(row_sum);
    return select(row_sum, bitcast<f32>(bits | 0x7fc00000u), (bits & 0x7f800000u) == 0x7f800000u);
}

// The log-sum-exp of a row, from a sum of sum_or_nan.
fn log_sum_exp(row_max: f32, row_sum: f32) -> f32 {
    return select(row_max + log(row_sum), row_sum, is_not_a_number(row_sum));
}

fn is_closed_weight(weight: vec4<f32>) -> vec4<bool> {
    return bitcast<vec4<u32>>(weight) == vec4<u32>(CLOSED_WEIGHT_BITS);
}

// ---- position.wgsl ----
// Purpose: which tile of the problem a workgroup owns. Needs slot `sequence`.
// The grid is one line of workgroups folded at grid_x, so that no dimension passes 65,535. Neighbours in the line share
// a query tile's keys: chunk of value channels fastest, then query tile, then head, then batch.

// One sequence, as far as this dispatch sees it.
struct Sequence {
    // Rows of query and of key and value before its own: 0 unless sequences are packed.
    query_base: u32,
    key_base: u32,
    // Behind its last query row and its last key.
    q_end: u32,
    kv_end: u32,
    // What is added to a query's index to find its own position among the keys, by causal rule, window and ALiBi.
    causal_offset: i32,
    window_offset: i32,
    alibi_offset: i32,
}

struct Position {
    batch: u32,
    head: u32,
    kv_head: u32,
    // First query row of the tile, and the last one that exists (of no meaning in a tile behind the sequence's end).
    q_first: u32,
    q_last: u32,
    // Which chunk of value channels.
    chunk: u32,
    sequence: Sequence,
}

fn workgroup_number(id: vec3<u32>) -> u32 {
    return id.y * params.grid_x + id.x;
}

fn position_of(number: u32) -> Position {
    let tiles = (params.q_end - params.q_begin + TILE_Q - 1u) / TILE_Q;
    let tile = number / params.chunk_count;
    let head_number = tile / tiles;
    var position: Position;
    position.chunk = params.chunk_begin + number % params.chunk_count;
    position.q_first = params.q_begin + (tile % tiles) * TILE_Q;
    position.head = params.head_begin + head_number % params.head_count;
    position.batch = params.batch_begin + head_number / params.head_count;
    position.kv_head = position.head / params.group_size;
    position.sequence = sequence_of(position.batch);
    position.q_last = min(position.q_first + TILE_Q, position.sequence.q_end) - 1u;
    return position;
}

// Whether the tile lies behind the end of its sequence.
fn is_behind_end(position: Position) -> bool {
    return position.q_first >= position.sequence.q_end;
}

// ---- sequence/whole.wgsl ----
// Purpose: every sequence is as long as the shape says. Hook of slot `sequence`: defines sequence_of.

fn sequence_of(batch: u32) -> Sequence {
    return Sequence(0u, 0u, params.q_end, params.kv_end, params.causal_offset, params.window_offset, params.alibi_offset);
}

// ---- mask/causal_none.wgsl ----
// Purpose: no causal rule. Hook of slot `causal`: defines causal_open, causal_kv_end and causal_open_end.

fn causal_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

fn causal_kv_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}

fn causal_open_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}

// ---- mask/window_none.wgsl ----
// Purpose: no sliding window. Hook of slot `window`: defines window_open, window_kv_begin, window_kv_end,
// window_open_begin and window_open_end.

fn window_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

fn window_kv_begin(position: Position) -> u32 {
    return 0u;
}

fn window_kv_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}

fn window_open_begin(position: Position) -> u32 {
    return 0u;
}

fn window_open_end(position: Position) -> u32 {
    return position.sequence.kv_end;
}

// ---- visit/range.wgsl ----
// Purpose: the tiles of keys that a tile of rows visits: all from the first key that causal rule and window leave open to the
// last. Hook of slot `visit`: defines visit_of, visited_tile, is_skipped, is_open and is_visited. Needs slots `causal` and
// `window`.

struct Visit {
    // First key of the first tile: a whole number of tiles from the region's beginning.
    first: u32,
    tiles: u32,
    // Those among which is_open: numbers from open_begin on, up to open_end.
    open_begin: u32,
    open_end: u32,
}

struct VisitedTile {
    kv_first: u32,
    // Whether mask_mod need not be asked.
    wholly_open: bool,
}

fn visit_of(position: Position) -> Visit {
    let begin = max(window_kv_begin(position), params.kv_begin);
    let end = min(causal_kv_end(position), window_kv_end(position));
    let first = params.kv_begin + (begin - params.kv_begin) / TILE_KV * TILE_KV;
    let open_first = max(window_open_begin(position), first);
    let open_end = min(min(causal_open_end(position), window_open_end(position)), params.masked_keys);
    let open_tiles = (max(open_end, first) - first) / TILE_KV;
    return Visit(first, (max(end, first) - first + TILE_KV - 1u) / TILE_KV, (open_first - first + TILE_KV - 1u) / TILE_KV,
        open_tiles);
}

fn visited_tile(visit: Visit, n: u32) -> VisitedTile {
    return VisitedTile(visit.first + n * TILE_KV, false);
}

// Whether a visited tile is left out after all.
fn is_skipped(position: Position, visited: VisitedTile) -> bool {
    return false;
}

// Whether a tile from open_begin to open_end lies before the end of the keys and within what causal rule and window leave open
// to every row.
fn is_open(position: Position, visited: VisitedTile) -> bool {
    return true;
}

// Whether the tile of keys at kv_first is one of those.
fn is_visited(visit: Visit, position: Position, kv_first: u32) -> bool {
    return kv_first >= visit.first && kv_first < visit.first + visit.tiles * TILE_KV;
}

// ---- load/query_f32_vec4.wgsl ----
// Purpose: four channels of query in one load: every row begins at a multiple of four elements and is a multiple of four
// long.
// Hook of slot `query`: defines load_query.
// Binding 1: query, f32, [batch, heads, seqlen_q, head_dim], contiguous channels.

@group(0) @binding(1) var<storage, read> query: array<vec4<f32>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_query(row: u32, d4: u32) -> vec4<f32> {
    return query[(row >> 2u) + d4];
}

// ---- load/key_f32_vec4.wgsl ----
// Purpose: four channels of key in one load: every row begins at a multiple of four elements and is a multiple of four
// long.
// Hook of slot `key`: defines load_key.
// Binding 2: key, f32, [batch, kv_heads, seqlen_k, head_dim], contiguous channels.

@group(0) @binding(2) var<storage, read> key: array<vec4<f32>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_key(row: u32, d4: u32) -> vec4<f32> {
    return key[(row >> 2u) + d4];
}

// ---- rope/query_none.wgsl ----
// Purpose: query as it lies in memory. Hook of slot `turn_query`: defines turned_query. Needs slot `query`.

fn turned_query(position: Position, q_idx: u32, row: u32, d4: u32) -> vec4<f32> {
    return load_query(row, d4);
}

// ---- rope/key_none.wgsl ----
// Purpose: key as it lies in memory. Hook of slot `turn_key`: defines turned_key. Needs slot `key`.

fn turned_key(position: Position, kv_idx: u32, row: u32, d4: u32) -> vec4<f32> {
    return load_key(row, d4);
}

// ---- tile/query_f32.wgsl ----
// Purpose: four channels of query in workgroup memory. Hook of slot `staged`: defines StagedQuery.

alias StagedQuery = vec4<f32>;

// ---- tile/kv_f32.wgsl ----
// Purpose: four channels of key or value in workgroup memory. Hook of slot `staged`: defines StagedKv.

alias StagedKv = vec4<f32>;

// ---- tile/query_streamed.wgsl ----
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
    { const n: u32 = 0u;
        let i = min(position.q_first + n * (THREADS / D4_CHUNK) + lane / D4_CHUNK, position.q_last);
        staged[n] = vec4<f32>(0.0);
        if (D4 % D4_CHUNK == 0u || d4 < D4) {
            staged[n] = turned_query(position, i, head + i * params.query_row, d4);
        }
    } { const n: u32 = 1u;
        let i = min(position.q_first + n * (THREADS / D4_CHUNK) + lane / D4_CHUNK, position.q_last);
        staged[n] = vec4<f32>(0.0);
        if (D4 % D4_CHUNK == 0u || d4 < D4) {
            staged[n] = turned_query(position, i, head + i * params.query_row, d4);
        }
    } { const n: u32 = 2u;
        let i = min(position.q_first + n * (THREADS / D4_CHUNK) + lane / D4_CHUNK, position.q_last);
        staged[n] = vec4<f32>(0.0);
        if (D4 % D4_CHUNK == 0u || d4 < D4) {
            staged[n] = turned_query(position, i, head + i * params.query_row, d4);
        }
    } { const n: u32 = 3u;
        let i = min(position.q_first + n * (THREADS / D4_CHUNK) + lane / D4_CHUNK, position.q_last);
        staged[n] = vec4<f32>(0.0);
        if (D4 % D4_CHUNK == 0u || d4 < D4) {
            staged[n] = turned_query(position, i, head + i * params.query_row, d4);
        }
    } 
    { const n: u32 = 0u;
        wg_query[(n * (THREADS / D4_CHUNK) + lane / D4_CHUNK) * Q_STRIDE + column] = StagedQuery(staged[n]);
    } { const n: u32 = 1u;
        wg_query[(n * (THREADS / D4_CHUNK) + lane / D4_CHUNK) * Q_STRIDE + column] = StagedQuery(staged[n]);
    } { const n: u32 = 2u;
        wg_query[(n * (THREADS / D4_CHUNK) + lane / D4_CHUNK) * Q_STRIDE + column] = StagedQuery(staged[n]);
    } { const n: u32 = 3u;
        wg_query[(n * (THREADS / D4_CHUNK) + lane / D4_CHUNK) * Q_STRIDE + column] = StagedQuery(staged[n]);
    } 
}

fn query_column(chunk: u32, d4: u32) -> u32 {
    return d4;
}

// ---- tile/kinds.wgsl ----
// Purpose: what is known of a tile before its positions are looked at. Functions take it as a literal, so that a compiler makes one
// of them for each kind.

// Every position is open to every row of the workgroup, and none is of an appended key: nothing is tested.
const TILE_OPEN: u32 = 0u;
// Nothing is known.
const TILE_ANY: u32 = 1u;
// As TILE_ANY, but most tiles are TILE_OPEN: the code is to be short, so that it leaves theirs in the instruction cache.
const TILE_REST: u32 = 2u;

// `count`, in a form that no compiler can know to be constant where code is to be short: loops of so many trips stay rolled.
fn trips(count: u32, kind: u32) -> u32 {
    if (kind == TILE_REST) {
        // grid_x is at least 1.
        return count + min(params.grid_x, 1u) - 1u;
    }
    return count;
}

// ---- tile/scores.wgsl ----
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
    { const r: u32 = 0u;
        tile.rows[r] = vec4<f32>(0.0);
    } { const r: u32 = 1u;
        tile.rows[r] = vec4<f32>(0.0);
    } { const r: u32 = 2u;
        tile.rows[r] = vec4<f32>(0.0);
    } { const r: u32 = 3u;
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
        { const n: u32 = 0u;
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
        } { const n: u32 = 1u;
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
        } { const n: u32 = 2u;
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
        } { const n: u32 = 3u;
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
        { const n: u32 = 0u;
            wg_kv[(n * KEYS_STAGED + own_key) * KV_STRIDE + column] = StagedKv(staged[n]);
        } { const n: u32 = 1u;
            wg_kv[(n * KEYS_STAGED + own_key) * KV_STRIDE + column] = StagedKv(staged[n]);
        } { const n: u32 = 2u;
            wg_kv[(n * KEYS_STAGED + own_key) * KV_STRIDE + column] = StagedKv(staged[n]);
        } { const n: u32 = 3u;
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
            { const r: u32 = 0u;
                let q = vec4<f32>(wg_query[(ty + TY * r) * Q_STRIDE + column]);
                tile.rows[r] = fma(vec4<f32>(q.w), kw, fma(vec4<f32>(q.z), kz, fma(vec4<f32>(q.y), ky,
                    fma(vec4<f32>(q.x), kx, tile.rows[r]))));
            } { const r: u32 = 1u;
                let q = vec4<f32>(wg_query[(ty + TY * r) * Q_STRIDE + column]);
                tile.rows[r] = fma(vec4<f32>(q.w), kw, fma(vec4<f32>(q.z), kz, fma(vec4<f32>(q.y), ky,
                    fma(vec4<f32>(q.x), kx, tile.rows[r]))));
            } { const r: u32 = 2u;
                let q = vec4<f32>(wg_query[(ty + TY * r) * Q_STRIDE + column]);
                tile.rows[r] = fma(vec4<f32>(q.w), kw, fma(vec4<f32>(q.z), kz, fma(vec4<f32>(q.y), ky,
                    fma(vec4<f32>(q.x), kx, tile.rows[r]))));
            } { const r: u32 = 3u;
                let q = vec4<f32>(wg_query[(ty + TY * r) * Q_STRIDE + column]);
                tile.rows[r] = fma(vec4<f32>(q.w), kw, fma(vec4<f32>(q.z), kz, fma(vec4<f32>(q.y), ky,
                    fma(vec4<f32>(q.x), kx, tile.rows[r]))));
            } 
        }
    }
    return tile;
}

// ---- mods/mask_mod_none.wgsl ----
// Purpose: the caller has no mask_mod. Hook of slot `mask_mod`: defines mod_open.

fn mod_open(position: Position, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

// ---- block/none.wgsl ----
// Purpose: no block mask. Hook of slot `block`: defines block_allows. Needs slot `mask_mod`.

fn block_allows(position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> bool {
    return mod_open(position, q_idx, kv_idx);
}

// ---- mask/boolean_none.wgsl ----
// Purpose: no boolean mask. Hook of slot `mask`: defines mask_open.

fn mask_open(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return true;
}

// ---- mask/padding_none.wgsl ----
// Purpose: no key padding. Hook of slot `padding`: defines padding_open and padding_score.

fn padding_open(batch: u32, kv_idx: u32) -> bool {
    return true;
}

fn padding_score(batch: u32, kv_idx: u32) -> f32 {
    return 0.0;
}

// ---- score/bias_none.wgsl ----
// Purpose: no bias. Hook of slot `bias`: defines bias_open and bias_score.

fn bias_open(bias_value: f32) -> bool {
    return true;
}

fn bias_score(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return 0.0;
}

// ---- score/alibi_none.wgsl ----
// Purpose: no ALiBi. Hook of slot `alibi`: defines alibi_score.

fn alibi_score(position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return 0.0;
}

// ---- score/softcap_none.wgsl ----
// Purpose: no softcap. Hook of slot `softcap`: defines cap_score.

fn cap_score(score: f32) -> f32 {
    return score;
}

// ---- mods/score_mod_none.wgsl ----
// Purpose: the caller has no score_mod. Hook of slot `score_mod`: defines modify_score and modified_open.

fn modify_score(score: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return score;
}

fn modified_open(score: f32) -> bool {
    return true;
}

// ---- score/finish.wgsl ----
// Purpose: from query · key to the score that softmax sees: scale, softcap, score_mod, biases, masks, appended keys. Uses the
// hooks of slots `softcap`, `score_mod`, `alibi`, `bias`, `padding`, `causal`, `window`, `mask` and `block`. STAGE, a
// constant of the header, ends the way early where somebody wants the score of that stage.

const STAGE_SCALED: u32 = 1u;
const STAGE_CAPPED: u32 = 2u;
const STAGE_BIASED: u32 = 3u;

fn finish_score(product: f32, position: Position, q_idx: u32, kv_idx: u32, wholly_open: bool) -> f32 {
    // Rows and keys past the end are never read or written, but their lanes compute: keep their loads within bounds.
    let i = min(q_idx, position.q_last);
    let j = min(kv_idx, position.sequence.kv_end - 1u);
    let batch = position.batch;
    let head = position.head;
    var score = product * params.scale;
    if (STAGE == STAGE_SCALED) {
        return score;
    }
    score = cap_score(score);
    if (STAGE == STAGE_CAPPED) {
        return score;
    }
    var open = true;
    if (j < params.masked_keys) {
        score = modify_score(score, position, i, j);
        let added = bias_score(batch, head, i, j);
        // By `&`, which asks all: each `&&` would be a branch, and loads behind branches.
        open = modified_open(score) & bias_open(added) & causal_open(position, i, j) & window_open(position, i, j)
            & mask_open(batch, head, i, j) & padding_open(batch, j) & block_allows(position, i, j, wholly_open);
        score = score + alibi_score(position, i, j) + added + padding_score(batch, j);
    }
    return select(CLOSED, open_score(score), open & (kv_idx < position.sequence.kv_end));
}

// ---- score/open.wgsl ----
// Purpose: scores and weights of positions that are known to be open. Uses the hooks of slots `softcap` and `alibi`. Needs state.wgsl.

// The score of a position that is known to be open: finish_score without what can close one.
fn finish_open_score(product: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return cap_score(product * params.scale) + alibi_score(position, min(q_idx, position.q_last), kv_idx);
}

// log2(exp(score)), finite where the score is: no score that some key of a row can tell from another is as low as where this ends.
fn log2_of_exp(score: f32) -> f32 {
    return max(score, -2e38) * LOG2_E;
}

// Their unnormalised weights against log2_of_exp of the row's maximum.
fn open_weights(scores: vec4<f32>, log2_max: f32) -> vec4<f32> {
    return exp2(fma(scores, vec4<f32>(LOG2_E), vec4<f32>(-log2_max)));
}

// ---- tile/finish.wgsl ----
// Purpose: from products to scores, for a whole tile. Needs tile/scores.wgsl, score/finish.wgsl and score/open.wgsl.

fn finish_tile(tile: ScoreTile, position: Position, visited: VisitedTile, kind: u32, lane: u32) -> ScoreTile {
    let q_idx = position.q_first + lane / TX;
    let kv_idx = visited.kv_first + lane % TX;
    let mod_open = visited.wholly_open;
    var finished: ScoreTile;
    { const r: u32 = 0u;
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
    } { const r: u32 = 1u;
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
    } { const r: u32 = 2u;
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
    } { const r: u32 = 3u;
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

// ---- emit/score.wgsl ----
// Purpose: scores for the softmax kernel, closed ones as CLOSED. Hook of slot `emit`: defines emit_score.
// Binding 6: scores, f32, [batch, heads, seqlen_q, seqlen_k].

@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

fn emit_score(at: u32, position: Position, q_idx: u32, score: f32) {
    scores[at] = score;
}

// ---- scores.wgsl ----
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
    { const r: u32 = 0u;
        tile.rows[r] = vec4<f32>(closed);
    } { const r: u32 = 1u;
        tile.rows[r] = vec4<f32>(closed);
    } { const r: u32 = 2u;
        tile.rows[r] = vec4<f32>(closed);
    } { const r: u32 = 3u;
        tile.rows[r] = vec4<f32>(closed);
    } 
    let exists = !is_behind_end(position) && kv_first < position.sequence.kv_end;
    if (exists && (unmasked || is_visited(visit_of(position), position, kv_first))) {
        stage_query(position, lane);
        let products = score_tile(position, kv_first, TILE_ANY, lane);
        tile = finish_tile(products, position, VisitedTile(kv_first, false), TILE_ANY, lane);
    }
    let head = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head;
    { const r: u32 = 0u;
        let i = position.q_first + ty + TY * r;
        { const c: u32 = 0u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 1u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 2u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 3u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } 
    } { const r: u32 = 1u;
        let i = position.q_first + ty + TY * r;
        { const c: u32 = 0u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 1u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 2u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 3u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } 
    } { const r: u32 = 2u;
        let i = position.q_first + ty + TY * r;
        { const c: u32 = 0u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 1u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 2u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 3u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } 
    } { const r: u32 = 3u;
        let i = position.q_first + ty + TY * r;
        { const c: u32 = 0u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 1u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 2u;
            let j = kv_first + tx + TX * c;
            if (i < min(position.q_first + TILE_Q, params.q_end) && j < params.kv_end) {
                // Behind the end of its sequence a row has no open key, and a key no score, whatever the query holds.
                let behind_end = i >= position.sequence.q_end || j >= position.sequence.kv_end;
                let score = select(tile.rows[r][c], closed, behind_end);
                emit_score(head + i * params.scores_row + j, position, i, score);
            }
        } { const c: u32 = 3u;
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
