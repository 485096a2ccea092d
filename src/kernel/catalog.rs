//! The kernels that there can be, in as many combinations as wanted: for tests and for other compilers.
//!
//! A kernel's text depends on a few choices that do not depend on one another. Their product grows with every
//! hook, while two files that do not fit together show it wherever they meet: so [`kernels`] lists few kernels that together
//! hold every combination of the settings of any two axes, or three, or as many as one asks for.
//!
//! [`planned`], [`tuned`] and [`tuned_matrices`] list kernels as plans take them, with names.

mod planned;

use std::collections::{BTreeSet, HashSet};
use std::sync::LazyLock;

use crate::caps::MatrixShape;
use crate::kernel::{Emit, KernelConfig, Skeleton, Variant, operations};
use crate::plan::tuning::{TILES, Tile, UNIFORM};
use crate::problem::{
    Algorithm, AttentionDescriptor, AttentionRope, AttentionShape, BlockMaskShape, Broadcast, CausalAlignment, DType,
    Dropout, DropoutKeep, KeyPadding, Outputs, Packed, Problem, ScoreStage, Window,
};
use crate::rope::{RopeFrequencies, RopePairing, RopePositions};

pub use planned::{Named, planned, tuned, tuned_matrices};

/// All that a kernel's text depends on besides its skeleton.
#[derive(Clone, Debug)]
struct Choice {
    descriptor: AttentionDescriptor<'static>,
    tile: &'static Tile,
    broadcast_tile: &'static Tile,
    split_tile: &'static Tile,
    matrix_tile: &'static Tile,
    variant: Variant,
}

/// One thing to choose.
struct Axis {
    /// How many ways there are. The first is the plainest: what does without it.
    settings: usize,
    /// Chooses one.
    set: fn(&mut Choice, usize),
}

const fn axis(settings: usize, set: fn(&mut Choice, usize)) -> Axis {
    Axis { settings, set }
}

/// Tiles of the broadcast family: each number of lanes, one row and several.
const BROADCAST_TILES: [Tile; TILES.len()] = [
    Tile::broadcast(8, 1),
    Tile::broadcast(4, 1),
    Tile::broadcast(16, 1),
    Tile::broadcast(8, 2),
];

/// Tiles of the split family, likewise, and one whose invocations share keys.
const SPLIT_TILES: [Tile; TILES.len()] = [
    Tile::split(8, 1, 2),
    Tile::split(4, 1, 4),
    Tile::split_shared(3),
    Tile::split(16, 2, 1),
];

/// Tiles of the matrix family: each shape of matrices, one invocation a row and several, query in workgroup memory and, where they
/// do, in registers.
const MATRIX_TILES: [Tile; TILES.len()] = [
    Tile::matrix(MatrixShape::F16Size16, 2, 4, 2),
    Tile {
        query_resident: false,
        ..Tile::matrix(MatrixShape::F16Size8, 1, 4, 2)
    },
    Tile::matrix(MatrixShape::F32Size8, 4, 2, 4),
    Tile {
        query_resident: false,
        ..Tile::matrix(MatrixShape::F16Size16, 4, 2, 4)
    },
];

/// Sizes of heads of query and key, and of value: multiples of four, odd, least, and more than a register tile holds.
const HEAD_DIMS: [(u32, u32); 4] = [(64, 64), (1, 2), (128, 130), (130, 131)];

/// The choices. A new hook joins by a line.
const AXES: &[Axis] = &[
    axis(TILES.len(), |choice, i| {
        (choice.tile, choice.broadcast_tile, choice.split_tile) = (&TILES[i], &BROADCAST_TILES[i], &SPLIT_TILES[i]);
        choice.matrix_tile = &MATRIX_TILES[i];
    }),
    axis(HEAD_DIMS.len(), |choice, i| {
        (choice.descriptor.shape.head_dim, choice.descriptor.shape.head_dim_v) = HEAD_DIMS[i];
    }),
    axis(2, |choice, i| {
        choice.descriptor.causal = [None, Some(CausalAlignment::LowerRight)][i];
    }),
    axis(2, |choice, i| {
        choice.descriptor.mask = [None, Some(Broadcast::new(FULL))][i]
    }),
    axis(4, |choice, i| {
        choice.descriptor.bias = (i > 0).then_some(Broadcast::new(FULL));
        choice.descriptor.dtypes.bias = DType::ALL[i.saturating_sub(1)];
    }),
    // Where a sequence's keys end, or which are closed.
    axis(5, |choice, i| {
        let [_, _, rows, keys] = FULL;
        let (tokens_q, tokens_k) = (2 * rows, 2 * keys);
        choice.descriptor.packed = (i == 4).then_some(Packed { tokens_q, tokens_k });
        choice.descriptor.key_padding = [
            None,
            Some(KeyPadding::Boolean),
            Some(KeyPadding::Additive),
            Some(KeyPadding::Lengths),
            None,
        ][i];
    }),
    axis(2, |choice, i| {
        choice.descriptor.window = (i > 0).then_some(Window {
            left: Some(1),
            right: Some(0),
            alignment: CausalAlignment::LowerRight,
        });
    }),
    // Blocks of whole tiles, and smaller ones.
    axis(3, |choice, i| {
        let block = [0, 128, 5][i];
        choice.descriptor.block_mask = (i > 0).then_some(BlockMaskShape {
            batch: 1,
            heads: 1,
            block_q: block,
            block_kv: block,
        });
    }),
    axis(2, |choice, i| choice.descriptor.softcap = (i > 0).then_some(1.0)),
    axis(2, |choice, i| choice.descriptor.alibi_slopes = i > 0),
    axis(2, |choice, i| choice.descriptor.sinks = i > 0),
    axis(3, |choice, i| {
        let keep = [DropoutKeep::Given, DropoutKeep::Philox { seed: 1, offset: 0 }];
        choice.descriptor.dropout = (i > 0).then(|| Dropout {
            probability: 0.5,
            keep: keep[i - 1],
        });
    }),
    axis(2, |choice, i| {
        choice.descriptor.mods.score_mod = (i > 0).then_some(
            "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score; }",
        );
    }),
    axis(2, |choice, i| {
        choice.descriptor.mods.mask_mod =
            (i > 0).then_some("fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool { return true; }");
    }),
    axis(2, |choice, i| {
        choice.descriptor.mods.prob_mod = (i > 0).then_some(
            "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return prob; }",
        );
    }),
    axis(1 + ROPES.len(), |choice, i| {
        choice.descriptor.rope = FREQUENCIES.as_ref().filter(|_| i > 0).map(|frequencies| {
            let (pairing, query, key) = ROPES[i - 1];
            AttentionRope {
                frequencies,
                pairing,
                query,
                key,
            }
        });
    }),
    axis(DTYPES.len(), |choice, i| {
        (choice.descriptor.dtypes.query, choice.variant.shader_f16) = DTYPES[i];
    }),
    axis(3, |choice, i| choice.descriptor.dtypes.key = DType::ALL[i]),
    axis(3, |choice, i| choice.descriptor.dtypes.value = DType::ALL[i]),
    axis(3, |choice, i| choice.descriptor.dtypes.out = DType::ALL[i]),
    axis(5, |choice, i| {
        choice.variant.emit = [
            Emit::Softmax,
            Emit::Weights,
            Emit::Stage(ScoreStage::Scaled),
            Emit::Stage(ScoreStage::Capped),
            Emit::Stage(ScoreStage::Biased),
        ][i];
    }),
    // What goes on from an earlier dispatch has an lse to go on from.
    axis(3, |choice, i| {
        (choice.variant.lse, choice.variant.resume) = (i > 0, i > 1)
    }),
    axis(2, |choice, i| choice.variant.shuffles = i > 0),
    axis(2, |choice, i| choice.variant.open_apart = i > 0),
    axis(2, |choice, i| choice.variant.in_order = i > 0),
    axis(2, |choice, i| choice.variant.rows_in_loops = i > 0),
    axis(2, |choice, i| choice.variant.parts = i > 0),
    // One by one, by vectors, or by words of 64 bits, which all operands are loaded by that can be.
    axis(3, |choice, i| {
        (choice.variant.query_vec4, choice.variant.query_vec8) = (i > 0, i > 1);
        choice.variant.wide |= i > 1;
    }),
    axis(3, |choice, i| {
        (choice.variant.key_vec4, choice.variant.key_vec8) = (i > 0, i > 1);
        choice.variant.wide |= i > 1;
    }),
    axis(3, |choice, i| {
        (choice.variant.value_vec4, choice.variant.value_vec8) = (i > 0, i > 1);
        choice.variant.wide |= i > 1;
    }),
    axis(3, |choice, i| {
        choice.variant.out_vec4 = i > 0;
        choice.variant.wide |= i > 1;
    }),
];

/// Storage types of query, and whether shaders may use `f16`.
const DTYPES: [(DType, bool); 4] = [
    (DType::F32, false),
    (DType::F16, false),
    (DType::F16, true),
    (DType::Bf16, true),
];

/// Pairings, and where positions come from.
const ROPES: [(RopePairing, Option<RopePositions>, Option<RopePositions>); 3] = [
    (
        RopePairing::HalfSplit,
        Some(RopePositions::Offset(1)),
        Some(RopePositions::Ids),
    ),
    (
        RopePairing::Interleaved,
        Some(RopePositions::SharedIds),
        Some(RopePositions::Offset(0)),
    ),
    (RopePairing::HalfSplit, None, Some(RopePositions::Ids)),
];

/// Of two channels.
static FREQUENCIES: LazyLock<Option<RopeFrequencies>> =
    LazyLock::new(|| RopeFrequencies::from_inv_freq(vec![1.0], 1.0).ok());

/// Batch, heads, query rows and keys. The text does not depend on them.
const FULL: [u32; 4] = [1, 2, 3, 5];

/// Kernels of every skeleton that together hold each possible combination of the settings of any `strength` choices, and each
/// setting with all else plain.
///
/// 1 is every shader file, tile and head size, once with each skeleton that it goes with; 2 is every pair of them. From the
/// number of choices on it is all kernels, which are very many. The same call gives the same list.
///
/// ```
/// use wgpu_attention::kernel::catalog;
/// use wgpu_attention::kernel::source::{Dialect, Unroll, compose};
///
/// for kernel in catalog::kernels(1).iter().filter(|kernel| kernel.is_in(Dialect::Web)) {
///     let text = compose(kernel, Unroll::Expanded, Dialect::Web)?;
///     assert!(text.contains("@compute"));
/// }
/// # Ok::<(), String>(())
/// ```
pub fn kernels(strength: usize) -> Vec<KernelConfig> {
    let mut seen = HashSet::new();
    let mut kernels = Vec::new();
    for skeleton in Skeleton::ALL {
        let rows = cover(strength, &|row| kernel(skeleton, row).is_some());
        for row in alone().into_iter().chain(rows) {
            let Some(kernel) = kernel(skeleton, &row) else { continue };
            if seen.insert(kernel.clone()) {
                kernels.push(kernel);
            }
        }
    }
    kernels.extend(operations::all());
    kernels
}

/// Every setting with all else plain: some files are only for kernels without much else.
fn alone() -> Vec<Vec<usize>> {
    let settings = (0..AXES.len()).flat_map(|axis| (0..AXES[axis].settings).map(move |setting| (axis, setting)));
    let row = |(axis, setting)| {
        let mut row = vec![0; AXES.len()];
        row[axis] = setting;
        row
    };
    settings.map(row).collect()
}

/// The kernel of a setting for each axis; `None` where no problem is like that.
fn kernel(skeleton: Skeleton, row: &[usize]) -> Option<KernelConfig> {
    let [batch, heads, seqlen_q, seqlen_k] = FULL;
    let mut choice = Choice {
        descriptor: AttentionDescriptor {
            shape: AttentionShape::new(batch, heads, seqlen_q, seqlen_k, 1),
            algorithm: match skeleton {
                Skeleton::Fused | Skeleton::Broadcast | Skeleton::Uniform | Skeleton::Split | Skeleton::Matrix => {
                    Algorithm::Fused
                }
                Skeleton::Scores | Skeleton::Softmax | Skeleton::WeightedValues => Algorithm::ThreeKernels,
                _ => Algorithm::Auto,
            },
            outputs: Outputs::default(),
            ..Default::default()
        },
        tile: &TILES[0],
        broadcast_tile: &BROADCAST_TILES[0],
        split_tile: &SPLIT_TILES[0],
        matrix_tile: &MATRIX_TILES[0],
        variant: Variant::default(),
    };
    for (axis, &setting) in AXES.iter().zip(row) {
        (axis.set)(&mut choice, setting);
    }
    if skeleton == Skeleton::TileLists && choice.descriptor.block_mask.is_none() {
        return None;
    }
    if matches!(skeleton, Skeleton::Split | Skeleton::Join) && choice.variant.resume {
        return None;
    }
    let problem = Problem::new(&choice.descriptor).ok()?;
    let tile = match skeleton {
        Skeleton::Broadcast => choice.broadcast_tile,
        Skeleton::Uniform => &UNIFORM,
        Skeleton::Split => choice.split_tile,
        Skeleton::Matrix => choice.matrix_tile,
        _ => choice.tile,
    };
    Some(KernelConfig::attention(skeleton, &problem, tile, choice.variant))
}

/// Settings of some axes, in ascending order of the axes: (axis, setting).
type Combination = Vec<(usize, usize)>;

/// Rows of a setting for each axis, such that each valid combination of `strength` settings is in a row. Greedy: each row
/// begins with a combination that is still missing, and every other axis takes the setting that meets most of the missing.
fn cover(strength: usize, valid: &dyn Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    let strength = strength.clamp(1, AXES.len());
    let mut missing = BTreeSet::new();
    let axes: Vec<usize> = (0..AXES.len()).collect();
    for_each_subset(&axes, strength, &mut |subset| missing.extend(combinations(subset)));
    let mut rows = Vec::new();
    while let Some(first) = missing.pop_first() {
        let mut row = vec![0; AXES.len()];
        for &(axis, setting) in &first {
            row[axis] = setting;
        }
        if !valid(&row) {
            continue;
        }
        let mut fixed: Vec<usize> = first.iter().map(|&(axis, _)| axis).collect();
        for axis in axes
            .iter()
            .copied()
            .filter(|axis| !first.iter().any(|(one, _)| one == axis))
        {
            let mut best = (0, 0);
            for setting in 0..AXES[axis].settings {
                row[axis] = setting;
                let met = met(&row, &fixed, axis, strength, &missing);
                if met > best.0 && valid(&row) {
                    best = (met, setting);
                }
            }
            row[axis] = best.1;
            fixed.push(axis);
        }
        for_each_subset(&axes, strength, &mut |subset| {
            missing.remove(&combination(&row, subset));
        });
        rows.push(row);
    }
    rows
}

/// How many of the missing combinations hold the setting of `axis` and otherwise only settings of the fixed axes.
fn met(row: &[usize], fixed: &[usize], axis: usize, strength: usize, missing: &BTreeSet<Combination>) -> usize {
    let mut met = 0;
    for_each_subset(fixed, strength - 1, &mut |subset| {
        let with_axis: Vec<usize> = subset.iter().copied().chain([axis]).collect();
        met += usize::from(missing.contains(&combination(row, &with_axis)));
    });
    met
}

/// The settings that a row has for some axes.
fn combination(row: &[usize], axes: &[usize]) -> Combination {
    let mut combination: Vec<_> = axes.iter().map(|&axis| (axis, row[axis])).collect();
    combination.sort_unstable();
    combination
}

/// All combinations of the settings of some axes.
fn combinations(axes: &[usize]) -> Vec<Combination> {
    axes.iter().fold(vec![Vec::new()], |shorter, &axis| {
        let longer = shorter.iter().flat_map(|before| {
            (0..AXES[axis].settings).map(move |setting| before.iter().copied().chain([(axis, setting)]).collect())
        });
        longer.collect()
    })
}

/// Calls with each subset of this size, in the order of the whole.
fn for_each_subset(whole: &[usize], size: usize, call: &mut dyn FnMut(&[usize])) {
    fn extend(chosen: &mut Vec<usize>, rest: &[usize], size: usize, call: &mut dyn FnMut(&[usize])) {
        if chosen.len() == size {
            return call(chosen);
        }
        for (index, &next) in rest.iter().enumerate() {
            chosen.push(next);
            extend(chosen, &rest[index + 1..], size, call);
            chosen.pop();
        }
    }
    extend(&mut Vec::new(), whole, size, call);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows hold every combination that is valid with all else plain, and are far fewer than these.
    #[test]
    fn every_combination_is_in_a_row() {
        // A rule as real ones are: the last axis only without the third.
        let last = AXES.len() - 1;
        let valid = |row: &[usize]| row[last] == 0 || row[2] == 0;
        let axes: Vec<usize> = (0..AXES.len()).collect();
        for strength in [1, 2] {
            let rows = cover(strength, &valid);
            assert!(rows.iter().all(|row| valid(row)), "an impossible row");
            let mut wanted = Vec::new();
            for_each_subset(&axes, strength, &mut |subset| wanted.extend(combinations(subset)));
            let set = |wanted: &Combination, axis| wanted.iter().any(|&(one, setting)| one == axis && setting > 0);
            let possible = |wanted: &&Combination| !(set(wanted, last) && set(wanted, 2));
            let holds =
                |row: &Vec<usize>, wanted: &Combination| wanted.iter().all(|&(axis, setting)| row[axis] == setting);
            for wanted in wanted.iter().filter(possible) {
                assert!(
                    rows.iter().any(|row| holds(row, wanted)),
                    "{strength}: no row has {wanted:?}"
                );
            }
            assert!(
                rows.len() * (2 * strength) < wanted.len(),
                "{strength}: {} rows",
                rows.len()
            );
        }
    }

    /// No axis is set wrongly: each of its settings makes a kernel of its own of at least one skeleton.
    #[test]
    fn every_setting_makes_another_kernel() {
        let plain = vec![0; AXES.len()];
        for (axis, Axis { settings, .. }) in AXES.iter().enumerate() {
            for setting in 1..*settings {
                let mut row = plain.clone();
                row[axis] = setting;
                let differs = |&skeleton: &Skeleton| kernel(skeleton, &row) != kernel(skeleton, &plain);
                assert!(Skeleton::ALL.iter().any(differs), "axis {axis}, setting {setting}");
            }
        }
    }
}
