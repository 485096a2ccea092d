// Purpose: the accumulator goes on from what an earlier dispatch left in out. Hook of slot `acc`: defines resume_acc.

fn resume_acc(row: u32, d4: u32) -> vec4<f32> {
    return load_out(row, d4);
}
