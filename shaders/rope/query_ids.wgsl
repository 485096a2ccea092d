// Purpose: an operand says which position a row of query has. Hook of slot `query_position`: defines query_position.
// Binding 19: query_position_ids, i32, [batch, seqlen], or [seqlen] with a batch stride of 0.

@group(0) @binding(19) var<storage, read> query_position_ids: array<i32>;

fn query_position(position: Position, q_idx: u32) -> i32 {
    return query_position_ids[params.query_ids_offset + position.batch * params.query_ids_batch + q_idx];
}
