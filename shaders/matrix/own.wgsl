// Purpose: what an invocation of the matrix family does in its workgroup, the same for all tiles: found before the loop over these, out
// of which compilers take little. Needs position.wgsl.

// Where a subgroup's sums lie in wg_scores meanwhile.
struct Square {
    // Its first element, and that of the row of this lane, which is as long as all squares side by side.
    at: u32,
    row_at: u32,
    // How many vec4 such a row has, and which of the row's lanes this is.
    columns4: u32,
    tx: u32,
}

struct Own {
    // Its row of the tile, and which of the row's lanes it is.
    row: u32,
    tx: u32,
    // How many subgroups share rows, which of these its own is, and their first row.
    parts: u32,
    part: u32,
    first_row: u32,
    square: Square,
    // Key 0 of the head, that of its first key of a tile, and where that goes in wg_kv; values likewise.
    key_head: u32,
    key_row: u32,
    key_at: u32,
    value_head: u32,
    value_row: u32,
    value_at: u32,
    // Where its weights go in wg_weights.
    weights_at: u32,
    // What weights are multiplied by before they are rounded. They may be as large as dropout's scale.
    weight_scale: f32,
}

var<private> own: Own;

// Some compilers know the size of a subgroup, and not the number.
fn own_of(position: Position, subgroup: u32, lane: u32, lanes: u32) -> Own {
    var found: Own;
    found.row = lane / ROW_LANES;
    found.tx = lane % ROW_LANES;
    found.parts = THREADS / lanes / Q_SQUARES;
    found.part = subgroup / Q_SQUARES;
    found.first_row = subgroup % Q_SQUARES * MATRIX;
    found.square = Square(found.first_row * S_STRIDE + found.part * MATRIX, found.row * S_STRIDE, found.parts * MATRIX4,
        found.tx);
    found.key_head = params.key_offset + position.batch * params.key_batch + position.kv_head * params.key_head
        + position.sequence.key_base * params.key_row;
    found.key_row = found.key_head + lane / D_LANES * params.key_row;
    found.key_at = lane / D_LANES * D_STRIDE + 4u * (lane % D_LANES);
    found.value_head = params.value_offset + position.batch * params.value_batch + position.kv_head * params.value_head
        + position.sequence.key_base * params.value_row;
    found.value_row = found.value_head + 4u * (lane / V_LANES) * params.value_row;
    found.value_at = 4u * (lane % V_LANES) * V_STRIDE + 4u * (lane / V_LANES);
    found.weights_at = found.row * P_STRIDE + 4u * found.tx;
    found.weight_scale = WEIGHT_SCALE / clamp(params.dropout_scale, 1.0, 1e9);
    return found;
}
