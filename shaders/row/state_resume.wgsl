// Purpose: an earlier dispatch has visited the keys before kv_begin. Hook of slot `state`: defines resume_row_max and
// resume_row_sum. A finished row is itself an attention state: row_max = lse, row_sum = 1, acc = out.
// Needs slot `lse` to be row/lse.wgsl and slot `acc` to be row/acc_resume.wgsl.

fn resume_row_max(position: Position, q_idx: u32) -> f32 {
    let before = load_lse(position, q_idx);
    return select(before, CLOSED, before < CLOSED);
}

fn resume_row_sum(row_max: f32) -> f32 {
    return select(1.0, 0.0, row_max == CLOSED);
}
