//! What is off costs nothing: with every feature spelled as off, the kernels' text is that of plain attention, byte by byte.
//! `UPDATE_GOLDEN=1 cargo test --test plain_text` rewrites `tests/golden/*.wgsl`.

use std::path::{Path, PathBuf};

use wgpu_attention::kernel::source::{self, Dialect, Unroll};
use wgpu_attention::kernel::{KernelConfig, Skeleton};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionRope, AttentionShape, BlockMaskShape, Broadcast, Capture, CaptureElement,
    CausalAlignment, DType, DTypes, DeviceCaps, Dropout, DropoutKeep, KeyPadding, Layout, Layouts, Mods, Outputs,
    Packed, Plan, Problem, RopeConfig, RopeFrequencies, RopePairing, RopePositions, Window,
};

type Descriptor<'a> = AttentionDescriptor<'a>;

const SHAPE: AttentionShape = AttentionShape::new(1, 8, 512, 512, 64);

const SKELETONS: [Skeleton; 4] = [
    Skeleton::Fused,
    Skeleton::Scores,
    Skeleton::Softmax,
    Skeleton::WeightedValues,
];

fn plain() -> Descriptor<'static> {
    AttentionDescriptor {
        shape: SHAPE,
        ..Default::default()
    }
}

/// The kernel of a skeleton in the plan of a descriptor.
fn kernel(descriptor: &Descriptor<'_>, skeleton: Skeleton) -> KernelConfig {
    let descriptor = AttentionDescriptor {
        algorithm: match skeleton {
            Skeleton::Fused => Algorithm::Fused,
            _ => Algorithm::ThreeKernels,
        },
        ..descriptor.clone()
    };
    let problem = Problem::new(&descriptor).unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    let caps = DeviceCaps {
        shader_f16: true,
        ..Default::default()
    };
    let plan = Plan::new(&problem, &caps).unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    let pass = plan.passes().iter().find(|pass| pass.skeleton == skeleton);
    plan.kernel(pass.unwrap_or_else(|| panic!("no {} in\n{plan}", skeleton.name())))
}

fn text(descriptor: &Descriptor<'_>, skeleton: Skeleton) -> String {
    let kernel = kernel(descriptor, skeleton);
    source::compose(&kernel, Unroll::Expanded, Dialect::Native).unwrap_or_else(|why| panic!("{descriptor:?}: {why}"))
}

fn golden(skeleton: Skeleton) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folder.join(format!("{}.wgsl", skeleton.name()))
}

const UNUSED: &[Capture<'static>] = &[Capture {
    name: "unused",
    element: CaptureElement::F32,
    len: 7,
}];

/// Plain attention, with something that is off, or that is no matter of the text.
fn spelled_as_off(frequencies: &RopeFrequencies) -> Vec<(&'static str, Descriptor<'_>)> {
    let window = |alignment| {
        Some(Window {
            left: None,
            right: None,
            alignment,
        })
    };
    let dropout = Some(Dropout {
        probability: 0.0,
        keep: DropoutKeep::Philox { seed: 7, offset: 1 },
    });
    let rope = Some(AttentionRope {
        frequencies,
        pairing: RopePairing::Interleaved,
        query: None,
        key: None,
    });
    let mods = Mods {
        score_mod: None,
        mask_mod: None,
        prob_mod: None,
        captures: UNUSED,
    };
    let all = AttentionDescriptor {
        label: Some("everything off"),
        shape: SHAPE,
        dtypes: DTypes {
            query: DType::F32,
            key: DType::F32,
            value: DType::F32,
            out: DType::F32,
            // Of a bias that there is not.
            bias: DType::F16,
        },
        scale: Some(-0.3),
        softcap: Some(f32::INFINITY),
        causal: None,
        window: window(CausalAlignment::LowerRight),
        mask: None,
        bias: None,
        alibi_slopes: false,
        sinks: false,
        key_padding: None,
        block_mask: None,
        mods,
        dropout,
        appended_keys: 5,
        rope,
        layouts: Layouts::all(Layout::Bshd),
        packed: None,
        outputs: Outputs {
            lse: false,
            weights: false,
            scores: None,
            rows: Some([3, 9]),
        },
        algorithm: Algorithm::Auto,
    };
    let of = |change: fn(&mut Descriptor<'_>, &Descriptor<'_>)| {
        let mut descriptor = plain();
        change(&mut descriptor, &all);
        descriptor
    };
    let mut spelled = vec![
        ("a window without bounds", of(|one, all| one.window = all.window)),
        ("an infinite softcap", of(|one, all| one.softcap = all.softcap)),
        ("dropout of nothing", of(|one, all| one.dropout = all.dropout)),
        ("the type of no bias", of(|one, all| one.dtypes = all.dtypes)),
        ("a scale", of(|one, all| one.scale = all.scale)),
        ("a layout", of(|one, all| one.layouts = all.layouts)),
        ("appended keys", of(|one, all| one.appended_keys = all.appended_keys)),
        ("rows of nothing", of(|one, all| one.outputs = all.outputs)),
        (
            "another shape",
            AttentionDescriptor {
                shape: AttentionShape {
                    kv_heads: 2,
                    ..AttentionShape::new(3, 4, 100, 77, 64)
                },
                ..plain()
            },
        ),
    ];
    spelled.push(("captures of no function", AttentionDescriptor { mods, ..plain() }));
    spelled.push(("a rotation of nothing", AttentionDescriptor { rope, ..plain() }));
    spelled.push(("everything", all));
    spelled
}

#[test]
fn what_is_off_leaves_the_text_as_it_is() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(64)).unwrap();
    for skeleton in SKELETONS {
        let is = text(&plain(), skeleton);
        let path = golden(skeleton);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &is).unwrap();
        }
        // A checkout may have turned the line ends.
        let was = std::fs::read_to_string(&path).unwrap_or_default().replace('\r', "");
        let first = was.lines().zip(is.lines()).position(|(was, is)| was != is);
        assert!(
            was == is,
            "{} changed, first in line {:?}; if that is meant: UPDATE_GOLDEN=1 cargo test --test plain_text, and read the diff",
            path.display(),
            first.map(|line| line + 1)
        );
        for (what, descriptor) in spelled_as_off(&frequencies) {
            assert!(text(&descriptor, skeleton) == was, "{what} changes {}", skeleton.name());
        }
    }
}

/// The statements of a kernel: no comments, and not the members of Params, which are the same for all.
fn statements(descriptor: &Descriptor<'_>, skeleton: Skeleton) -> String {
    let text = text(descriptor, skeleton);
    let (before, rest) = text.split_once("struct Params {").unwrap();
    let (_, after) = rest.split_once("\n}").unwrap();
    let code = |text: &str| -> String {
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    };
    code(before) + &code(after)
}

/// No statement of a feature is in the text of plain attention, and it is there as soon as the feature is on.
#[test]
fn plain_kernels_know_no_feature() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(64)).unwrap();
    let full = Some(Broadcast::new([1, 8, 512, 512]));
    let mods = |set: fn(&mut Mods<'static>)| {
        let mut mods = Mods::default();
        set(&mut mods);
        mods
    };
    let score_mod = "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score; }";
    let features: Vec<(&[&str], Descriptor<'_>)> = vec![
        (
            &["position.sequence.causal_offset"],
            AttentionDescriptor {
                causal: Some(CausalAlignment::LowerRight),
                ..plain()
            },
        ),
        (
            &["params.window_left", "params.window_right"],
            AttentionDescriptor {
                window: Some(Window {
                    left: Some(3),
                    right: Some(2),
                    alignment: CausalAlignment::LowerRight,
                }),
                ..plain()
            },
        ),
        (
            &["params.softcap", "tanh("],
            AttentionDescriptor {
                softcap: Some(20.0),
                ..plain()
            },
        ),
        (
            &["alibi_slopes", "position.sequence.alibi_offset"],
            AttentionDescriptor {
                alibi_slopes: true,
                ..plain()
            },
        ),
        (&["sinks"], AttentionDescriptor { sinks: true, ..plain() }),
        (
            &["philox(", "dropout_threshold", "params.dropout_"],
            AttentionDescriptor {
                dropout: Some(Dropout {
                    probability: 0.5,
                    keep: DropoutKeep::Philox { seed: 1, offset: 2 },
                }),
                ..plain()
            },
        ),
        (
            &["dropout_mask", "params.dropout_"],
            AttentionDescriptor {
                dropout: Some(Dropout {
                    probability: 0.5,
                    keep: DropoutKeep::Given,
                }),
                ..plain()
            },
        ),
        (
            &["mask: array", "params.mask_"],
            AttentionDescriptor { mask: full, ..plain() },
        ),
        (
            &["bias: array", "params.bias_"],
            AttentionDescriptor { bias: full, ..plain() },
        ),
        (
            &["padding: array", "params.padding_"],
            AttentionDescriptor {
                key_padding: Some(KeyPadding::Additive),
                ..plain()
            },
        ),
        (
            &["lengths"],
            AttentionDescriptor {
                key_padding: Some(KeyPadding::Lengths),
                ..plain()
            },
        ),
        (
            &["cu_seqlens_q", "cu_seqlens_k", "params.cu_q_offset"],
            AttentionDescriptor {
                packed: Some(Packed {
                    tokens_q: 512,
                    tokens_k: 512,
                }),
                ..plain()
            },
        ),
        (
            &["block_states", "tile_lists", "BLOCK_Q"],
            AttentionDescriptor {
                block_mask: Some(BlockMaskShape {
                    batch: 1,
                    heads: 1,
                    block_q: 128,
                    block_kv: 128,
                }),
                ..plain()
            },
        ),
        (
            &["score_mod(", "NEGATIVE_INFINITY"],
            AttentionDescriptor {
                mods: Mods {
                    score_mod: Some(score_mod),
                    ..Default::default()
                },
                ..plain()
            },
        ),
        (
            &["mask_mod("],
            AttentionDescriptor {
                mods: mods(|mods| {
                    mods.mask_mod =
                        Some("fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool { return true; }")
                }),
                ..plain()
            },
        ),
        (
            &["prob_mod("],
            AttentionDescriptor {
                mods: mods(|mods| {
                    mods.prob_mod = Some(
                        "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return prob; }",
                    )
                }),
                ..plain()
            },
        ),
        (
            &["unused"],
            AttentionDescriptor {
                mods: Mods {
                    score_mod: Some(score_mod),
                    captures: UNUSED,
                    ..Default::default()
                },
                ..plain()
            },
        ),
        (
            &["rope_", "ROTARY_DIM"],
            AttentionDescriptor {
                rope: Some(AttentionRope {
                    frequencies: &frequencies,
                    pairing: RopePairing::HalfSplit,
                    query: Some(RopePositions::Offset(0)),
                    key: Some(RopePositions::Offset(0)),
                }),
                ..plain()
            },
        ),
        (
            &["f16"],
            AttentionDescriptor {
                dtypes: DTypes::all(DType::F16),
                ..plain()
            },
        ),
        (
            &["<< 16u"],
            AttentionDescriptor {
                dtypes: DTypes::all(DType::Bf16),
                ..plain()
            },
        ),
        (
            &["lse: array", "params.lse_"],
            AttentionDescriptor {
                outputs: Outputs {
                    lse: true,
                    ..Default::default()
                },
                ..plain()
            },
        ),
    ];
    for (words, with) in features {
        for word in words {
            let holds = |descriptor: &Descriptor<'_>| {
                // Those of the way to compute: a prob_mod is not in the fused kernel.
                let skeletons = SKELETONS
                    .into_iter()
                    .filter(|&skeleton| skeleton != Skeleton::Fused || descriptor.mods.prob_mod.is_none());
                skeletons
                    .filter(|&skeleton| statements(descriptor, skeleton).contains(word))
                    .count()
            };
            assert_eq!(holds(&plain()), 0, "{word} in plain attention");
            assert!(holds(&with) > 0, "no {word} in {with:?}");
        }
    }
}
