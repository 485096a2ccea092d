//! The matrix family: when plans have it, and, on every adapter that multiplies matrices, that it computes right from halves. The
//! other suites run it as every other family, from the storage that they have.

mod support;

use std::sync::Arc;

use half::f16;
use support::inputs::Numbers;
use support::run::{check, check_inputs};
use support::{OwnedInputs, engines};
use wgpu_attention::kernel::Skeleton;
use wgpu_attention::{
    AttentionDescriptor, AttentionRope, AttentionShape, BlockMaskShape, Broadcast, CausalAlignment, DType, DTypes,
    DeviceCaps, DeviceClass, Dropout, DropoutKeep, Engine, Family, KeyPadding, Layout, Layouts, MatrixShape, Outputs,
    Packed, Plan, Problem, RopeFrequencies, RopePairing, RopePositions, Strides, Tier, TunedChoice, TunedTile, Tuning,
    TuningClass, Window,
};

const LOWER: CausalAlignment = CausalAlignment::LowerRight;

const LSE: Outputs = Outputs {
    lse: true,
    weights: false,
    scores: None,
    rows: None,
};

/// Each adapter that multiplies halves, once for each shape of these, and with one loop over the tiles of keys and with two, as GPUs have
/// it. llvmpipe lists one shape, and multiplies both.
fn engines_of_halves() -> Vec<(String, Engine, MatrixShape)> {
    let mut all = Vec::new();
    for (name, engine) in engines() {
        let caps = engine.caps();
        for shape in [MatrixShape::F16Size16, MatrixShape::F16Size8] {
            let multiplies =
                caps.matrix_shapes.contains(&shape) || caps.name.contains("llvmpipe") && !caps.matrix_shapes.is_empty();
            for class in [DeviceClass::Cpu, DeviceClass::Discrete]
                .into_iter()
                .filter(|_| multiplies)
            {
                let caps = DeviceCaps {
                    class,
                    only_family: Some(Family::Matrix),
                    matrix_shapes: vec![shape],
                    ..caps.clone()
                };
                all.push((format!("{name}, {shape}, as {class}"), engine.with_caps(caps), shape));
            }
        }
    }
    all
}

/// Attention from halves, with an lse.
fn halves(shape: AttentionShape) -> AttentionDescriptor<'static> {
    AttentionDescriptor {
        shape,
        dtypes: DTypes {
            bias: DType::F32,
            ..DTypes::all(DType::F16)
        },
        outputs: LSE,
        ..Default::default()
    }
}

fn is_matrix(plan: &Plan) -> bool {
    plan.passes().iter().any(|pass| pass.skeleton == Skeleton::Matrix)
}

fn check_all(descriptors: &[AttentionDescriptor<'_>], only: Option<MatrixShape>) {
    for (name, engine, shape) in engines_of_halves() {
        for (seed, descriptor) in (0..).zip(descriptors) {
            if only.is_none_or(|only| only == shape) {
                let plan = engine.plan(descriptor).unwrap();
                assert!(is_matrix(&plan), "{name}: {plan}");
                check(&name, &engine, descriptor, seed);
            }
        }
    }
}

/// In both sizes of matrices: tiles with and without tails, more channels of value than a workgroup sums.
#[test]
fn sizes_agree_with_the_reference() {
    let sized = |rows, keys, head_dim, head_dim_v| {
        halves(AttentionShape {
            head_dim_v,
            kv_heads: 1,
            ..AttentionShape::new(2, 2, rows, keys, head_dim)
        })
    };
    let causal = Some(LOWER);
    check_all(
        &[
            sized(33, 65, 64, 64),
            AttentionDescriptor {
                causal,
                ..sized(70, 129, 20, 36)
            },
        ],
        None,
    );
    check_all(
        &[
            sized(1, 1, 1, 1),
            sized(8, 16, 16, 16),
            AttentionDescriptor {
                causal,
                ..sized(9, 200, 130, 131)
            },
        ],
        Some(MatrixShape::F16Size8),
    );
}

/// Query in registers, where it would leave workgroup memory too little room; its rows come there in two rounds.
#[test]
fn query_in_registers_agrees_with_the_reference() {
    for (name, engine, shape) in engines_of_halves() {
        if shape == MatrixShape::F16Size16 {
            let descriptor = AttentionDescriptor {
                causal: Some(LOWER),
                ..halves(AttentionShape::new(1, 2, 70, 129, 100))
            };
            let plan = engine.plan(&descriptor).unwrap();
            assert!(
                !plan.tile().query_resident && plan.tile().tile_q > plan.tile().tile_kv(),
                "{plan}"
            );
            check(&name, &engine, &descriptor, 5);
        }
    }
}

/// Each hook, from halves.
#[test]
fn features_agree_with_the_reference() {
    let plain = halves(AttentionShape {
        kv_heads: 1,
        ..AttentionShape::new(2, 2, 37, 45, 24)
    });
    let full = Some(Broadcast::new([2, 2, 37, 45]));
    let strided = Layout::Strided(Strides {
        batch: 3001,
        head: 1301,
        row: 29,
    });
    check_all(
        &[
            AttentionDescriptor {
                mask: full,
                bias: full,
                key_padding: Some(KeyPadding::Boolean),
                alibi_slopes: true,
                softcap: Some(5.0),
                ..plain.clone()
            },
            AttentionDescriptor {
                window: Some(Window {
                    left: Some(9),
                    right: Some(3),
                    alignment: LOWER,
                }),
                sinks: true,
                layouts: Layouts::all(strided),
                ..plain.clone()
            },
            AttentionDescriptor {
                packed: Some(Packed {
                    tokens_q: 61,
                    tokens_k: 70,
                }),
                causal: Some(LOWER),
                ..plain.clone()
            },
            AttentionDescriptor {
                block_mask: Some(BlockMaskShape {
                    batch: 1,
                    heads: 2,
                    block_q: 5,
                    block_kv: 16,
                }),
                ..plain.clone()
            },
            // Seldom kept, so scaled by 250.
            AttentionDescriptor {
                dropout: Some(Dropout {
                    probability: 0.996,
                    keep: DropoutKeep::Philox { seed: 3, offset: 4 },
                }),
                ..plain.clone()
            },
            // What singles keep of halves.
            AttentionDescriptor {
                dtypes: DTypes {
                    out: DType::F32,
                    ..plain.dtypes
                },
                ..plain.clone()
            },
        ],
        Some(MatrixShape::F16Size8),
    );
}

/// Keys visited in several passes, each of which goes on from what the one before left.
#[test]
fn later_passes_go_on_from_earlier_ones() {
    for (name, engine, shape) in engines_of_halves() {
        if shape == MatrixShape::F16Size8 {
            let mut caps = engine.caps().clone();
            caps.max_dispatch_flops = 5e5;
            let engine = engine.with_caps(caps);
            let descriptor = AttentionDescriptor {
                causal: Some(LOWER),
                ..halves(AttentionShape::new(1, 1, 40, 300, 24))
            };
            let plan = engine.plan(&descriptor).unwrap();
            assert!(plan.passes().iter().any(|pass| pass.resume), "{plan}");
            check(&name, &engine, &descriptor, 1);
        }
    }
}

/// Scores that rise along the keys by more than sums are left unscaled for, by less, and fall; beyond what a half holds, too.
#[test]
fn rising_scores_rescale_the_sums() {
    for (name, engine, _) in engines_of_halves() {
        let descriptor = AttentionDescriptor {
            scale: Some(1.0),
            ..halves(AttentionShape::new(1, 1, 33, 65, 24))
        };
        let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 2);
        let (Numbers::F16(query), Numbers::F16(key)) = (&mut inputs.query, &mut inputs.key) else {
            panic!("not of halves");
        };
        query.fill(f16::ONE);
        for row in 0..33 {
            // Row 0 to 32: from falling to rising, ever more steeply; the last ones from 0 to over 2^17.
            query[row * 24] = f16::from_f32([-4.0, -1.0, 0.5, 1.0, 3.0, 8.0, 2100.0][row % 7]);
        }
        for (j, channels) in key.chunks_mut(24).enumerate() {
            channels.fill(f16::ZERO);
            channels[0] = f16::from_f32(j as f32);
        }
        check_inputs(&name, &engine, &descriptor, &inputs);
    }
}

/// What stands behind a mask is never seen; what stands in the open is.
#[test]
fn not_a_number_behind_a_mask_stays_there() {
    for (name, engine, shape) in engines_of_halves() {
        if shape == MatrixShape::F16Size8 {
            let descriptor = AttentionDescriptor {
                causal: Some(LOWER),
                ..halves(AttentionShape::new(1, 1, 40, 70, 24))
            };
            let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 3);
            let (Numbers::F16(key), Numbers::F16(value)) = (&mut inputs.key, &mut inputs.value) else {
                panic!("not of halves");
            };
            // Rows see the first 31 keys, and one more each.
            key[50 * 24] = f16::NAN;
            value[45 * 24 + 3] = f16::INFINITY;
            value[60 * 24 + 3] = f16::NEG_INFINITY;
            value[65 * 24 + 20] = f16::NAN;
            check_inputs(&name, &engine, &descriptor, &inputs);
        }
    }
}

/// In the open, too: an infinite value is no product of it and 0, be a weight multiplied in one part or in two.
#[test]
fn infinite_values_in_the_open_stay_infinite() {
    for (name, engine, shape) in engines_of_halves() {
        if shape == MatrixShape::F16Size8 {
            for out in [DType::F16, DType::F32] {
                let mut descriptor = halves(AttentionShape::new(1, 1, 17, 70, 24));
                descriptor.dtypes.out = out;
                let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 4);
                let Numbers::F16(value) = &mut inputs.value else {
                    panic!("not of halves");
                };
                value[7 * 24 + 5] = f16::INFINITY;
                value[45 * 24 + 3] = f16::NEG_INFINITY;
                value[60 * 24 + 20] = f16::NAN;
                check_inputs(&name, &engine, &descriptor, &inputs);
            }
        }
    }
}

/// A device of a class, with subgroups of 32 and these matrices.
fn device(class: DeviceClass, matrix_shapes: &[MatrixShape]) -> DeviceCaps {
    let mut caps = DeviceCaps {
        class,
        tier: Tier::Extended,
        backend: "vulkan".into(),
        subgroup_sizes: Some((32, 32)),
        shader_f16: true,
        matrix_shapes: matrix_shapes.to_vec(),
        ..Default::default()
    };
    caps.limits.max_workgroup_bytes = 32 << 10;
    caps
}

fn plan(descriptor: &AttentionDescriptor<'_>, caps: &DeviceCaps) -> Plan {
    Plan::new(&Problem::new(descriptor).unwrap(), caps).unwrap()
}

/// A device on which a tile was measured for problems like this one.
fn tuned(caps: &DeviceCaps, problem: &Problem, tile: &TunedTile) -> DeviceCaps {
    let choice = TunedChoice {
        class: TuningClass::of(problem),
        tile: tile.clone(),
        median_ms: 1.0,
        default_ms: 2.0,
        date: "2026-11-30".into(),
    };
    DeviceCaps {
        tuning: Some(Arc::new(Tuning { choices: vec![choice] })),
        ..caps.clone()
    }
}

fn matrix_candidates(problem: &Problem, caps: &DeviceCaps) -> Vec<TunedTile> {
    let candidates = TunedTile::candidates(problem, caps).into_iter();
    candidates.filter(|tile| tile.family() == Family::Matrix).collect()
}

/// What may be measured is what halves and the device allow; a measured tile is used for problems that it fits.
#[test]
fn measured_matrices_are_used_where_they_fit() {
    let gpu = device(DeviceClass::Discrete, &MatrixShape::ALL);
    let many = halves(AttentionShape::new(1, 8, 512, 512, 64));
    let problem = Problem::new(&many).unwrap();
    let candidates = matrix_candidates(&problem, &gpu);
    assert!(candidates.len() > 4, "{candidates:?}");
    for tile in &candidates {
        let plan = Plan::new(&problem, &tuned(&gpu, &problem, tile)).unwrap();
        assert_eq!(plan.tuned(), Some(tile));
        assert!(
            is_matrix(&plan) && plan.tile().workgroup_bytes_for(&problem) <= 32 << 10,
            "{plan}"
        );
        assert!(plan.to_string().contains(&tile.to_string()), "{plan}");
    }
    // Of tiles as measured for the tile family, too.
    let tile = TunedTile::Tile {
        row: "32x32 resident".into(),
        tile_q: 32,
    };
    assert!(!is_matrix(&Plan::new(&problem, &tuned(&gpu, &problem, &tile)).unwrap()));

    let matrix = |q_squares, kv_squares, query_resident| TunedTile::Matrix {
        q_squares,
        kv_squares,
        query_resident,
    };
    let wide = Problem::new(&halves(AttentionShape::new(1, 8, 512, 512, 256))).unwrap();
    let singles = AttentionDescriptor {
        dtypes: DTypes {
            query: DType::F32,
            ..many.dtypes
        },
        ..many
    };
    let singles = Problem::new(&singles).unwrap();
    let software = device(DeviceClass::Cpu, &MatrixShape::ALL);
    assert!(matrix_candidates(&singles, &gpu).is_empty() && matrix_candidates(&problem, &software).is_empty());
    for (caps, problem, tile) in [
        (&gpu, &problem, matrix(3, 2, true)),
        (&gpu, &problem, matrix(4, 0, true)),
        (&gpu, &problem, matrix(u32::MAX, 4, true)),
        // More channels than registers hold, and more bytes than there are.
        (&gpu, &wide, matrix(4, 2, false)),
        (&gpu, &wide, matrix(4, 4, true)),
        (&gpu, &singles, matrix(4, 2, true)),
        (&software, &problem, matrix(4, 2, true)),
    ] {
        let plan = Plan::new(problem, &tuned(caps, problem, &tile)).unwrap();
        assert_eq!(plan, Plan::new(problem, caps).unwrap(), "{tile}");
    }
}

/// And each of them is right.
#[test]
fn measured_matrices_agree_with_the_reference() {
    for (name, engine, shape) in engines_of_halves() {
        if shape == MatrixShape::F16Size8 && engine.caps().class == DeviceClass::Discrete {
            let descriptor = AttentionDescriptor {
                causal: Some(LOWER),
                ..halves(AttentionShape::new(1, 2, 300, 310, 32))
            };
            let problem = Problem::new(&descriptor).unwrap();
            let candidates = matrix_candidates(&problem, engine.caps());
            assert!(candidates.len() > 4, "{candidates:?}");
            for tile in candidates {
                let engine = engine.with_caps(tuned(engine.caps(), &problem, &tile));
                assert_eq!(engine.plan(&descriptor).unwrap().tuned(), Some(&tile));
                check(&format!("{name}, {tile}"), &engine, &descriptor, 6);
            }
        }
    }
}

/// GPUs that have them multiply matrices for many rows of halves, and for nothing else unless asked to.
#[test]
fn plans_have_matrices_where_they_are_for() {
    let gpu = device(DeviceClass::Discrete, &MatrixShape::ALL);
    let many = halves(AttentionShape::new(1, 8, 512, 512, 64));
    assert!(is_matrix(&plan(&many, &gpu)));
    assert_eq!(plan(&many, &gpu).tile().matrix, Some(MatrixShape::F16Size16));
    let apple = device(DeviceClass::Integrated, &[MatrixShape::F16Size8, MatrixShape::F32Size8]);
    assert_eq!(plan(&many, &apple).tile().matrix, Some(MatrixShape::F16Size8));
    for head_dim in [40, 64, 80, 96, 128, 192, 256] {
        let sized = halves(AttentionShape::new(1, 8, 512, 512, head_dim));
        assert!(is_matrix(&plan(&sized, &gpu)), "{head_dim}");
    }

    let few = halves(AttentionShape::new(1, 8, 4, 512, 64));
    let singles = AttentionDescriptor {
        dtypes: DTypes::all(DType::F32),
        ..many.clone()
    };
    let frequencies = RopeFrequencies::from_inv_freq(vec![1.0], 1.0).unwrap();
    let turned = AttentionDescriptor {
        rope: Some(AttentionRope {
            frequencies: &frequencies,
            pairing: RopePairing::HalfSplit,
            query: Some(RopePositions::Offset(0)),
            key: Some(RopePositions::Offset(0)),
        }),
        ..many.clone()
    };
    for descriptor in [&few, &singles, &turned] {
        assert!(!is_matrix(&plan(descriptor, &gpu)), "{descriptor:?}");
    }
    let mut others = [
        device(DeviceClass::Discrete, &[]),
        device(DeviceClass::Discrete, &[MatrixShape::F32Size8]),
        device(DeviceClass::Cpu, &MatrixShape::ALL),
        DeviceCaps {
            shader_f16: false,
            ..gpu.clone()
        },
        gpu.clone().at_most(Tier::Portable),
        DeviceCaps {
            only_family: Some(Family::Tile),
            ..gpu.clone()
        },
    ];
    for caps in &others {
        assert!(!is_matrix(&plan(&many, caps)), "{caps:?}");
    }

    // Asked to.
    let forced = DeviceCaps {
        only_family: Some(Family::Matrix),
        ..gpu
    };
    assert!(is_matrix(&plan(&few, &forced)));
    for descriptor in [&singles, &turned] {
        assert_eq!(plan(descriptor, &forced).tile().matrix, Some(MatrixShape::F32Size8));
    }
    others[2].only_family = Some(Family::Matrix);
    assert!(is_matrix(&plan(&many, &others[2])));
    // Singles are not rounded to halves for it.
    let only_halves = DeviceCaps {
        matrix_shapes: vec![MatrixShape::F16Size16],
        ..forced
    };
    for descriptor in [&singles, &turned] {
        assert!(!is_matrix(&plan(descriptor, &only_halves)));
    }
}

/// Subgroups of every size that there is, in tiles that every one of them has a share of.
#[test]
fn tiles_fit_the_subgroups_and_the_memory() {
    for (least, most) in [(8, 8), (16, 16), (32, 32), (32, 64), (64, 64)] {
        for shape in MatrixShape::ALL {
            for head_dim in [1, 64, 100, 128, 256] {
                let caps = DeviceCaps {
                    subgroup_sizes: Some((least, most)),
                    only_family: Some(Family::Matrix),
                    ..device(DeviceClass::Discrete, &[shape])
                };
                let plan = plan(&halves(AttentionShape::new(1, 1, 100, 100, head_dim)), &caps);
                let tile = plan.tile();
                if !is_matrix(&plan) {
                    // Rows of singles that are longer than the memory.
                    assert_eq!(
                        (shape, head_dim),
                        (MatrixShape::F32Size8, 256),
                        "{least} to {most}: {plan}"
                    );
                    continue;
                }
                assert!(tile.workgroup_bytes_for(plan.problem()) <= 32 << 10, "{plan}");
                let squares = tile.tile_q / tile.matrix_size();
                for lanes in [least, most] {
                    let subgroups = tile.threads() / lanes;
                    assert!(subgroups.is_multiple_of(squares) && subgroups / squares <= 2, "{plan}");
                }
            }
        }
    }
    let caps = DeviceCaps {
        subgroup_sizes: Some((8, 32)),
        ..device(DeviceClass::Discrete, &MatrixShape::ALL)
    };
    assert!(!is_matrix(&plan(
        &halves(AttentionShape::new(1, 1, 100, 100, 64)),
        &caps
    )));
}
