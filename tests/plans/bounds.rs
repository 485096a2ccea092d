//! What each pass of a plan must keep to: bindings, workgroups, work, and the places of lse and scores.

use super::{TestCaseError, len, overlap, same_rows};
use proptest::{prop_assert, prop_assert_eq};
use wgpu_attention::kernel::Skeleton;
use wgpu_attention::plan::{Lse, Pass};
use wgpu_attention::{DeviceCaps, Operand, Plan};

type Checked = Result<(), TestCaseError>;

/// The fused kernel's passes hand their lse on to the passes that resume, and in the end to the caller.
pub(crate) fn assert_lse_of_fused(plan: &Plan) -> Checked {
    let keys = plan.problem().shape().seqlen_k;
    let wanted = plan.problem().outputs().lse;
    for pass in plan.passes().iter().filter(|pass| pass.skeleton == Skeleton::Fused) {
        let first_chunk = pass.region.chunk.start == 0;
        let cut = len(&pass.region.kv) < keys.into();
        prop_assert_eq!(pass.lse == Lse::Caller, wanted && first_chunk);
        if cut {
            prop_assert!(len(&pass.region.chunk) == 1, "chunks share an lse: {:?}", pass);
            prop_assert!(pass.lse != Lse::None, "nothing to resume from: {:?}", pass);
        }
        if let Lse::Workspace(plane) = pass.lse {
            prop_assert_eq!(plane, pass.region.chunk.start);
            prop_assert!(plane < plan.workspace().lse_planes);
        }
        prop_assert!(pass.block.is_none());
    }
    prop_assert_eq!(plan.workspace().scores_bytes, 0);
    Ok(())
}

/// Runs of keys that are none of them empty, for each of the packed rows, in one dispatch; what joins them has the same.
pub(crate) fn assert_runs(plan: &Plan, split: &Pass, caps: &DeviceCaps) -> Checked {
    let (shape, runs, tile) = (plan.problem().shape(), split.runs, plan.tile_of(split.skeleton));
    prop_assert!(runs.count >= 1 && u64::from(runs.keys) * u64::from(runs.count) >= shape.seqlen_k.into());
    prop_assert!(u64::from(runs.keys) * u64::from(runs.count - 1) < shape.seqlen_k.into());
    prop_assert!(runs.keys.is_multiple_of(tile.tile_kv()));
    let tiles = (shape.seqlen_q * (shape.heads / shape.kv_heads)).div_ceil(tile.tile_q);
    prop_assert_eq!(split.workgroups, shape.batch * shape.kv_heads * tiles * runs.count);
    prop_assert!(split.workgroups <= caps.limits.max_workgroups_per_dimension);
    prop_assert!(split.flops <= caps.max_dispatch_flops || split.workgroups == 1);
    if let Some(most) = caps.max_loop_trips {
        let trips = tile.trips_per_tile(plan.problem());
        prop_assert!(trips * (runs.keys / tile.tile_kv()) <= most);
    }
    for join in plan.passes().iter().filter(|pass| pass.skeleton == Skeleton::Join) {
        prop_assert_eq!(join.runs, runs);
    }
    // Only what is written last has the caller's lse.
    let last = plan.passes().iter().rfind(|pass| pass.skeleton != Skeleton::Scores);
    for pass in plan.passes().iter().filter(|pass| pass.skeleton != Skeleton::Scores) {
        let has = pass.lse == Lse::Caller;
        prop_assert_eq!(
            has,
            plan.problem().outputs().lse && Some(pass.skeleton) == last.map(|last| last.skeleton)
        );
    }
    Ok(())
}

/// Scores before softmax before weighted values, for the rows of each; one block of scores at a time in the workspace.
pub(crate) fn assert_stages_in_order(plan: &Plan) -> Checked {
    let stage = |pass: &Pass| match pass.skeleton {
        Skeleton::Scores => 0,
        Skeleton::Softmax => 1,
        Skeleton::WeightedValues => 2,
        _ => 3,
    };
    let passes = plan.passes();
    let mut last_of_block: Vec<(usize, &Pass)> = Vec::new();
    for (index, pass) in passes.iter().enumerate() {
        if pass.skeleton == Skeleton::Narrow {
            prop_assert!(passes[index..].iter().all(|later| later.skeleton == Skeleton::Narrow));
            continue;
        }
        prop_assert_eq!(pass.block.is_none(), plan.problem().outputs().weights);
        let lse = pass.skeleton == Skeleton::Softmax && plan.problem().outputs().lse;
        prop_assert_eq!(pass.lse, if lse { Lse::Caller } else { Lse::None });
        for earlier in &passes[..index] {
            let rows = [&pass.region, &earlier.region].map(|region| (&region.batch, &region.head, &region.q));
            let meet = overlap(rows[0].0, rows[1].0) && overlap(rows[0].1, rows[1].1) && overlap(rows[0].2, rows[1].2);
            prop_assert!(!meet || stage(earlier) <= stage(pass), "{:?} after {:?}", pass, earlier);
        }
        let Some(block) = &pass.block else { continue };
        let inside = |outer: &std::ops::Range<u32>, inner: &std::ops::Range<u32>| {
            outer.start <= inner.start && inner.end <= outer.end
        };
        let region = &pass.region;
        prop_assert!(
            inside(&block.batch, &region.batch) && inside(&block.head, &region.head) && inside(&block.q, &region.q)
        );
        let bytes = 4 * block.rows() * u64::from(plan.problem().shape().seqlen_k);
        prop_assert!(bytes <= plan.workspace().scores_bytes);
        match last_of_block.last_mut() {
            Some((last, of)) if of.block == pass.block => {
                prop_assert_eq!(*last + 1, index, "blocks are interleaved");
                *last = index;
            }
            _ => {
                let seen = last_of_block.iter().any(|(_, of)| same_rows_of_blocks(of, pass));
                prop_assert!(!seen, "a block comes twice: {:?}", block);
                last_of_block.push((index, pass));
            }
        }
    }
    Ok(())
}

fn same_rows_of_blocks(a: &Pass, b: &Pass) -> bool {
    let of_block = |pass: &Pass| Pass {
        region: pass.block.clone().unwrap_or_else(|| pass.region.clone()),
        ..pass.clone()
    };
    same_rows(&of_block(a), &of_block(b))
}

/// What each binding number of the kernels holds.
const BINDINGS: [(u32, Operand); 9] = [
    (1, Operand::Query),
    (2, Operand::Key),
    (3, Operand::Value),
    (4, Operand::Out),
    (5, Operand::Lse),
    (6, Operand::Weights),
    (7, Operand::Mask),
    (8, Operand::Bias),
    (9, Operand::KeyPadding),
];

/// Each operand's binding, from the aligned place before the region's first element to the word behind its last one, is
/// within the limit, wherever in its buffer the operand begins.
pub(crate) fn assert_bindings_fit(plan: &Plan, pass: &Pass, caps: &DeviceCaps) -> Checked {
    let problem = plan.problem();
    let bindings = plan.kernel(pass).bindings();
    let storage = bindings.iter().filter(|(binding, _)| *binding != 0).count();
    prop_assert!(storage <= caps.limits.max_storage_buffers as usize);
    for (binding, operand) in BINDINGS {
        if !bindings.iter().any(|&(bound, _)| bound == binding) {
            continue;
        }
        if operand == Operand::Weights && pass.block.is_some() {
            let limit = caps.limits.max_storage_buffer_binding_bytes;
            prop_assert!(plan.workspace().scores_bytes <= limit, "scores of {:?}", pass.block);
            continue;
        }
        if operand == Operand::Out && pass.partial {
            // In f32, with rows of whole vectors of four.
            let shape = problem.shape();
            let row = 4 * u64::from(shape.head_dim_v.next_multiple_of(4));
            let rows = |[b, h, q, _]: [u32; 4]| {
                (u64::from(b) * u64::from(shape.heads) + u64::from(h)) * u64::from(shape.seqlen_q) + u64::from(q)
            };
            let [first, last] = corners(plan, pass, operand).map(rows);
            let alignment = u64::from(caps.limits.storage_offset_alignment_bytes);
            let bound = alignment + (last + 1 - first) * row;
            prop_assert!(
                bound <= caps.limits.max_storage_buffer_binding_bytes + row,
                "partial of {:?}",
                pass.region
            );
            continue;
        }
        // A plane of the workspace lies as the caller's lse would.
        let Some(extent) = problem.extent(operand) else {
            prop_assert_eq!(operand, Operand::Lse);
            continue;
        };
        let [first, last] = corners(plan, pass, operand).map(|corner| extent.offset(corner));
        let bytes = (last + 1 - first) * problem.element_bytes(operand);
        let alignment = u64::from(caps.limits.storage_offset_alignment_bytes);
        let element = problem.element_bytes(operand);
        // The worst offset: as far behind an aligned place as can be, ending one element behind a word.
        let bound = (alignment - element + bytes).next_multiple_of(4);
        prop_assert!(
            bound <= caps.limits.max_storage_buffer_binding_bytes,
            "{operand} of {:?} needs {bound} bytes",
            pass.region
        );
    }
    Ok(())
}

/// The first and the last element of an operand that a pass touches.
fn corners(plan: &Plan, pass: &Pass, operand: Operand) -> [[u32; 4]; 2] {
    let problem = plan.problem();
    let group = problem.shape().group_size();
    let region = &pass.region;
    [false, true].map(|end| {
        let [b, h, q, kv] = [&region.batch, &region.head, &region.q, &region.kv].map(|range| match end {
            true => range.end - 1,
            false => range.start,
        });
        // Masks end before the appended keys; a region of appended keys only binds some element.
        let masked = kv.min(problem.masked_keys().saturating_sub(1));
        let sizes = problem.extent(operand).map_or([1; 4], |extent| extent.sizes);
        let channel = if end { sizes[3] - 1 } else { 0 };
        let corner = match operand {
            Operand::Key | Operand::Value => [b, h / group, kv, channel],
            Operand::Lse => [b, h, 0, q],
            Operand::Weights => [b, h, q, kv],
            Operand::Mask | Operand::Bias => [b, h, q, masked],
            Operand::KeyPadding => [b, 0, 0, masked],
            _ => [b, h, q, channel],
        };
        let mut clamped = corner;
        (0..4).for_each(|axis| clamped[axis] = corner[axis].min(sizes[axis] - 1));
        clamped
    })
}

/// Workgroups, floating-point operations and loop trips of one pass.
pub(crate) fn assert_work_fits(plan: &Plan, pass: &Pass, caps: &DeviceCaps) -> Checked {
    let (tile, shape, region) = (plan.tile_of(pass.skeleton), plan.problem().shape(), &pass.region);
    let rows_of_a_workgroup = match pass.skeleton {
        Skeleton::Softmax | Skeleton::Narrow => 1,
        _ => tile.tile_q,
    };
    let across = match pass.skeleton {
        Skeleton::Scores => len(&region.kv).div_ceil(tile.tile_kv().into()),
        _ => len(&region.chunk),
    };
    let tiles = len(&region.q).div_ceil(rows_of_a_workgroup.into());
    let workgroups = len(&region.batch) * len(&region.head) * tiles * across;
    prop_assert_eq!(u64::from(pass.workgroups), workgroups);
    // Folded into as few rows as may be, the grid keeps to the limit both ways.
    let per_dimension = caps.limits.max_workgroups_per_dimension;
    let rows = pass.workgroups.div_ceil(per_dimension);
    prop_assert!((1..=per_dimension).contains(&rows) && pass.workgroups.div_ceil(rows) <= per_dimension);

    let head_dims = match pass.skeleton {
        Skeleton::Fused => 2 * (shape.head_dim + shape.head_dim_v),
        Skeleton::Scores => 2 * shape.head_dim,
        Skeleton::Softmax => 10,
        Skeleton::Narrow => 0,
        _ => 2 * shape.head_dim_v,
    };
    prop_assert_eq!(
        pass.flops,
        region.rows() as f64 * len(&region.kv) as f64 * f64::from(head_dims)
    );
    let smallest = len(&region.batch) * len(&region.head) == 1
        && len(&region.q) <= rows_of_a_workgroup.into()
        && len(&region.chunk) == 1
        && (pass.skeleton == Skeleton::Softmax || len(&region.kv) <= tile.tile_kv().into());
    prop_assert!(
        pass.flops <= caps.max_dispatch_flops || smallest,
        "{} in {:?}",
        pass.flops,
        region
    );

    if let (Some(most), Skeleton::Fused | Skeleton::WeightedValues) = (caps.max_loop_trips, pass.skeleton) {
        let tiles = len(&region.kv).div_ceil(tile.tile_kv().into());
        let trips = tiles * u64::from(tile.trips_per_tile(plan.problem()));
        prop_assert!(trips <= most.into() || tiles == 1, "{trips} trips in {:?}", region);
    }
    Ok(())
}
