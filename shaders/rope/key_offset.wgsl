// Purpose: positions of key rows count up from an offset. Hook of slot `key_position`: defines key_position.

fn key_position(position: Position, kv_idx: u32) -> i32 {
    return i32(kv_idx) + params.rope_key_offset;
}
