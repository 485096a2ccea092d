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

// ---- tile/kv_f32.wgsl ----
// Purpose: four channels of key or value in workgroup memory. Hook of slot `staged`: defines StagedKv.

alias StagedKv = vec4<f32>;

// ---- tile/values_memory.wgsl ----
// Purpose: the workgroup memory of tile/values.wgsl in a kernel without tile/scores.wgsl.

// One vec4 is four channels of one value row, rows KV_STRIDE apart.
var<workgroup> wg_kv: array<StagedKv, TILE_KV * KV_STRIDE>;

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

// ---- row/acc_fresh.wgsl ----
// Purpose: the accumulator begins at zero. Hook of slot `acc`: defines resume_acc.

fn resume_acc(row: u32, d4: u32) -> vec4<f32> {
    return vec4<f32>(0.0);
}

// ---- weighted_values.wgsl ----
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
    { const r: u32 = 0u;
        let i = min(position.q_first + ty + TY * r, q_last);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } { const r: u32 = 1u;
        let i = min(position.q_first + ty + TY * r, q_last);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } { const r: u32 = 2u;
        let i = min(position.q_first + ty + TY * r, q_last);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } 
    } { const r: u32 = 3u;
        let i = min(position.q_first + ty + TY * r, q_last);
        { const g: u32 = 0u;
            let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
            values.acc[g * ROWS + r] = vec4<f32>(0.0);
            if (d4 < DV4) {
                values.acc[g * ROWS + r] = resume_acc(out_head + i * params.out_row, d4);
            }
        } { const g: u32 = 1u;
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
    { const r: u32 = 0u;
        let i = position.q_first + ty + TY * r;
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } 
        }
    } { const r: u32 = 1u;
        let i = position.q_first + ty + TY * r;
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } 
        }
    } { const r: u32 = 2u;
        let i = position.q_first + ty + TY * r;
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } 
        }
    } { const r: u32 = 3u;
        let i = position.q_first + ty + TY * r;
        if (i <= q_last) {
            { const g: u32 = 0u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } { const g: u32 = 1u;
                let d4 = position.chunk * DV4_CHUNK + g * TX + tx;
                if (d4 < DV4) {
                    store_out(out_head + i * params.out_row, d4, values.acc[g * ROWS + r]);
                }
            } 
        }
    } 
}
