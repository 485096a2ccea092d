// Purpose: the driver leaves arithmetic where it stands between loads. Hook of slot `order`: defines next_step, what is added to the
// address of the next value channels: nothing.

fn next_step(step: u32, acc: ptr<function, array<vec4<f32>, ROWS * DV4_CHUNK>>, d: u32) -> u32 {
    return 0u;
}
