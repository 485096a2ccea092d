// Purpose: key as it lies in memory. Hook of slot `turn_key`: defines turned_key. Needs slot `key`.

fn turned_key(position: Position, kv_idx: u32, row: u32, d4: u32) -> vec4<f32> {
    return load_key(row, d4);
}
