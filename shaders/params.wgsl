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
