//! What a compiled kernel's loop is made of, read from RADV's listing of machine code.

use std::collections::HashMap;

/// What is counted, in machine instructions. An instruction that holds two vector operations is one instruction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mix {
    /// All that are issued.
    pub instructions: u32,
    /// Vector operations, multiply-adds among them.
    pub vector: u32,
    /// Fused multiply-adds and dot products; in a kernel that multiplies matrices, products of these alone.
    pub multiply_adds: u32,
    /// Loads from workgroup memory.
    pub lds_loads: u32,
    /// Those of them whose elements are of 4 bytes.
    pub narrow_lds_loads: u32,
}

/// The mix of the main loop: of the loops that are in no other, and have at least half of the multiply-adds of the one with most,
/// the one in which they are the largest share. A kernel that visits tiles without a test in one loop, and those that need it in
/// another, spends its time in the first. Where no loop has any, as in a kernel that the compiler unrolled whole, the mix of
/// everything.
pub fn main_loop(listing: &str) -> Mix {
    let blocks = blocks(listing);
    let products: fn(&str) -> bool = match listing.contains("v_wmma_") {
        true => is_matrix_product,
        false => is_multiply_add,
    };
    let count = |blocks: &[Block<'_>]| {
        let mut mix = Mix::default();
        blocks
            .iter()
            .flat_map(|block| &block.instructions)
            .for_each(|one| mix.add(one, products));
        mix
    };
    let loops = outer_loops(&blocks);
    let mixes: Vec<_> = loops
        .iter()
        .map(|&(first, last)| count(&blocks[first..=last]))
        .collect();
    let most = mixes.iter().map(|mix| mix.multiply_adds).max().unwrap_or(0);
    let share = |mix: &Mix| f64::from(mix.multiply_adds) / f64::from(mix.instructions);
    mixes
        .into_iter()
        .filter(|mix| mix.multiply_adds > 0 && 2 * mix.multiply_adds >= most)
        .max_by(|one, other| share(one).total_cmp(&share(other)))
        .unwrap_or_else(|| count(&blocks))
}

impl Mix {
    /// `products` says what counts as a multiply-add.
    fn add(&mut self, instruction: &str, products: fn(&str) -> bool) {
        let operations: Vec<&str> = instruction
            .split_whitespace()
            .filter(|word| word.starts_with("v_dual_"))
            .collect();
        self.instructions += 1;
        if operations.is_empty() {
            self.add_operation(instruction.split_whitespace().next().unwrap_or_default(), products);
        } else {
            operations
                .into_iter()
                .for_each(|operation| self.add_operation(operation, products));
        }
    }

    fn add_operation(&mut self, name: &str, products: fn(&str) -> bool) {
        if let Some(operation) = name.strip_prefix("v_") {
            self.vector += 1;
            self.multiply_adds += u32::from(products(operation));
        } else if let Some(load) = name.strip_prefix("ds_load_").or(name.strip_prefix("ds_read")) {
            self.lds_loads += 1;
            // ds_load_b32, ds_load_2addr_b32, ds_load_2addr_stride64_b32, ds_read_b32, ds_read2_b32, ds_read2st64_b32.
            self.narrow_lds_loads += u32::from(load.ends_with("b32"));
        }
    }
}

fn is_multiply_add(operation: &str) -> bool {
    const NAMES: [&str; 8] = ["fma_", "fmac_", "fmaak_", "fmamk_", "mac_f", "mad_f", "mad_mix", "dot2"];
    let operation = ["pk_", "dual_"]
        .iter()
        .find_map(|prefix| operation.strip_prefix(prefix))
        .unwrap_or(operation);
    NAMES.iter().any(|name| operation.starts_with(name))
}

fn is_matrix_product(operation: &str) -> bool {
    operation.starts_with("wmma_")
}

/// Instructions that only the last of them branches from.
struct Block<'a> {
    name: &'a str,
    instructions: Vec<&'a str>,
}

fn blocks(listing: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    for line in listing.lines() {
        let code = line.split(';').next().unwrap_or_default().trim();
        if let Some(name) = code.strip_suffix(':').filter(|name| name.starts_with("BB")) {
            blocks.push(Block {
                name,
                instructions: Vec::new(),
            });
        } else if let (Some(block), true) = (
            blocks.last_mut(),
            code.starts_with(|first: char| first.is_ascii_lowercase()),
        ) {
            block.instructions.push(code);
        }
    }
    blocks
}

/// First and last block of each loop that is in no other: whatever branches back closes one.
fn outer_loops(blocks: &[Block<'_>]) -> Vec<(usize, usize)> {
    let places: HashMap<&str, usize> = blocks.iter().enumerate().map(|(at, block)| (block.name, at)).collect();
    let mut loops = Vec::new();
    for (last, block) in blocks.iter().enumerate() {
        for instruction in &block.instructions {
            let mut words = instruction.split_whitespace();
            let branches = words
                .next()
                .is_some_and(|name| name.starts_with("s_branch") || name.starts_with("s_cbranch"));
            let target = words.next_back().and_then(|target| places.get(target));
            loops.extend(
                target
                    .filter(|&&first| branches && first <= last)
                    .map(|&first| (first, last)),
            );
        }
    }
    let within =
        |inner: &(usize, usize), outer: &(usize, usize)| inner != outer && outer.0 <= inner.0 && inner.1 <= outer.1;
    loops
        .iter()
        .filter(|one| !loops.iter().any(|other| within(one, other)))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
BB0:
\ts_mov_b32 s0, 0                                             ; be800080
\tv_fma_f32 v0, v1, v2, v3                                    ; d6130000 040e0501
BB1:
\tds_load_b128 v[0:3], v4 offset:16                           ; dbfc0010 00000004
\tds_load_b32 v4, v5                                          ; d8d80000 04000005
\tds_load_2addr_b32 v[4:5], v5 offset1:1                      ; d8dc0100 04000005
BB2:
\tv_dual_fmac_f32 v0, v1, v2 :: v_dual_mul_f32 v3, v4, v5     ; c8060501 00030905
\tv_pk_fma_f16 v0, v1, v2, v3                                 ; cc0e4000 1c0e0501
\tv_mad_u32_u24 v0, v1, v2, v3                                ; d60b0000 040e0501
\ts_cbranch_scc1 BB2                                          ; bfa2fff7
BB3:
\ts_waitcnt lgkmcnt(0)                                        ; bf89fc07
\ts_cbranch_execnz BB1                                        ; bfa6fff0
BB4:
\ts_endpgm                                                    ; bfb00000
";

    #[test]
    fn the_outer_loop_is_counted() {
        let expected = Mix {
            instructions: 9,
            vector: 4,
            multiply_adds: 2,
            lds_loads: 3,
            narrow_lds_loads: 2,
        };
        assert_eq!(main_loop(LISTING), expected);
    }

    /// Beside products of matrices nothing else counts as one.
    #[test]
    fn products_of_matrices_are_counted_alone() {
        let listing = LISTING.replace("v_pk_fma_f16 v0", "v_wmma_f32_16x16x16_f16 v[0:7]");
        let expected = Mix {
            multiply_adds: 1,
            ..main_loop(LISTING)
        };
        assert_eq!(main_loop(&listing), expected);
    }

    /// The loop with the larger share, though it has fewer; but not one that has next to none.
    #[test]
    fn of_two_loops_the_denser_is_counted() {
        let of = |name: &str, adds: usize, others: usize| {
            let adds = "\tv_fma_f32 v0, v1, v2, v3\n".repeat(adds);
            let others = "\tv_mov_b32 v0, v1\n".repeat(others);
            format!("{name}:\n{adds}{others}\ts_cbranch_scc1 {name}\n")
        };
        for (listing, instructions) in [
            (of("BB0", 10, 2) + &of("BB1", 12, 9), 13),
            (of("BB0", 12, 9) + &of("BB1", 10, 2), 13),
            (of("BB0", 5, 0) + &of("BB1", 12, 9), 22),
        ] {
            assert_eq!(main_loop(&listing).instructions, instructions, "{listing}");
        }
    }

    #[test]
    fn without_a_loop_everything_is_counted() {
        let straight = LISTING.replace("s_cbranch", "s_other");
        assert_eq!(main_loop(&straight).instructions, 12);
        assert_eq!(main_loop(&straight).multiply_adds, 3);
        assert_eq!(main_loop(""), Mix::default());
    }

    #[test]
    fn old_names_are_known() {
        let listing = "BB0:\n v_mac_f32_e32 v0, v1, v2\n ds_read2_b32 v[0:1], v2\n ds_read_b128 v[0:3], v4\n ds_write_b32 v0, v1\n";
        let mix = main_loop(listing);
        assert_eq!((mix.multiply_adds, mix.lds_loads, mix.narrow_lds_loads), (1, 2, 1));
    }
}
