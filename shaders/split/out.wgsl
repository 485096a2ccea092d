// Purpose: the only run of keys is the whole result. Hook of slot `part`: defines store_part and store_part_lse. Needs slots
// `out` and `lse`.

fn store_part(position: Position, run: u32, d4: u32, channels: vec4<f32>) {
    store_out(params.out_offset + position.batch * params.out_batch + position.head * params.out_head
        + (position.sequence.query_base + position.q_first) * params.out_row, d4, channels);
}

fn store_part_lse(position: Position, run: u32, value: f32) {
    store_lse(position, position.q_first, value);
}
