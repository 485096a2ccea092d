// Purpose: nobody wants the log-sum-exp. Hook of slot `lse`: defines store_lse.

fn store_lse(position: Position, q_idx: u32, value: f32) {
}
