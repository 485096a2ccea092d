// Purpose: this dispatch is the first to visit these rows. Hook of slot `state`: defines resume_row_max and resume_row_sum.

fn resume_row_max(position: Position, q_idx: u32) -> f32 {
    return CLOSED;
}

fn resume_row_sum(row_max: f32) -> f32 {
    return 0.0;
}
