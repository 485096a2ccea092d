// Purpose: what each run of keys makes of a row, for join.wgsl. Hook of slot `part`: defines store_part and store_part_lse.
// Bindings: 21 parts, f32, [runs, batch, heads, seqlen_q, 4 * DV4], contiguous, its strides those of scores in params; 22
// part_lse, f32, [runs, batch, heads, seqlen_q], natural logarithm, -inf for a run with no open key.

@group(0) @binding(21) var<storage, read_write> parts: array<vec4<f32>>;
@group(0) @binding(22) var<storage, read_write> part_lse: array<f32>;

fn store_part(position: Position, run: u32, d4: u32, channels: vec4<f32>) {
    let row = run * params.part_stride + position.batch * params.scores_batch + position.head * params.scores_head
        + (position.sequence.query_base + position.q_first) * params.scores_row;
    parts[(row >> 2u) + d4] = channels;
}

fn store_part_lse(position: Position, run: u32, value: f32) {
    part_lse[run * params.part_lse_stride + position.batch * params.lse_batch + position.head * params.lse_head
        + position.sequence.query_base + position.q_first] = value;
}
