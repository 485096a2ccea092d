// Purpose: no key is closed, so 0 * inf in the products is what IEEE 754 says, or slot `add` guards each product: one round over the
// tiles is all. Hook of slot `rounds`: defines main, value_part, round_weight, round_kept and what rows begin with. Needs
// broadcast.wgsl.

fn value_part(channels: vec4<f32>) -> vec4<f32> {
    return channels;
}

fn round_weight(score: f32, row_max: f32) -> f32 {
    return weight_of(score, row_max);
}

fn round_kept(weights: vec4<f32>, kept: vec4<f32>) -> vec4<f32> {
    return kept;
}

fn begin_row_max(row_max: f32, before: f32) -> f32 {
    return before;
}

fn begin_rescale(row_max: f32, before: f32) -> f32 {
    return 1.0;
}

fn begin_channels(count: vec4<f32>, resumed: vec4<f32>, rescale: f32) -> vec4<f32> {
    return resumed;
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    if (is_behind_end(position)) {
        return;
    }
    let own = own_of(position, lane);

    // [r * D4 + d]: channels 4 d to 4 d + 3 of row q_first + LANES * r.
    var query_rows: array<vec4<f32>, ROWS * D4>;
    // [r * DV4_CHUNK + d], likewise.
    var acc: array<vec4<f32>, ROWS * DV4_CHUNK>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    load_rows(position, own, &query_rows);
    begin_rows(position, own, &acc, &row_max, &row_sum);
    visit_tiles(position, own, &query_rows, &acc, &row_max, &row_sum);
    store_rows(position, own, &acc, &row_max, &row_sum);
}
