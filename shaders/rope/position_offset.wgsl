// Purpose: rows have positions in a row.
// Hooks defined: position_of.

fn position_of(batch: u32, row: u32) -> i32 {
    return params.position + i32(row);
}
