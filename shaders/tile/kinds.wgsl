// Purpose: what is known of a tile before its positions are looked at. Functions take it as a literal, so that a compiler makes one
// of them for each kind.

// Every position is open to every row of the workgroup, and none is of an appended key: nothing is tested.
const TILE_OPEN: u32 = 0u;
// Nothing is known.
const TILE_ANY: u32 = 1u;
// As TILE_ANY, but most tiles are TILE_OPEN: the code is to be short, so that it leaves theirs in the instruction cache.
const TILE_REST: u32 = 2u;

// `count`, in a form that no compiler can know to be constant where code is to be short: loops of so many trips stay rolled.
fn trips(count: u32, kind: u32) -> u32 {
    if (kind == TILE_REST) {
        // grid_x is at least 1.
        return count + min(params.grid_x, 1u) - 1u;
    }
    return count;
}
