// Purpose: an operand says which position a row of key has. Hook of slot `key_position`: defines key_position.
// Binding 20: key_position_ids, i32, [batch, seqlen], or [seqlen] with a batch stride of 0.

@group(0) @binding(20) var<storage, read> key_position_ids: array<i32>;

fn key_position(position: Position, kv_idx: u32) -> i32 {
    return key_position_ids[params.key_ids_offset + position.batch * params.key_ids_batch + kv_idx];
}
