// Purpose: an operand says which position a row has.
// Bindings: 3 position_ids. Hooks defined: position_of.

// [batch, seqlen], or [seqlen] with params.ids_batch 0.
@group(0) @binding(3) var<storage, read> position_ids: array<i32>;

fn position_of(batch: u32, row: u32) -> i32 {
    return position_ids[params.ids_offset + batch * params.ids_batch + row];
}
