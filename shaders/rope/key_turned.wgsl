// Purpose: key turned by a rotary embedding as it is loaded. Hook of slot `turn_key`: defines turned_key. Needs slots `key`
// and `key_position`, and rope/steps.wgsl.

// Channels 4 * d4 to 4 * d4 + 3 of the row at element `row`, turned to its position.
fn turned_key(position: Position, kv_idx: u32, row: u32, d4: u32) -> vec4<f32> {
    let own = load_key(row, d4);
    if (4u * d4 >= ROTARY_DIM) {
        return own;
    }
    var partners = own.yxwz;
    if (INTERLEAVED == 0u && ROTARY_DIM % 8u == 0u) {
        partners = load_key(row, partner_of(4u * d4) / 4u);
    } else if (INTERLEAVED == 0u) {
        // Half of ROTARY_DIM is no multiple of four, so partners lie across two vectors.
        for (var c = 0u; c < 4u; c++) {
            let partner = min(partner_of(4u * d4 + c), ROTARY_DIM - 1u);
            partners[c] = load_key(row, partner / 4u)[partner % 4u];
        }
    }
    return turned_channels(d4, own, partners, key_position(position, kv_idx));
}
