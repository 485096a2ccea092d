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
const HEAD_DIM_V: u32 = 64u;
const DV4: u32 = 16u;
const V_GROUPS: u32 = 2u;
const DV4_CHUNK: u32 = 16u;
const P_STRIDE: u32 = 9u;

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

// ---- load/value_f32_vec4.wgsl ----
// Purpose: four channels of value in one load: every row begins at a multiple of four elements and is a multiple of four
// long.
// Hook of slot `value`: defines load_value.
// Binding 3: value, f32, [batch, kv_heads, seqlen_k, head_dim_v], contiguous channels.

@group(0) @binding(3) var<storage, read> value: array<vec4<f32>>;

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`.
fn load_value(row: u32, d4: u32) -> vec4<f32> {
    return value[(row >> 2u) + d4];
}

// ---- tile/guard_none.wgsl ----
// Purpose: every key is open, so 0 * inf in the products is what IEEE 754 says. Hook of slot `guard`: defines guard_begin,
// guard_values, values_are_plain and guarded_add.

fn guard_begin(lane: u32) {
}

fn guard_values(values: array<vec4<f32>, VALUE_STAGES>) {
}

fn values_are_plain() -> bool {
    return true;
}

fn guarded_add(acc: vec4<f32>, weight: f32, channels: vec4<f32>) -> vec4<f32> {
    return acc;
}

// ---- dropout/none.wgsl ----
// Purpose: no dropout. Hook of slot `dropout`: defines drop_weights.

fn drop_weights(weights: vec4<f32>, position: Position, q_idx: u32, kv_idx: u32) -> vec4<f32> {
    return weights;
}

// ---- tile/values.wgsl ----
// Purpose: weights · value for a tile of TILE_Q rows and TILE_KV keys, added to ROWS rows and V_GROUPS vec4 of channels an
// invocation. Needs hooks `value` and `guard`, and wg_kv of tile/scores.wgsl or tile/values_memory.wgsl.

// One vec4 is the weights of one row for keys t, t + TX, t + 2 TX and t + 3 TX of the tile: [TILE_Q][TX], rows P_STRIDE apart.
var<workgroup> wg_weights: array<vec4<f32>, TILE_Q * P_STRIDE>;

struct ValueTile {
    // [g * ROWS + r]: channels 4 * (g * TX + tx) of the chunk, row ty + TY * r.
    acc: array<vec4<f32>, V_GROUPS * ROWS>,
}

// wg_weights must have been written by all lanes; the first barrier in here makes it readable.
fn add_values(before: ValueTile, position: Position, kv_first: u32, kind: u32, lane: u32) -> ValueTile {
    let tx = lane % TX;
    let ty = lane / TX;
    let head = params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + position.sequence.key_base * params.value_row;
    var tile = before;
    { const g: u32 = 0u;
        // All loads before the first store, so that none waits for another.
        let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
        var staged: array<vec4<f32>, VALUE_STAGES>;
        { const n: u32 = 0u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } { const n: u32 = 1u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } { const n: u32 = 2u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } { const n: u32 = 3u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } 
        if (kind != TILE_OPEN) {
            guard_values(staged);
        }
        { const n: u32 = 0u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } { const n: u32 = 1u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } { const n: u32 = 2u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } { const n: u32 = 3u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } 
        // wg_kv and wg_weights, written by all lanes, are read by all below.
        workgroupBarrier();
        if (kind == TILE_OPEN || values_are_plain()) {
            for (var t = 0u; t < trips(TX, kind); t++) {
                let v0 = vec4<f32>(wg_kv[t * KV_STRIDE + tx]);
                let v1 = vec4<f32>(wg_kv[(t + TX) * KV_STRIDE + tx]);
                let v2 = vec4<f32>(wg_kv[(t + 2u * TX) * KV_STRIDE + tx]);
                let v3 = vec4<f32>(wg_kv[(t + 3u * TX) * KV_STRIDE + tx]);
                { const r: u32 = 0u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } { const r: u32 = 1u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } { const r: u32 = 2u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } { const r: u32 = 3u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } 
            }
        } else {
            for (var t = 0u; t < trips(TX, kind); t++) {
                let v0 = vec4<f32>(wg_kv[t * KV_STRIDE + tx]);
                let v1 = vec4<f32>(wg_kv[(t + TX) * KV_STRIDE + tx]);
                let v2 = vec4<f32>(wg_kv[(t + 2u * TX) * KV_STRIDE + tx]);
                let v3 = vec4<f32>(wg_kv[(t + 3u * TX) * KV_STRIDE + tx]);
                { const r: u32 = 0u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } { const r: u32 = 1u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } { const r: u32 = 2u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } { const r: u32 = 3u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } 
            }
        }
        // wg_kv is written next by the group after, or by score_tile, and wg_weights by the next tile.
        workgroupBarrier();
    } { const g: u32 = 1u;
        // All loads before the first store, so that none waits for another.
        let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
        var staged: array<vec4<f32>, VALUE_STAGES>;
        { const n: u32 = 0u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } { const n: u32 = 1u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } { const n: u32 = 2u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } { const n: u32 = 3u;
            let first = kv_first + n * TY;
            var row = head + first * params.value_row + ty * params.value_row;
            if (kind != TILE_OPEN) {
                row = head + min(first + ty, position.sequence.kv_end - 1u) * params.value_row;
            }
            staged[n] = vec4<f32>(0.0);
            if (DV4 % DV4_CHUNK == 0u || d4 < DV4) {
                staged[n] = load_value(row, d4);
            }
            if (kind != TILE_OPEN) {
                // Weights of keys past the end are 0, but 0 * NaN is not.
                staged[n] = select(vec4<f32>(0.0), staged[n], first + ty < position.sequence.kv_end);
            }
        } 
        if (kind != TILE_OPEN) {
            guard_values(staged);
        }
        { const n: u32 = 0u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } { const n: u32 = 1u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } { const n: u32 = 2u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } { const n: u32 = 3u;
            wg_kv[(n * TY + ty) * KV_STRIDE + tx] = StagedKv(staged[n]);
        } 
        // wg_kv and wg_weights, written by all lanes, are read by all below.
        workgroupBarrier();
        if (kind == TILE_OPEN || values_are_plain()) {
            for (var t = 0u; t < trips(TX, kind); t++) {
                let v0 = vec4<f32>(wg_kv[t * KV_STRIDE + tx]);
                let v1 = vec4<f32>(wg_kv[(t + TX) * KV_STRIDE + tx]);
                let v2 = vec4<f32>(wg_kv[(t + 2u * TX) * KV_STRIDE + tx]);
                let v3 = vec4<f32>(wg_kv[(t + 3u * TX) * KV_STRIDE + tx]);
                { const r: u32 = 0u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } { const r: u32 = 1u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } { const r: u32 = 2u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } { const r: u32 = 3u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = fma(vec4<f32>(p.w), v3, fma(vec4<f32>(p.z), v2, fma(vec4<f32>(p.y), v1,
                        fma(vec4<f32>(p.x), v0, tile.acc[g * ROWS + r]))));
                } 
            }
        } else {
            for (var t = 0u; t < trips(TX, kind); t++) {
                let v0 = vec4<f32>(wg_kv[t * KV_STRIDE + tx]);
                let v1 = vec4<f32>(wg_kv[(t + TX) * KV_STRIDE + tx]);
                let v2 = vec4<f32>(wg_kv[(t + 2u * TX) * KV_STRIDE + tx]);
                let v3 = vec4<f32>(wg_kv[(t + 3u * TX) * KV_STRIDE + tx]);
                { const r: u32 = 0u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } { const r: u32 = 1u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } { const r: u32 = 2u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } { const r: u32 = 3u;
                    let p = wg_weights[(ty + TY * r) * P_STRIDE + t];
                    tile.acc[g * ROWS + r] = guarded_add(guarded_add(guarded_add(guarded_add(tile.acc[g * ROWS + r], p.x, v0),
                        p.y, v1), p.z, v2), p.w, v3);
                } 
            }
        }
        // wg_kv is written next by the group after, or by score_tile, and wg_weights by the next tile.
        workgroupBarrier();
    } 
    return tile;
}

// ---- row/out_f32_vec4.wgsl ----
// Purpose: four channels of out in one load or store: rows begin at multiples of four elements and are multiples of four long.
// Hook of slot `out`: defines load_out and store_out.
// Binding 4: out, f32, [batch, heads, seqlen_q, head_dim_v], contiguous channels.

@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

fn load_out(row: u32, d4: u32) -> vec4<f32> {
    return out[(row >> 2u) + d4];
}

fn store_out(row: u32, d4: u32, channels: vec4<f32>) {
    out[(row >> 2u) + d4] = channels;
}

// ---- row/lse_none.wgsl ----
// Purpose: nobody wants the log-sum-exp. Hook of slot `lse`: defines store_lse.

fn store_lse(position: Position, q_idx: u32, value: f32) {
}

// ---- row/acc_fresh.wgsl ----
// Purpose: the accumulator begins at zero. Hook of slot `acc`: defines resume_acc.

fn resume_acc(row: u32, d4: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}

// ---- row/state_fresh.wgsl ----
// Purpose: this dispatch is the first to visit these rows. Hook of slot `state`: defines resume_row_max and resume_row_sum.

fn resume_row_max(position: Position, q_idx: u32) -> f32 {
    return CLOSED;
}

fn resume_row_sum(row_max: f32) -> f32 {
    return 0.0;
}

// ---- tile/rows_shared.wgsl ----
// Purpose: the largest and the sum of what the TX lanes of a row hold, through workgroup memory, for devices without subgroup
// operations. Hook of slot `rows`: defines highest_of_rows and sums_of_rows.

// One vec4 is what one lane holds of four of its rows: [ROWS4][THREADS]. (The last one of each lane holds its last row again
// where ROWS is no multiple of four.)
var<workgroup> wg_part: array<vec4<f32>, ROWS4 * THREADS>;

fn share_rows(own: array<f32, ROWS>, lane: u32) {
    { const g: u32 = 0u;
        wg_part[g * THREADS + lane] = vec4<f32>(own[4u * g], own[min(4u * g + 1u, ROWS - 1u)],
            own[min(4u * g + 2u, ROWS - 1u)], own[min(4u * g + 3u, ROWS - 1u)]);
    } 
    // wg_part, written by all lanes, is read by the lanes of the same row; it is written next after another barrier.
    workgroupBarrier();
}

// The largest that any lane of a row holds, [r] for row ty + TY * r. Holds a barrier: all have finished with wg_kv's keys.
fn highest_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    share_rows(own, lane);
    let first = lane / TX * TX;
    var highest: array<f32, ROWS>;
    { const g: u32 = 0u;
        var part = wg_part[g * THREADS + first];
        { const x: u32 = 0u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 1u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 2u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 3u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 4u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 5u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 6u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } { const x: u32 = 7u;
            part = max(part, wg_part[g * THREADS + first + x]);
        } 
        { const c: u32 = 0u;
            highest[min(4u * g + c, ROWS - 1u)] = part[c];
        } { const c: u32 = 1u;
            highest[min(4u * g + c, ROWS - 1u)] = part[c];
        } { const c: u32 = 2u;
            highest[min(4u * g + c, ROWS - 1u)] = part[c];
        } { const c: u32 = 3u;
            highest[min(4u * g + c, ROWS - 1u)] = part[c];
        } 
    } 
    return highest;
}

// The sum of what the lanes of a row hold, likewise, the same in each of them.
fn sums_of_rows(own: array<f32, ROWS>, lane: u32) -> array<f32, ROWS> {
    share_rows(own, lane);
    let first = lane / TX * TX;
    var sums: array<f32, ROWS>;
    { const g: u32 = 0u;
        var part = vec4<f32>(0.0);
        { const x: u32 = 0u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 1u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 2u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 3u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 4u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 5u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 6u;
            part += wg_part[g * THREADS + first + x];
        } { const x: u32 = 7u;
            part += wg_part[g * THREADS + first + x];
        } 
        { const c: u32 = 0u;
            sums[min(4u * g + c, ROWS - 1u)] = part[c];
        } { const c: u32 = 1u;
            sums[min(4u * g + c, ROWS - 1u)] = part[c];
        } { const c: u32 = 2u;
            sums[min(4u * g + c, ROWS - 1u)] = part[c];
        } { const c: u32 = 3u;
            sums[min(4u * g + c, ROWS - 1u)] = part[c];
        } 
    } 
    return sums;
}

// ---- tile/step.wgsl ----
// Purpose: one tile of keys: scores, weights, weights · value, added to the state of online softmax. Needs tile/scores.wgsl,
// tile/finish.wgsl, tile/values.wgsl, state.wgsl and the hooks of slots `rows` and `dropout`.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1.

// What a lane knows of its rows ty + TY * r, [r].
struct TileState {
    // The highest score so far, the same in all lanes of a row.
    row_max: array<f32, ROWS>,
    // The sum of the weights of the lane's own keys.
    row_sum: array<f32, ROWS>,
    values: ValueTile,
}

fn visit_tile(before: TileState, position: Position, visited: VisitedTile, kind: u32, lane: u32) -> TileState {
    let tx = lane % TX;
    let ty = lane / TX;
    let products = score_tile(position, visited.kv_first, kind, lane);
    let scores = finish_tile(products, position, visited, kind, lane);
    var own_max: array<f32, ROWS>;
    { const r: u32 = 0u;
        let s = scores.rows[r];
        own_max[r] = max(max(s.x, s.y), max(s.z, s.w));
    } { const r: u32 = 1u;
        let s = scores.rows[r];
        own_max[r] = max(max(s.x, s.y), max(s.z, s.w));
    } { const r: u32 = 2u;
        let s = scores.rows[r];
        own_max[r] = max(max(s.x, s.y), max(s.z, s.w));
    } { const r: u32 = 3u;
        let s = scores.rows[r];
        own_max[r] = max(max(s.x, s.y), max(s.z, s.w));
    } 
    let tile_max = highest_of_rows(own_max, lane);
    var state = before;
    { const r: u32 = 0u;
        let highest = max(state.row_max[r], tile_max[r]);
        let s = scores.rows[r];
        var rescale: f32;
        var p: vec4<f32>;
        if (kind == TILE_OPEN) {
            let log2_max = log2_of_exp(highest);
            rescale = exp2(log2_of_exp(state.row_max[r]) - log2_max);
            p = open_weights(s, log2_max);
        } else {
            rescale = exp_below(state.row_max[r] - highest);
            p = vec4<f32>(weight_of(s.x, highest), weight_of(s.y, highest), weight_of(s.z, highest),
                weight_of(s.w, highest));
        }
        state.row_max[r] = highest;
        state.row_sum[r] = fma(state.row_sum[r], rescale, (p.x + p.y) + (p.z + p.w));
        wg_weights[(ty + TY * r) * P_STRIDE + tx] = drop_weights(p, position, position.q_first + ty + TY * r,
            visited.kv_first + tx);
        { const g: u32 = 0u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } { const g: u32 = 1u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } 
    } { const r: u32 = 1u;
        let highest = max(state.row_max[r], tile_max[r]);
        let s = scores.rows[r];
        var rescale: f32;
        var p: vec4<f32>;
        if (kind == TILE_OPEN) {
            let log2_max = log2_of_exp(highest);
            rescale = exp2(log2_of_exp(state.row_max[r]) - log2_max);
            p = open_weights(s, log2_max);
        } else {
            rescale = exp_below(state.row_max[r] - highest);
            p = vec4<f32>(weight_of(s.x, highest), weight_of(s.y, highest), weight_of(s.z, highest),
                weight_of(s.w, highest));
        }
        state.row_max[r] = highest;
        state.row_sum[r] = fma(state.row_sum[r], rescale, (p.x + p.y) + (p.z + p.w));
        wg_weights[(ty + TY * r) * P_STRIDE + tx] = drop_weights(p, position, position.q_first + ty + TY * r,
            visited.kv_first + tx);
        { const g: u32 = 0u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } { const g: u32 = 1u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } 
    } { const r: u32 = 2u;
        let highest = max(state.row_max[r], tile_max[r]);
        let s = scores.rows[r];
        var rescale: f32;
        var p: vec4<f32>;
        if (kind == TILE_OPEN) {
            let log2_max = log2_of_exp(highest);
            rescale = exp2(log2_of_exp(state.row_max[r]) - log2_max);
            p = open_weights(s, log2_max);
        } else {
            rescale = exp_below(state.row_max[r] - highest);
            p = vec4<f32>(weight_of(s.x, highest), weight_of(s.y, highest), weight_of(s.z, highest),
                weight_of(s.w, highest));
        }
        state.row_max[r] = highest;
        state.row_sum[r] = fma(state.row_sum[r], rescale, (p.x + p.y) + (p.z + p.w));
        wg_weights[(ty + TY * r) * P_STRIDE + tx] = drop_weights(p, position, position.q_first + ty + TY * r,
            visited.kv_first + tx);
        { const g: u32 = 0u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } { const g: u32 = 1u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } 
    } { const r: u32 = 3u;
        let highest = max(state.row_max[r], tile_max[r]);
        let s = scores.rows[r];
        var rescale: f32;
        var p: vec4<f32>;
        if (kind == TILE_OPEN) {
            let log2_max = log2_of_exp(highest);
            rescale = exp2(log2_of_exp(state.row_max[r]) - log2_max);
            p = open_weights(s, log2_max);
        } else {
            rescale = exp_below(state.row_max[r] - highest);
            p = vec4<f32>(weight_of(s.x, highest), weight_of(s.y, highest), weight_of(s.z, highest),
                weight_of(s.w, highest));
        }
        state.row_max[r] = highest;
        state.row_sum[r] = fma(state.row_sum[r], rescale, (p.x + p.y) + (p.z + p.w));
        wg_weights[(ty + TY * r) * P_STRIDE + tx] = drop_weights(p, position, position.q_first + ty + TY * r,
            visited.kv_first + tx);
        { const g: u32 = 0u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } { const g: u32 = 1u;
            state.values.acc[g * ROWS + r] = state.values.acc[g * ROWS + r] * rescale;
        } 
    } 
    state.values = add_values(state.values, position, visited.kv_first, kind, lane);
    return state;
}

// ---- tile/loops_apart.wgsl ----
// Purpose: the loop over the tiles of keys, in two: first the tiles that are open to every row, without a test, then the others.
// Hook of slot `loops`: defines visit_tiles. Needs slot `visit` and tile/step.wgsl, whose function a compiler makes two of.

fn visit_tiles(before: TileState, position: Position, lane: u32) -> TileState {
    let visit = visit_of(position);
    var state = before;
    for (var n = visit.open_begin; n < visit.open_end; n++) {
        let visited = visited_tile(visit, n);
        if (is_open(position, visited)) {
            state = visit_tile(state, position, visited, TILE_OPEN, lane);
        }
    }
    for (var n = 0u; n < visit.tiles; n++) {
        let visited = visited_tile(visit, n);
        let is_done = n >= visit.open_begin && n < visit.open_end && is_open(position, visited);
        if (!is_done && !is_skipped(position, visited)) {
            state = visit_tile(state, position, visited, TILE_REST, lane);
        }
    }
    return state;
}

// ---- fused.wgsl ----
// Purpose: attention in one kernel: out and lse of TILE_Q rows, never storing a score outside the workgroup.
// Grid: one workgroup of THREADS = TX * TY invocations owns TILE_Q query rows of one head and one chunk of value channels;
// an invocation owns ROWS rows, four keys of each tile and V_GROUPS vec4 of the chunk's channels.
// Bindings: 0 params, 1 query, 2 key, 3 value, 4 out; 5 lse, 7 mask, 8 bias, 9 padding where a hook declares them.
// Hooks: query, key, value, query_tile, out, lse, sequence, visit, causal, window, mask, padding, softcap, score_mod, mask_mod,
// alibi, bias, dropout, guard, rows, state, acc, loops.
// Source: Dao, "FlashAttention-2" (2023), algorithm 1, without its split of the row sums: here each lane of a row keeps the
// sum of its own keys until the end.

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
    guard_begin(lane);
    stage_query(position, lane);

    var state: TileState;
    { const r: u32 = 0u;
        let i = min(position.q_first + ty + TY * r, q_last);
        state.row_max[r] = resume_row_max(position, i);
        state.row_sum[r] = select(0.0, resume_row_sum(state.row_max[r]), tx == 0u);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } { const r: u32 = 1u;
        let i = min(position.q_first + ty + TY * r, q_last);
        state.row_max[r] = resume_row_max(position, i);
        state.row_sum[r] = select(0.0, resume_row_sum(state.row_max[r]), tx == 0u);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } { const r: u32 = 2u;
        let i = min(position.q_first + ty + TY * r, q_last);
        state.row_max[r] = resume_row_max(position, i);
        state.row_sum[r] = select(0.0, resume_row_sum(state.row_max[r]), tx == 0u);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } { const r: u32 = 3u;
        let i = min(position.q_first + ty + TY * r, q_last);
        state.row_max[r] = resume_row_max(position, i);
        state.row_sum[r] = select(0.0, resume_row_sum(state.row_max[r]), tx == 0u);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            state.values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                state.values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } 

    state = visit_tiles(state, position, lane);

    let sums = sums_of_rows(state.row_sum, lane);
    { const r: u32 = 0u;
        let i = position.q_first + ty + TY * r;
        let sum = sum_or_nan(sums[r]);
        // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
        let empty = sum == 0.0;
        let factor = select(1.0 / sum, 0.0, empty);
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } 
            if (tx == 0u && position.chunk == params.chunk_begin) {
                let value = select(log_sum_exp(state.row_max[r], sum), params.negative_infinity, empty);
                store_lse(position, i, value);
            }
        }
    } { const r: u32 = 1u;
        let i = position.q_first + ty + TY * r;
        let sum = sum_or_nan(sums[r]);
        // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
        let empty = sum == 0.0;
        let factor = select(1.0 / sum, 0.0, empty);
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } 
            if (tx == 0u && position.chunk == params.chunk_begin) {
                let value = select(log_sum_exp(state.row_max[r], sum), params.negative_infinity, empty);
                store_lse(position, i, value);
            }
        }
    } { const r: u32 = 2u;
        let i = position.q_first + ty + TY * r;
        let sum = sum_or_nan(sums[r]);
        // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
        let empty = sum == 0.0;
        let factor = select(1.0 / sum, 0.0, empty);
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } 
            if (tx == 0u && position.chunk == params.chunk_begin) {
                let value = select(log_sum_exp(state.row_max[r], sum), params.negative_infinity, empty);
                store_lse(position, i, value);
            }
        }
    } { const r: u32 = 3u;
        let i = position.q_first + ty + TY * r;
        let sum = sum_or_nan(sums[r]);
        // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
        let empty = sum == 0.0;
        let factor = select(1.0 / sum, 0.0, empty);
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, state.values.acc[g * ROWS + r] * factor);
                }
            } 
            if (tx == 0u && position.chunk == params.chunk_begin) {
                let value = select(log_sum_exp(state.row_max[r], sum), params.negative_infinity, empty);
                store_lse(position, i, value);
            }
        }
    } 
}
