// Purpose: query as it lies in memory. Hook of slot `turn_query`: defines turned_query. Needs slot `query`.

fn turned_query(position: Position, q_idx: u32, row: u32, d4: u32) -> vec4<f32> {
    return load_query(row, d4);
}
