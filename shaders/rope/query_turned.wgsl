// Purpose: query turned by a rotary embedding as it is loaded. Hook of slot `turn_query`: defines turned_query. Needs slots `query`
// and `query_position`, and rope/steps.wgsl.

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`, turned to its position.
fn turned_query(position: Position, q_idx: u32, row: u32, d4: u32) -> vec4<f32> {
    let own = load_query(row, d4);
    if (4u * d4 >= ROTARY_DIM) {
        return own;
    }
    var partners = own.yxwz;
    if (INTERLEAVED == 0u && ROTARY_DIM % 8u == 0u) {
        partners = load_query(row, partner_of(4u * d4) / 4u);
    } else if (INTERLEAVED == 0u) {
        // Half of ROTARY_DIM is no multiple of four, so partners lie across two vectors.
        for (var c = 0u; c < 4u; c++) {
            let partner = min(partner_of(4u * d4 + c), ROTARY_DIM - 1u);
            partners[c] = load_query(row, partner / 4u)[partner % 4u];
        }
    }
    return turned_channels(d4, own, partners, query_position(position, q_idx));
}
