//! Plans, without a GPU: golden texts of a dozen problems, and properties over random problems and devices.
//! `UPDATE_GOLDEN=1 cargo test --test plans` rewrites `tests/golden/*.txt`.

#[path = "plans/bounds.rs"]
mod bounds;
#[path = "plans/strategies.rs"]
mod strategies;

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use proptest::prelude::*;
use strategies::{devices, problems};
use wgpu_attention::kernel::Skeleton;
use wgpu_attention::plan::{Lse, Pass, schedule::Region};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DType, DeviceCaps, DeviceClass, Error,
    Family, KeyPadding, Layout, Layouts, Operand, Outputs, Plan, Problem, Strides, Tier,
};

const WEIGHTS: Outputs = Outputs {
    lse: true,
    weights: true,
    scores: None,
    rows: None,
};
const LSE: Outputs = Outputs {
    lse: true,
    weights: false,
    scores: None,
    rows: None,
};

/// A device that has more than WebGPU asks for.
fn extended() -> DeviceCaps {
    let mut caps = DeviceCaps {
        class: DeviceClass::Discrete,
        tier: Tier::Extended,
        max_dispatch_flops: 1e11,
        ..Default::default()
    };
    caps.limits.max_storage_buffer_binding_bytes = (4 << 30) - 4;
    caps.limits.max_buffer_bytes = 16 << 30;
    caps.limits.max_storage_buffers = 32;
    caps.limits.max_workgroup_bytes = 48 << 10;
    caps.limits.max_invocations = 1024;
    caps.limits.storage_offset_alignment_bytes = 16;
    caps
}

/// What Mesa 22.3.6's software driver reports, its fault included.
fn lavapipe() -> DeviceCaps {
    let mut caps = DeviceCaps {
        class: DeviceClass::Cpu,
        tier: Tier::Extended,
        max_loop_trips: Some(65_535),
        max_dispatch_flops: 4e10,
        ..Default::default()
    };
    caps.limits.max_storage_buffer_binding_bytes = 128 << 20;
    caps.limits.max_buffer_bytes = 2 << 30;
    caps.limits.max_workgroup_bytes = 32 << 10;
    caps.limits.max_invocations = 1024;
    caps.limits.storage_offset_alignment_bytes = 16;
    caps
}

fn cases() -> Vec<(&'static str, AttentionDescriptor<'static>, DeviceCaps)> {
    let portable = DeviceCaps::default;
    let of = |shape| AttentionDescriptor {
        shape,
        ..Default::default()
    };
    let lesson = of(AttentionShape::new(1, 8, 512, 512, 64));
    let with_weights = AttentionDescriptor {
        outputs: WEIGHTS,
        ..lesson.clone()
    };
    let grouped = AttentionShape {
        kv_heads: 2,
        ..AttentionShape::new(2, 8, 4096, 4096, 64)
    };
    let mut small_bindings = portable();
    small_bindings.limits.max_storage_buffer_binding_bytes = 1 << 20;
    let mut narrow = portable();
    narrow.limits.max_workgroups_per_dimension = 4;
    let latent = |seqlen_q, seqlen_k| AttentionShape {
        kv_heads: 1,
        head_dim_v: 512,
        ..AttentionShape::new(1, 4, seqlen_q, seqlen_k, 576)
    };
    vec![
        ("lesson_portable", lesson.clone(), portable()),
        ("lesson_extended", lesson.clone(), extended()),
        ("lesson_weights", with_weights, portable()),
        ("lesson_narrow_grid", lesson, narrow),
        (
            "seqlen_16384_lavapipe",
            of(AttentionShape::new(1, 8, 16_384, 16_384, 64)),
            lavapipe(),
        ),
        (
            "seqlen_131072_extended_causal",
            AttentionDescriptor {
                causal: Some(CausalAlignment::LowerRight),
                outputs: LSE,
                ..of(AttentionShape::new(1, 1, 131_072, 131_072, 128))
            },
            extended(),
        ),
        (
            "decode_131072_lavapipe",
            AttentionDescriptor {
                causal: Some(CausalAlignment::LowerRight),
                ..of(AttentionShape {
                    kv_heads: 2,
                    ..AttentionShape::new(1, 8, 1, 131_072, 64)
                })
            },
            lavapipe(),
        ),
        (
            "grouped_small_bindings",
            AttentionDescriptor {
                causal: Some(CausalAlignment::UpperLeft),
                mask: Some(Broadcast::new([2, 1, 1, 4096])),
                ..of(grouped)
            },
            small_bindings.clone(),
        ),
        (
            "grouped_three_kernels_in_blocks",
            AttentionDescriptor {
                algorithm: Algorithm::ThreeKernels,
                ..of(grouped)
            },
            portable(),
        ),
        (
            "weights_beyond_a_binding",
            AttentionDescriptor {
                outputs: WEIGHTS,
                layouts: Layouts::all(Layout::Bshd),
                ..of(AttentionShape::new(1, 2, 8192, 8192, 64))
            },
            portable(),
        ),
        (
            "head_dim_576_in_chunks_and_runs",
            AttentionDescriptor {
                outputs: LSE,
                ..of(latent(64, 20_000))
            },
            lavapipe(),
        ),
        ("head_dim_576_extended", of(latent(64, 2048)), extended()),
        (
            "head_dim_4096",
            of(AttentionShape::new(1, 2, 100, 100, 4096)),
            extended(),
        ),
        (
            "a_row_beyond_a_binding",
            AttentionDescriptor {
                outputs: WEIGHTS,
                ..of(AttentionShape::new(1, 1, 1, 1 << 19, 8))
            },
            small_bindings,
        ),
        (
            "softmax_beyond_the_loop_trips",
            AttentionDescriptor {
                outputs: WEIGHTS,
                ..of(AttentionShape::new(1, 1, 1, 3 << 19, 4))
            },
            lavapipe(),
        ),
    ]
}

/// The plan's own words, then a line a pass; of many passes the first and the last few.
fn text(descriptor: &AttentionDescriptor<'_>, caps: &DeviceCaps) -> String {
    let plan = match Problem::new(descriptor).and_then(|problem| Plan::new(&problem, caps)) {
        Ok(plan) => plan,
        Err(error) => return format!("{error}\n"),
    };
    let mut text = plan.to_string();
    let passes = plan.passes();
    let shown = 12;
    for (index, pass) in passes.iter().enumerate() {
        if passes.len() > shown && index == shown / 2 {
            writeln!(text, "... {} more ...", passes.len() - shown).unwrap();
        }
        if passes.len() > shown && (shown / 2..passes.len() - shown / 2).contains(&index) {
            continue;
        }
        let Region {
            batch,
            head,
            q,
            kv,
            chunk,
        } = &pass.region;
        write!(
            text,
            "{} batch {batch:?} head {head:?} q {q:?} kv {kv:?} chunk {chunk:?}: {} workgroups, {:.3e} flops",
            pass.skeleton.name(),
            pass.workgroups,
            pass.flops,
        )
        .unwrap();
        if pass.resume {
            text.push_str(", resumes");
        }
        match pass.lse {
            Lse::None => {}
            Lse::Caller => text.push_str(", lse to the caller"),
            Lse::Workspace(plane) => write!(text, ", lse to plane {plane}").unwrap(),
        }
        if let Some(block) = &pass.block {
            write!(text, ", scores of head {:?} q {:?}", block.head, block.q).unwrap();
        }
        text.push('\n');
    }
    text
}

/// The lines that differ, `-` as it was and `+` as it is.
fn difference(was: &str, is: &str) -> String {
    let (was, is): (Vec<_>, Vec<_>) = (was.lines().collect(), is.lines().collect());
    let mut text = String::new();
    for index in 0..was.len().max(is.len()) {
        let (old, new) = (was.get(index), is.get(index));
        if old != new {
            old.iter()
                .for_each(|old| writeln!(text, "  {:>3} - {old}", index + 1).unwrap());
            new.iter()
                .for_each(|new| writeln!(text, "  {:>3} + {new}", index + 1).unwrap());
        }
    }
    text
}

#[test]
fn golden_plans() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut changed = String::new();
    for (name, descriptor, caps) in cases() {
        let path = folder.join(format!("{name}.txt"));
        let is = text(&descriptor, &caps);
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, is).unwrap();
            continue;
        }
        // A checkout may have turned the line ends.
        let was = std::fs::read_to_string(&path).unwrap_or_default().replace('\r', "");
        if was != is {
            writeln!(changed, "{name}:\n{}", difference(&was, &is)).unwrap();
        }
    }
    assert!(
        changed.is_empty(),
        "plans changed:\n{changed}if that is meant: UPDATE_GOLDEN=1 cargo test --test plans, and read the diff"
    );
}

// ---- Properties --------------------------------------------------------------------------------

fn len(range: &Range<u32>) -> u64 {
    u64::from(range.end - range.start)
}

fn axes(region: &Region) -> [Range<u32>; 5] {
    let Region {
        batch,
        head,
        q,
        kv,
        chunk,
    } = region.clone();
    [batch, head, q, kv, chunk]
}

fn overlap(a: &Range<u32>, b: &Range<u32>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Fails unless the regions fill the box `0..sizes` with nothing twice and nothing outside.
fn assert_exact_cover(passes: &[&Pass], sizes: [u32; 5]) -> Result<(), TestCaseError> {
    let mut volume = 0;
    for (index, pass) in passes.iter().enumerate() {
        let mine = axes(&pass.region);
        for (range, size) in mine.iter().zip(sizes) {
            prop_assert!(
                range.start < range.end && range.end <= size,
                "{:?} of {sizes:?}",
                pass.region
            );
        }
        volume += mine.iter().map(len).product::<u64>();
        for other in &passes[..index] {
            let theirs = axes(&other.region);
            let twice = (0..5).all(|axis| overlap(&mine[axis], &theirs[axis]));
            prop_assert!(!twice, "twice: {:?} and {:?}", pass.region, other.region);
        }
    }
    prop_assert_eq!(volume, sizes.map(u64::from).iter().product::<u64>());
    Ok(())
}

/// Whether two passes touch the same rows (and chunk).
fn same_rows(a: &Pass, b: &Pass) -> bool {
    let (a, b) = (axes(&a.region), axes(&b.region));
    [0, 1, 2, 4].into_iter().all(|axis| overlap(&a[axis], &b[axis]))
}

/// Passes of the same rows visit keys in ascending order, all but the first going on from the one before.
fn assert_keys_in_order(passes: &[&Pass]) -> Result<(), TestCaseError> {
    for (index, pass) in passes.iter().enumerate() {
        prop_assert_eq!(pass.resume, pass.region.kv.start > 0);
        for earlier in passes[..index].iter().filter(|earlier| same_rows(earlier, pass)) {
            prop_assert!(
                earlier.region.kv.end <= pass.region.kv.start,
                "{:?} after {:?}",
                pass.region,
                earlier.region
            );
        }
    }
    Ok(())
}

/// An out in a narrow type is accumulated in the workspace as soon as one row's keys are cut, and narrowed in the end.
fn assert_narrowed(
    problem: &Problem,
    passes: &[&Pass],
    narrow: &[&Pass],
    sizes: [u32; 5],
) -> Result<(), TestCaseError> {
    let resumes = passes.iter().any(|pass| pass.resume);
    let partial = resumes && problem.dtypes().out != DType::F32;
    if partial {
        assert_exact_cover(narrow, sizes)?;
        prop_assert!(passes.iter().filter(|pass| pass.resume).all(|pass| pass.partial));
    }
    prop_assert!(partial || (narrow.is_empty() && passes.iter().all(|pass| !pass.partial)));
    Ok(())
}

/// GPUs visit tiles that no rule touches in a loop of their own, as does what may be a GPU; software does not.
#[test]
fn open_tiles_have_a_loop_of_their_own_where_it_pays() {
    let problem = Problem::new(&AttentionDescriptor {
        shape: AttentionShape::new(1, 8, 1024, 1024, 64),
        causal: Some(CausalAlignment::LowerRight),
        ..Default::default()
    })
    .unwrap();
    for (class, apart) in [
        (DeviceClass::Discrete, true),
        (DeviceClass::Integrated, true),
        (DeviceClass::Unknown, true),
        (DeviceClass::Cpu, false),
    ] {
        for tier in Tier::ALL {
            let caps = DeviceCaps {
                class,
                tier,
                only_family: Some(Family::Tile),
                ..extended()
            };
            let plan = Plan::new(&problem, &caps).unwrap();
            let is = plan.passes().iter().any(|pass| {
                plan.kernel(pass)
                    .parts()
                    .any(|part| part.name == "tile/loops_apart.wgsl")
            });
            assert_eq!(is, apart, "{class:?}, {tier:?}");
        }
    }
}

/// What drivers make of the broadcast family's text decides some of its files: whether loads are kept in order, whether rows go
/// through loops, and so what keeps closed values out.
#[test]
fn drivers_decide_how_the_broadcast_family_loads() {
    let plain = AttentionDescriptor {
        shape: AttentionShape::new(1, 8, 1024, 1024, 64),
        ..Default::default()
    };
    let causal = AttentionDescriptor {
        causal: Some(CausalAlignment::LowerRight),
        ..plain.clone()
    };
    let padded = AttentionDescriptor {
        key_padding: Some(KeyPadding::Boolean),
        ..plain.clone()
    };
    let [one, finite] = ["broadcast/rounds_one.wgsl", "broadcast/rounds_finite.wgsl"];
    let [rolled, unrolled] = ["broadcast/weigh_rolled.wgsl", "broadcast/weigh_unrolled.wgsl"];
    for (compiles_slowly, rows_in_loops, files) in [
        (
            false,
            true,
            ["broadcast/order_free.wgsl", "broadcast/own_rows_rolled.wgsl"],
        ),
        (
            true,
            true,
            ["broadcast/order_kept.wgsl", "broadcast/own_rows_rolled.wgsl"],
        ),
        (
            true,
            false,
            ["broadcast/order_kept.wgsl", "broadcast/own_rows_unrolled.wgsl"],
        ),
    ] {
        for (descriptor, in_loops, without) in [
            (
                &plain,
                [unrolled, one, "row/add_plain.wgsl"],
                [unrolled, one, "row/add_plain.wgsl"],
            ),
            (
                &causal,
                [unrolled, finite, "row/add_plain.wgsl"],
                [unrolled, one, "row/add_guarded.wgsl"],
            ),
            (
                &padded,
                [rolled, finite, "row/add_plain.wgsl"],
                [unrolled, one, "row/add_guarded.wgsl"],
            ),
        ] {
            let caps = DeviceCaps {
                class: DeviceClass::Cpu,
                tier: Tier::Extended,
                subgroup_sizes: Some((8, 8)),
                compiles_slowly,
                rows_in_loops,
                ..DeviceCaps::default()
            };
            let plan = Plan::new(&Problem::new(descriptor).unwrap(), &caps).unwrap();
            let kernel = plan.kernel(&plan.passes()[0]);
            let others = if rows_in_loops { in_loops } else { without };
            for file in files.into_iter().chain(others) {
                assert!(
                    kernel.parts().any(|part| part.name == file),
                    "{descriptor:?}, slowly: {compiles_slowly}, rows in loops: {rows_in_loops}: no {file}"
                );
            }
            // A row that loads for each score by text of its own, a long text where that compiles soon, and one where it does not.
            let rows = match (rows_in_loops, compiles_slowly) {
                (false, _) if descriptor.key_padding.is_some() => 2,
                (true, false) => 8,
                _ => 4,
            };
            assert_eq!(plan.tile_of(kernel.skeleton()).rows(), rows);
        }
    }
}

/// On software drivers a subgroup of eight lanes has as many rows an invocation as leave few of the last one's idle.
#[test]
fn lanes_have_rows_enough() {
    for (rows, rows_in_loops, lane_rows) in [
        (1, true, None),
        (40, true, Some(3)),
        (128, true, Some(4)),
        (512, true, Some(4)),
        (4096, true, Some(8)),
        (512, false, Some(4)),
        (4096, false, Some(4)),
    ] {
        let caps = DeviceCaps {
            class: DeviceClass::Cpu,
            tier: Tier::Extended,
            subgroup_sizes: Some((8, 8)),
            rows_in_loops,
            ..DeviceCaps::default()
        };
        let shape = AttentionShape::new(1, 12, rows, 1024, 64);
        let problem = Problem::new(&AttentionDescriptor {
            shape,
            ..Default::default()
        })
        .unwrap();
        let plan = Plan::new(&problem, &caps).unwrap();
        let broadcast = plan.passes()[0].skeleton == Skeleton::Broadcast;
        assert_eq!(broadcast.then(|| plan.tile().rows()), lane_rows, "{rows} rows");
    }
}

/// GPUs cut few rows into runs of keys, which take a buffer more than the result alone; where that is one too many, they do not.
#[test]
fn runs_need_buffers_for_their_parts() {
    let gpu = DeviceCaps {
        class: DeviceClass::Discrete,
        ..DeviceCaps::default()
    };
    let all = Broadcast::new([1, 8, 1, 4096]);
    let most = gpu.limits.max_storage_buffers;
    assert_eq!(most, 8);
    for (sinks, skeleton) in [(false, Skeleton::Split), (true, Skeleton::Fused)] {
        let problem = Problem::new(&AttentionDescriptor {
            shape: AttentionShape {
                kv_heads: 2,
                ..AttentionShape::new(1, 8, 1, 4096, 64)
            },
            mask: Some(all),
            bias: Some(all),
            key_padding: Some(KeyPadding::Additive),
            sinks,
            ..Default::default()
        })
        .unwrap();
        let plan = Plan::new(&problem, &gpu).unwrap();
        assert_eq!(plan.passes()[0].skeleton, skeleton, "{plan}");
        for pass in plan.passes() {
            assert!(plan.kernel(pass).bindings().len() as u32 <= 1 + most);
        }
    }
}

/// A request of few bytes may ask for years of work: it is refused before its list of dispatches fills the memory.
#[test]
fn a_plan_without_end_is_refused() {
    let nothing = Layout::Strided(Strides {
        batch: 0,
        head: 0,
        row: 0,
    });
    for (rows, algorithm) in [
        (1 << 29, Algorithm::Fused),
        (1 << 20, Algorithm::ThreeKernels),
        (1 << 24, Algorithm::Auto),
    ] {
        let descriptor = AttentionDescriptor {
            shape: AttentionShape::new(1, 1, rows, rows, 1),
            layouts: Layouts {
                out: Layout::Bhsd,
                ..Layouts::all(nothing)
            },
            algorithm,
            ..Default::default()
        };
        let problem = Problem::new(&descriptor).unwrap();
        let mut caps = DeviceCaps::default();
        caps.limits.max_storage_buffer_binding_bytes = 1 << 31;
        caps.limits.max_buffer_bytes = 1 << 31;
        caps.max_dispatch_flops = 1e7;
        match Plan::new(&problem, &caps) {
            Err(Error::Limit {
                required,
                limit: 65_536,
                ..
            }) => assert!(required > 65_536),
            other => panic!("{:?}", other.map(|plan| plan.passes().len())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_plan_keeps_its_promises(problem in problems(), caps in devices()) {
        let plan = match Plan::new(&problem, &caps) {
            Ok(plan) => plan,
            Err(Error::Limit { required, limit, .. }) => {
                prop_assert!(required > limit, "refused although {required} <= {limit}");
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(format!("not a limit: {error}"))),
        };
        prop_assert_eq!(&plan, &Plan::new(&problem.clone(), &caps.clone()).unwrap());
        let shape = problem.shape();
        let chunks = plan.tile().v_chunks(shape.head_dim_v);
        let sizes = |chunks| [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k, chunks];
        let of = |skeleton| plan.passes().iter().filter(move |pass| pass.skeleton == skeleton).collect::<Vec<_>>();
        if let Some(split) = plan.passes().iter().find(|pass| pass.skeleton == Skeleton::Split) {
            let [joins, looks] = [Skeleton::Join, Skeleton::Scores].map(of);
            prop_assert_eq!(1 + joins.len() + looks.len(), plan.passes().len());
            assert_exact_cover(&[split], sizes(1))?;
            assert_exact_cover(&joins, if split.runs.count > 1 { sizes(1) } else { [0; 5] })?;
            assert_exact_cover(&looks, if problem.outputs().weights { sizes(1) } else { [0; 5] })?;
            bounds::assert_runs(&plan, split, &caps)?;
            for pass in plan.passes() {
                bounds::assert_bindings_fit(&plan, pass, &caps)?;
            }
            return Ok(());
        }
        if plan.algorithm() == Algorithm::Fused {
            let [passes, looks, narrow] = [Skeleton::Fused, Skeleton::Scores, Skeleton::Narrow].map(of);
            prop_assert_eq!(passes.len() + looks.len() + narrow.len(), plan.passes().len());
            assert_exact_cover(&passes, sizes(chunks))?;
            assert_keys_in_order(&passes)?;
            // What hands out weights comes after their lse is known.
            prop_assert_eq!(looks.is_empty(), !problem.outputs().weights);
            if problem.outputs().weights {
                assert_exact_cover(&looks, sizes(1))?;
            }
            assert_narrowed(&problem, &passes, &narrow, sizes(1))?;
            bounds::assert_lse_of_fused(&plan)?;
        } else {
            let [scores, softmax, values] = [Skeleton::Scores, Skeleton::Softmax, Skeleton::WeightedValues].map(of);
            let narrow = of(Skeleton::Narrow);
            prop_assert_eq!(scores.len() + softmax.len() + values.len() + narrow.len(), plan.passes().len());
            assert_narrowed(&problem, &values, &narrow, sizes(1))?;
            assert_exact_cover(&scores, sizes(1))?;
            assert_exact_cover(&softmax, sizes(1))?;
            assert_exact_cover(&values, sizes(chunks))?;
            assert_keys_in_order(&values)?;
            bounds::assert_stages_in_order(&plan)?;
        }
        for pass in plan.passes() {
            bounds::assert_bindings_fit(&plan, pass, &caps)?;
            bounds::assert_work_fits(&plan, pass, &caps)?;
        }
    }

    /// An operand that only just fits, or only just does not once its binding begins at an aligned place.
    #[test]
    fn bindings_fit_at_the_very_limit(problem in problems(), spare in 0u64..280, caps in devices()) {
        let operands = [Operand::Query, Operand::Key, Operand::Value, Operand::Out, Operand::Mask, Operand::Bias];
        let largest = operands.into_iter().filter_map(|operand| problem.span_bytes(operand)).max().unwrap_or(0);
        let mut caps = DeviceCaps { max_dispatch_flops: f64::INFINITY, max_loop_trips: None, ..caps };
        caps.limits.max_storage_buffer_binding_bytes = (largest + spare) & !3;
        if let Ok(plan) = Plan::new(&problem, &caps) {
            for pass in plan.passes() {
                bounds::assert_bindings_fit(&plan, pass, &caps)?;
            }
        }
    }

    /// Sizes up to the edge of 32-bit indexes: a plan or a limit, never a panic, nor a plan without end.
    #[test]
    fn huge_problems_never_panic(
        powers in proptest::array::uniform5(-8f64..32.0), faulty in any::<bool>(), watched in 0u32..8, way in 0usize..3,
        caps in devices(),
    ) {
        let [heads, seqlen_q, seqlen_k, head_dim, head_dim_v] = powers.map(|power| power.max(0.0).exp2() as u32);
        let shape = AttentionShape { head_dim_v, ..AttentionShape::new(1, heads, seqlen_q, seqlen_k, head_dim) };
        let algorithm = [Algorithm::Auto, Algorithm::Fused, Algorithm::ThreeKernels][way];
        let descriptor = AttentionDescriptor { shape, algorithm, ..Default::default() };
        let Ok(problem) = Problem::new(&descriptor) else { return Ok(()) };
        let max_loop_trips = faulty.then_some(65_535);
        let max_dispatch_flops = if watched == 0 { 1e10 } else { f64::INFINITY };
        let mut caps = DeviceCaps { max_dispatch_flops, max_loop_trips, ..caps };
        caps.limits.max_storage_buffer_binding_bytes = 1 << 31;
        caps.limits.max_workgroups_per_dimension = 65_535;
        let plan = Plan::new(&problem, &caps);
        prop_assert!(matches!(plan, Ok(_) | Err(Error::Limit { .. })), "{plan:?}");
    }
}
