// Purpose: each row begins with its head's attention sink, a score without a value. Hook of slot `state`: defines
// resume_row_max and resume_row_sum.
// Binding 10: sinks, f32, [heads]; -inf is none.

@group(0) @binding(10) var<storage, read> sinks: array<f32>;

fn resume_row_max(position: Position, q_idx: u32) -> f32 {
    let sink = sinks[params.sinks_offset + position.head];
    return select(open_score(sink), CLOSED, sink < CLOSED);
}

fn resume_row_sum(row_max: f32) -> f32 {
    return select(1.0, 0.0, row_max == CLOSED);
}
