// Purpose: each sequence has a number of keys of its own. Hook of slot `sequence`: defines sequence_of.
// Binding 9: lengths, u32, [batch]; more than seqlen_k counts as seqlen_k.

@group(0) @binding(9) var<storage, read> lengths: array<u32>;

fn sequence_of(batch: u32) -> Sequence {
    let keys = min(lengths[params.padding_offset + batch], params.seqlen_k);
    let lower_right = i32(keys) - i32(params.seqlen_q);
    return Sequence(0u, 0u, params.q_end, min(params.kv_end, keys), select(0, lower_right, CAUSAL_LOWER_RIGHT == 1u),
        select(0, lower_right, WINDOW_LOWER_RIGHT == 1u), lower_right);
}
