// Purpose: which tile of the problem a workgroup owns. Needs slot `sequence`.
// The grid is one line of workgroups folded at grid_x, so that no dimension passes 65,535. Neighbours in the line share
// a query tile's keys: chunk of value channels fastest, then query tile, then head, then batch.

// One sequence, as far as this dispatch sees it.
struct Sequence {
    // Rows of query and of key and value before its own: 0 unless sequences are packed.
    query_base: u32,
    key_base: u32,
    // Behind its last query row and its last key.
    q_end: u32,
    kv_end: u32,
    // What is added to a query's index to find its own position among the keys, by causal rule, window and ALiBi.
    causal_offset: i32,
    window_offset: i32,
    alibi_offset: i32,
}

struct Position {
    batch: u32,
    head: u32,
    kv_head: u32,
    // First query row of the tile, and the last one that exists (of no meaning in a tile behind the sequence's end).
    q_first: u32,
    q_last: u32,
    // Which chunk of value channels.
    chunk: u32,
    sequence: Sequence,
}

fn workgroup_number(id: vec3<u32>) -> u32 {
    return id.y * params.grid_x + id.x;
}

fn position_of(number: u32) -> Position {
    let tiles = (params.q_end - params.q_begin + TILE_Q - 1u) / TILE_Q;
    let tile = number / params.chunk_count;
    let head_number = tile / tiles;
    var position: Position;
    position.chunk = params.chunk_begin + number % params.chunk_count;
    position.q_first = params.q_begin + (tile % tiles) * TILE_Q;
    position.head = params.head_begin + head_number % params.head_count;
    position.batch = params.batch_begin + head_number / params.head_count;
    position.kv_head = position.head / params.group_size;
    position.sequence = sequence_of(position.batch);
    position.q_last = min(position.q_first + TILE_Q, position.sequence.q_end) - 1u;
    return position;
}

// Whether the tile lies behind the end of its sequence.
fn is_behind_end(position: Position) -> bool {
    return position.q_first >= position.sequence.q_end;
}
