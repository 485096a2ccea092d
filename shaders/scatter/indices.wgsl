// Purpose: each sequence's update begins at a row of its own.
// Bindings: 2 write_indices. Hooks defined: write_index.

// [batch].
@group(0) @binding(2) var<storage, read> write_indices: array<i32>;

fn write_index(batch: u32) -> i32 {
    return write_indices[params.write_indices_offset + batch];
}
