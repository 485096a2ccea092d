// Purpose: every sequence is as long as the shape says. Hook of slot `sequence`: defines sequence_of.

fn sequence_of(batch: u32) -> Sequence {
    return Sequence(0u, 0u, params.q_end, params.kv_end, params.causal_offset, params.window_offset, params.alibi_offset);
}
