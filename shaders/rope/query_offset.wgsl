// Purpose: positions of query rows count up from an offset. Hook of slot `query_position`: defines query_position.

fn query_position(position: Position, q_idx: u32) -> i32 {
    return i32(q_idx) + params.rope_query_offset;
}
