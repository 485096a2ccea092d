const THREADS: u32 = 64u;
const TILE_Q: u32 = 1u;

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

// ---- row/lse_none.wgsl ----
// Purpose: nobody wants the log-sum-exp. Hook of slot `lse`: defines store_lse.

fn store_lse(position: Position, q_idx: u32, value: f32) {
}

// ---- row/state_fresh.wgsl ----
// Purpose: this dispatch is the first to visit these rows. Hook of slot `state`: defines resume_row_max and resume_row_sum.

fn resume_row_max(position: Position, q_idx: u32) -> f32 {
    return CLOSED;
}

fn resume_row_sum(row_max: f32) -> f32 {
    return 0.0;
}

// ---- mods/prob_mod_none.wgsl ----
// Purpose: the caller has no prob_mod. Hook of slot `prob_mod`: defines modify_prob.

fn modify_prob(prob: f32, position: Position, q_idx: u32, kv_idx: u32) -> f32 {
    return prob;
}

// ---- softmax.wgsl ----
// Purpose: second of three kernels: each row of scores becomes its weights, in place, and its log-sum-exp is handed out.
// Grid: one workgroup of THREADS invocations owns one row; an invocation owns every THREADS-th key of it.
// Bindings: 0 params, 6 scores; 5 lse where a hook declares it. Hooks: sequence, lse, state, prob_mod.
// Three sweeps (largest score; weights and their sum; division), each lane over its own keys, so one exponential a key.

// [batch, heads, seqlen_q, seqlen_k], f32: scores, then weights.
@group(0) @binding(6) var<storage, read_write> scores: array<f32>;

// One float is what one lane found in its keys: the largest score, then the sum of weights.
var<workgroup> wg_lane: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    let row = params.scores_offset + position.batch * params.scores_batch + position.head * params.scores_head
        + position.q_first * params.scores_row;

    let first_max = resume_row_max(position, position.q_first);
    var row_max = first_max;
    for (var j = lane; j < params.seqlen_k; j += THREADS) {
        row_max = max(row_max, scores[row + j]);
    }
    wg_lane[lane] = row_max;
    // wg_lane, written by all lanes, is halved by the lanes below `stride` until lane 0 holds the row's.
    workgroupBarrier();
    for (var stride = THREADS / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            wg_lane[lane] = max(wg_lane[lane], wg_lane[lane + stride]);
        }
        workgroupBarrier();
    }
    row_max = wg_lane[0];
    // All have read the maximum before the sums are written over it.
    workgroupBarrier();

    var row_sum = select(0.0, resume_row_sum(first_max) * exp_below(first_max - row_max), lane == 0u);
    for (var j = lane; j < params.seqlen_k; j += THREADS) {
        let weight = weight_of(scores[row + j], row_max);
        scores[row + j] = weight;
        row_sum += weight;
    }
    wg_lane[lane] = row_sum;
    // As above, for the sums.
    workgroupBarrier();
    for (var stride = THREADS / 2u; stride > 0u; stride /= 2u) {
        if (lane < stride) {
            wg_lane[lane] = wg_lane[lane] + wg_lane[lane + stride];
        }
        workgroupBarrier();
    }
    row_sum = sum_or_nan(wg_lane[0]);

    // Some open key has the largest score, hence weight 1; only with no open key is the sum 0. (With NaN it is NaN.)
    let empty = row_sum == 0.0;
    let factor = select(1.0 / row_sum, 0.0, empty);
    for (var j = lane; j < params.seqlen_k; j += THREADS) {
        // Only the zero of a closed position stays minus zero: the next kernel tells by it.
        let closed = bitcast<u32>(scores[row + j]) == CLOSED_WEIGHT_BITS;
        let prob = modify_prob(select(scores[row + j] * factor, 0.0, closed), position, position.q_first, j);
        let zero = select(0u, CLOSED_WEIGHT_BITS, closed);
        scores[row + j] = bitcast<f32>(select(bitcast<u32>(prob), zero, prob == 0.0));
    }
    if (lane == 0u && !is_behind_end(position)) {
        let value = select(log_sum_exp(row_max, row_sum), params.negative_infinity, empty);
        store_lse(position, position.q_first, value);
    }
}
