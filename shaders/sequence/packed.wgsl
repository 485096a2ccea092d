// Purpose: sequences of different lengths, one after another in memory. Hook of slot `sequence`: defines sequence_of.
// Binding 12: cu_seqlens_q, u32, [batch + 1]; binding 13: cu_seqlens_k, u32, [batch + 1]: where each sequence begins, and at
// the end where the last one ends. Whatever they hold, no row beyond tokens_q and tokens_k is reached.

@group(0) @binding(12) var<storage, read> cu_seqlens_q: array<u32>;
@group(0) @binding(13) var<storage, read> cu_seqlens_k: array<u32>;

fn sequence_of(batch: u32) -> Sequence {
    let query_base = min(cu_seqlens_q[params.cu_q_offset + batch], params.tokens_q);
    let query_end = clamp(cu_seqlens_q[params.cu_q_offset + batch + 1u], query_base, params.tokens_q);
    let key_base = min(cu_seqlens_k[params.cu_k_offset + batch], params.tokens_k);
    let key_end = clamp(cu_seqlens_k[params.cu_k_offset + batch + 1u], key_base, params.tokens_k);
    let rows = min(query_end - query_base, params.seqlen_q);
    let keys = min(key_end - key_base, params.seqlen_k);
    let lower_right = i32(keys) - i32(rows);
    return Sequence(query_base, key_base, min(params.q_end, rows), min(params.kv_end, keys),
        select(0, lower_right, CAUSAL_LOWER_RIGHT == 1u), select(0, lower_right, WINDOW_LOWER_RIGHT == 1u), lower_right);
}
