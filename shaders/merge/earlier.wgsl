// Purpose: merging goes on from what an earlier dispatch left in out. Its lse lies apart from where this dispatch writes its
// own, since every invocation of a row reads it.
// Bindings: 5 earlier_lse. Hooks defined: earlier_lse_bits.

// [rows], the bits of f32: natural logarithms.
@group(0) @binding(5) var<storage, read> earlier_lse: array<u32>;

fn earlier_lse_bits(row: u32) -> u32 {
    return earlier_lse[params.earlier_lse_offset + row];
}
