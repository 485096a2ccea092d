//! One suite over every way to compute, every adapter present and every tier: against the `f64` reference, with outputs
//! poisoned before each run, and twice, since the same call must give the same bits.

mod support;

use support::run::{check, check_inputs, run};
use support::{OwnedInputs, Tolerance, compare, engines, engines_and_gpus, engines_of_every_family};
use wgpu_attention::kernel::source::Unroll;
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, BufferAt, CausalAlignment, DeviceCaps, DeviceClass,
    Engine, Family, Inputs, KeyPadding, Layout, Layouts, Operand, OutputBuffers, Outputs, Problem, Strides, Tensor,
    TextOptions,
};

const LSE: Outputs = Outputs {
    lse: true,
    weights: false,
    scores: None,
    rows: None,
};
const ALL: Outputs = Outputs {
    lse: true,
    weights: true,
    scores: None,
    rows: None,
};

/// Both ways, each with as many outputs as it has.
fn both(descriptor: AttentionDescriptor<'static>) -> [AttentionDescriptor<'static>; 2] {
    [
        AttentionDescriptor {
            algorithm: Algorithm::Fused,
            outputs: LSE,
            ..descriptor.clone()
        },
        AttentionDescriptor {
            algorithm: Algorithm::ThreeKernels,
            outputs: ALL,
            ..descriptor
        },
    ]
}

/// Problems that meet every hook, tail and layout at least once.
fn descriptors() -> Vec<AttentionDescriptor<'static>> {
    let causal = [
        None,
        Some(CausalAlignment::UpperLeft),
        Some(CausalAlignment::LowerRight),
    ];
    let mut all = Vec::new();
    // Sizes around the tiles, without masks and causal.
    for (index, (seqlen_q, seqlen_k)) in [
        (1, 1),
        (1, 129),
        (7, 127),
        (8, 32),
        (9, 33),
        (31, 1),
        (32, 257),
        (33, 64),
        (127, 7),
        (129, 129),
    ]
    .into_iter()
    .enumerate()
    {
        let shape = AttentionShape {
            kv_heads: 2,
            ..AttentionShape::new(2, 4, seqlen_q, seqlen_k, 64)
        };
        all.push(AttentionDescriptor {
            shape,
            causal: causal[index % 3],
            ..Default::default()
        });
        all.push(AttentionDescriptor {
            shape,
            causal: causal[(index + 1) % 3],
            ..Default::default()
        });
    }
    // Few rows over many keys: runs of them, and heads that share them.
    for causal in [None, Some(CausalAlignment::LowerRight)] {
        all.push(AttentionDescriptor {
            shape: AttentionShape {
                kv_heads: 2,
                ..AttentionShape::new(1, 8, 3, 2001, 64)
            },
            causal,
            ..Default::default()
        });
    }
    // Head sizes: odd, large, different.
    for (head_dim, head_dim_v) in [(1, 1), (3, 5), (33, 65), (16, 130), (128, 128), (192, 128), (576, 512)] {
        let shape = AttentionShape {
            kv_heads: 1,
            head_dim_v,
            ..AttentionShape::new(1, 2, 35, 41, head_dim)
        };
        all.push(AttentionDescriptor {
            shape,
            ..Default::default()
        });
    }
    // Masks, biases and padding, alone, together and broadcast.
    let shape = AttentionShape::new(2, 3, 37, 45, 20);
    let full = Broadcast::new([2, 3, 37, 45]);
    let plain = AttentionDescriptor {
        shape,
        ..Default::default()
    };
    all.push(AttentionDescriptor {
        mask: Some(full),
        ..plain.clone()
    });
    all.push(AttentionDescriptor {
        bias: Some(full),
        ..plain.clone()
    });
    all.push(AttentionDescriptor {
        key_padding: Some(KeyPadding::Boolean),
        ..plain.clone()
    });
    all.push(AttentionDescriptor {
        key_padding: Some(KeyPadding::Additive),
        ..plain.clone()
    });
    for shape in [
        [1, 1, 1, 1],
        [1, 1, 1, 45],
        [2, 1, 37, 1],
        [1, 3, 37, 45],
        [2, 3, 1, 45],
    ] {
        let broadcast = Some(Broadcast::new(shape));
        all.push(AttentionDescriptor {
            mask: broadcast,
            bias: broadcast,
            ..plain.clone()
        });
    }
    all.push(AttentionDescriptor {
        causal: causal[2],
        mask: Some(Broadcast {
            shape: [2, 3, 37, 45],
            strides: Some([10_007, 3_001, 61, 1]),
        }),
        bias: Some(Broadcast {
            shape: [2, 3, 37, 45],
            strides: Some([1, 2, 270, 6]),
        }),
        key_padding: Some(KeyPadding::Boolean),
        ..plain.clone()
    });
    // Keys at the end that are open to all.
    for appended_keys in [1, 2, 45] {
        let masked = 45 - appended_keys;
        let mask = (masked > 0).then_some(Broadcast::new([2, 1, 37, masked]));
        let key_padding = (masked > 0).then_some(KeyPadding::Additive);
        all.push(AttentionDescriptor {
            appended_keys,
            mask,
            key_padding,
            causal: causal[1],
            ..plain.clone()
        });
    }
    // Scales.
    for scale in [-0.7, 0.0, 3.0] {
        all.push(AttentionDescriptor {
            scale: Some(scale),
            ..plain.clone()
        });
    }
    // Layouts: the other contiguous one, and strides with gaps, odd and even, and a broadcast key.
    all.push(AttentionDescriptor {
        layouts: Layouts::all(Layout::Bshd),
        causal: causal[2],
        ..plain.clone()
    });
    let strided = |batch, head, row| Layout::Strided(Strides { batch, head, row });
    for layouts in [
        Layouts {
            query: strided(5000, 1001, 23),
            key: strided(0, 0, 21),
            value: strided(7, 4000, 29),
            out: strided(20, 4001, 61),
        },
        Layouts {
            query: strided(5000, 1000, 24),
            key: strided(0, 0, 20),
            value: strided(8, 4000, 28),
            out: strided(20, 4000, 64),
        },
    ] {
        all.push(AttentionDescriptor {
            layouts,
            mask: Some(full),
            ..plain.clone()
        });
    }
    all
}

#[test]
fn every_kernel_agrees_with_the_reference() {
    for (name, engine) in engines_of_every_family() {
        for (seed, descriptor) in descriptors().into_iter().enumerate() {
            for descriptor in both(descriptor) {
                check(&name, &engine, &descriptor, seed as u64);
            }
        }
    }
}

/// Without weights to hand out, the three kernels keep their scores in a workspace, a block of rows at a time.
/// GPUs have the split family for few rows; here for all, with the lanes of a key in reach of each other and not.
#[test]
fn lanes_that_share_keys_agree_with_the_reference() {
    let gpus = engines_and_gpus()
        .into_iter()
        .filter(|(_, engine)| engine.caps().class != DeviceClass::Cpu);
    for (name, engine) in gpus {
        let engine = engine.with_caps(DeviceCaps {
            only_family: Some(Family::Split),
            ..engine.caps().clone()
        });
        let share = |descriptor: &AttentionDescriptor<'_>| engine.plan(descriptor).unwrap().tile().share;
        let mut shared = 0;
        // Some are enough of the many that differ in sizes.
        for (seed, descriptor) in descriptors()
            .into_iter()
            .enumerate()
            .filter(|(index, _)| index % 6 == 1 || *index > 42)
        {
            let [fused, _] = both(descriptor);
            shared += u32::from(share(&fused) == 8);
            check(&name, &engine, &fused, seed as u64);
        }
        assert!(shared > 10, "{name}: {shared}");
    }
}

#[test]
fn three_kernels_without_weights() {
    for (name, engine) in engines() {
        let descriptor = AttentionDescriptor {
            shape: AttentionShape {
                kv_heads: 2,
                ..AttentionShape::new(2, 4, 129, 127, 64)
            },
            causal: Some(CausalAlignment::LowerRight),
            algorithm: Algorithm::ThreeKernels,
            ..Default::default()
        };
        check(&name, &engine, &descriptor, 1);
        let caps = with_binding_limit(engine.caps(), 20_000);
        let small = engine.with_caps(caps);
        let blocks = small
            .plan(&descriptor)
            .unwrap()
            .passes()
            .iter()
            .filter(|pass| pass.block.is_some())
            .count();
        assert!(blocks > 30, "{blocks} passes");
        check(&name, &small, &descriptor, 1);
    }
}

fn with_binding_limit(caps: &DeviceCaps, bytes: u64) -> DeviceCaps {
    let mut caps = caps.clone();
    caps.limits.max_storage_buffer_binding_bytes = bytes;
    caps
}

/// Plans that are cut by each limit compute the same.
#[test]
fn limits_are_planned_for() {
    for (name, engine) in engines() {
        let mut caps = Vec::new();
        // Windows: rows of one head, then keys of one head, no longer fit a binding.
        caps.push(with_binding_limit(engine.caps(), 140_000));
        caps.push(with_binding_limit(engine.caps(), 124_000));
        let mut narrow = engine.caps().clone();
        narrow.limits.max_workgroups_per_dimension = 3;
        caps.push(narrow);
        let mut short = engine.caps().clone();
        short.max_dispatch_flops = 3e5;
        caps.push(short);
        let mut few_trips = engine.caps().clone();
        few_trips.max_loop_trips = Some(250);
        caps.push(few_trips);
        for (index, caps) in caps.into_iter().enumerate() {
            let limited = engine.with_caps(caps);
            for layout in [Layout::Bhsd, Layout::Bshd] {
                for (causal, head_dim_v) in [(None, 32), (Some(CausalAlignment::LowerRight), 160)] {
                    let descriptor = AttentionDescriptor {
                        shape: AttentionShape {
                            kv_heads: 2,
                            head_dim_v,
                            ..AttentionShape::new(2, 6, 70, 300, 32)
                        },
                        layouts: Layouts::all(layout),
                        causal,
                        mask: causal.map(|_| Broadcast::new([2, 1, 70, 300])),
                        key_padding: causal.map(|_| KeyPadding::Boolean),
                        ..Default::default()
                    };
                    for descriptor in both(descriptor) {
                        let plan = limited.plan(&descriptor).unwrap();
                        assert!(
                            plan.passes().len() > 1 || index > 1,
                            "limit {index} cuts nothing: {plan}"
                        );
                        check(&format!("{name}, limit {index}"), &limited, &descriptor, index as u64);
                    }
                }
            }
        }
    }
}

/// A device with WebGPU's default limits and no feature, shared with the engine by its caller.
#[test]
fn the_default_limits_suffice() {
    for adapter in wgpu_attention::adapters(None) {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_limits: wgpu::Limits::default(),
            ..Default::default()
        }))
        .unwrap();
        let engine = Engine::from_wgpu(&adapter, device, queue);
        assert!(engine.caps().limits.max_workgroup_bytes <= 16 << 10);
        for head_dim in [64, 512] {
            let descriptor = AttentionDescriptor {
                shape: AttentionShape::new(1, 2, 65, 67, head_dim),
                causal: Some(CausalAlignment::LowerRight),
                mask: Some(Broadcast::new([1, 2, 65, 67])),
                bias: Some(Broadcast::new([1, 2, 65, 67])),
                key_padding: Some(KeyPadding::Boolean),
                ..Default::default()
            };
            for descriptor in both(descriptor) {
                check("default limits", &engine, &descriptor, 5);
            }
        }
    }
}

/// Some drivers end loops silently after 65,535 trips; the plan must know (Mesa 22.3.6 is one).
#[test]
fn long_sequences_are_visited_to_their_end() {
    for (name, engine) in engines_of_every_family() {
        let shape = AttentionShape {
            kv_heads: 1,
            ..AttentionShape::new(1, 2, 3, 150_001, 8)
        };
        let descriptor = AttentionDescriptor {
            shape,
            algorithm: Algorithm::Fused,
            outputs: LSE,
            ..Default::default()
        };
        check(&name, &engine, &descriptor, 9);
        let descriptor = AttentionDescriptor {
            algorithm: Algorithm::ThreeKernels,
            ..descriptor
        };
        check(&name, &engine, &descriptor, 9);
    }
}

/// What stands behind a mask is never seen; what stands in the open is.
#[test]
fn not_a_number_behind_a_mask_stays_there() {
    for (name, engine) in engines_of_every_family() {
        let shape = AttentionShape::new(1, 2, 40, 70, 32);
        let descriptor = AttentionDescriptor {
            shape,
            key_padding: Some(KeyPadding::Boolean),
            ..Default::default()
        };
        let problem = Problem::new(&descriptor).unwrap();
        let mut inputs = OwnedInputs::random(&problem, 3);
        let padding = inputs.padding_bytes.as_mut().unwrap();
        for (key, byte) in padding.iter_mut().enumerate() {
            *byte = u8::from(key % 3 != 0);
        }
        for head in 0..2 {
            for key in (0..70).step_by(3) {
                let row = (head * 70 + key) * 32;
                inputs.key.singles()[row..row + 32].fill(f32::NAN);
                inputs.value.singles()[row..row + 32].fill(if key % 2 == 0 { f32::NAN } else { f32::INFINITY });
            }
        }
        for descriptor in both(descriptor.clone()) {
            check_inputs(&name, &engine, &descriptor, &inputs);
        }
        // One open NaN in a value poisons its channel, one in a query its row; nothing else.
        inputs.value.singles()[(70 + 1) * 32 + 5] = f32::NAN;
        inputs.query.singles()[3 * 32] = f32::NAN;
        for descriptor in both(descriptor.clone()) {
            check_inputs(&name, &engine, &descriptor, &inputs);
        }
        // One in a key, which some rows alone see: these rows. The fused kernel's weights come from the lse.
        inputs.key.singles()[(70 + 61) * 32 + 9] = f32::NAN;
        let descriptor = AttentionDescriptor {
            causal: Some(CausalAlignment::LowerRight),
            ..descriptor
        };
        let fused_weights = AttentionDescriptor {
            algorithm: Algorithm::Fused,
            outputs: ALL,
            ..descriptor.clone()
        };
        for descriptor in both(descriptor).into_iter().chain([fused_weights]) {
            check_inputs(&name, &engine, &descriptor, &inputs);
        }
    }
}

/// Infinities and NaN in the open, some behind a causal rule for some rows, in one channel or several: in one dispatch, and where
/// several go on from each other's results.
#[test]
fn values_that_are_not_finite_meet_in_their_channels() {
    let shape = AttentionShape::new(1, 2, 75, 75, 24);
    let odd = [
        (3, 1, f32::INFINITY),
        (9, 2, f32::NEG_INFINITY),
        (11, 4, f32::NAN),
        (20, 1, f32::INFINITY),
    ];
    let later = [
        (33, 1, f32::NEG_INFINITY),
        (40, 5, f32::INFINITY),
        (70, 2, f32::INFINITY),
        (74, 7, f32::NEG_INFINITY),
    ];
    for (name, engine) in engines_of_every_family() {
        for (causal, mask) in [
            (Some(CausalAlignment::LowerRight), None),
            (None, Some(Broadcast::new([1, 1, 75, 75]))),
            (None, None),
        ] {
            let descriptor = AttentionDescriptor {
                shape,
                causal,
                mask,
                outputs: Outputs {
                    lse: true,
                    ..Default::default()
                },
                ..Default::default()
            };
            let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 11);
            for (key, channel, value) in odd.into_iter().chain(later) {
                inputs.value.singles()[key * 24 + channel] = value;
            }
            for max_loop_trips in [engine.caps().max_loop_trips, Some(400)] {
                let caps = DeviceCaps {
                    max_loop_trips,
                    ..engine.caps().clone()
                };
                check_inputs(&name, &engine.with_caps(caps), &descriptor, &inputs);
            }
        }
    }
}

/// Problems so large that software drivers have other tiles for them, with a mask, and values that are not finite.
#[test]
fn large_problems_have_tiles_of_their_own() {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 1, 2053, 3851, 64),
        causal: Some(CausalAlignment::LowerRight),
        mask: Some(Broadcast::new([1, 1, 2053, 3851])),
        ..Default::default()
    };
    let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 5);
    inputs.value.singles()[3000 * 64 + 7] = f32::NEG_INFINITY;
    inputs.value.singles()[3700 * 64 + 9] = f32::NAN;
    let engine = support::engine();
    if engine.caps().rows_in_loops {
        assert_eq!(engine.plan(&descriptor).unwrap().tile().rows(), 8);
    }
    check_inputs("the first adapter", &engine, &descriptor, &inputs);
}

/// Finite biases as low as they get are not the same as closed.
#[test]
fn the_lowest_finite_bias_is_open() {
    for (name, engine) in engines_of_every_family() {
        let shape = AttentionShape::new(1, 1, 4, 6, 16);
        let bias = Some(Broadcast::new([1, 1, 4, 6]));
        let descriptor = AttentionDescriptor {
            shape,
            bias,
            ..Default::default()
        };
        let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 4);
        let bias = inputs.bias.as_mut().unwrap().singles();
        bias[..6].fill(f32::MIN);
        bias[6..12].fill(f32::NEG_INFINITY);
        bias[12..18].copy_from_slice(&[f32::MIN, 0.0, f32::NEG_INFINITY, 1.0, -1e30, 2.0]);
        for descriptor in both(descriptor) {
            check_inputs(&name, &engine, &descriptor, &inputs);
        }
    }
}

/// Operands anywhere in larger buffers, at offsets that are multiples of 4 but not of 16, or of nothing for byte masks.
#[test]
fn operands_lie_at_offsets_in_the_callers_buffers() {
    for (name, engine) in engines_of_every_family() {
        for offset in [16u64, 4] {
            let shape = AttentionShape::new(1, 2, 33, 40, 16);
            let mask = Some(Broadcast::new([1, 2, 33, 40]));
            for descriptor in both(AttentionDescriptor {
                shape,
                mask,
                ..Default::default()
            }) {
                let attention = engine.prepare(&descriptor).unwrap();
                let problem = attention.plan().problem();
                let inputs = OwnedInputs::random(problem, 6);
                let shifted = |data: &[u8], offset: u64| {
                    let mut bytes = vec![0xff; offset as usize];
                    bytes.extend_from_slice(data);
                    bytes.extend_from_slice(&[0xff; 64]);
                    engine.upload_bytes(&bytes).unwrap()
                };
                let query = shifted(inputs.query.host().bytes(), offset);
                let key = shifted(inputs.key.host().bytes(), 2 * offset);
                let value = shifted(inputs.value.host().bytes(), 3 * offset);
                let mask = shifted(inputs.mask.as_ref().unwrap(), offset + 3);
                let want = reference::attention(problem, &inputs.host(&[])).unwrap();
                // Out and lse in one buffer, the weights in another.
                let out_bytes = problem.span_bytes(Operand::Out).unwrap();
                let lse_bytes = problem.span_bytes(Operand::Lse).unwrap();
                let outputs = engine.allocate(offset + out_bytes + lse_bytes).unwrap();
                let weights = problem
                    .span_bytes(Operand::Weights)
                    .map(|bytes| engine.allocate(bytes).unwrap());
                let at = |tensor, offset_bytes| BufferAt {
                    buffer: Tensor::buffer(tensor),
                    offset_bytes,
                };
                let bound = attention
                    .bind(
                        &Inputs {
                            mask: Some(at(&mask, offset + 3)),
                            ..Inputs::new(at(&query, offset), at(&key, 2 * offset), at(&value, 3 * offset))
                        },
                        &OutputBuffers {
                            out: at(&outputs, offset),
                            lse: Some(at(&outputs, offset + out_bytes)),
                            weights: weights.as_ref().map(Into::into),
                            scores: None,
                        },
                    )
                    .unwrap();
                let mut encoder = engine.device().create_command_encoder(&Default::default());
                bound.encode(&mut encoder);
                engine.queue().submit([encoder.finish()]);
                let all = engine.read(&outputs).unwrap();
                let first = offset as usize / 4;
                let naive = reference::attention_in(Precision::F32, problem, &inputs.host(&[])).unwrap();
                let tolerance = Tolerance::derived(&naive.out, &want.out);
                let end = first + want.out.len();
                compare(&all[first..end], &want.out, tolerance).unwrap_or_else(|error| panic!("{name}: {error}"));
                let tolerance = Tolerance::derived(&naive.lse, &want.lse);
                compare(&all[end..], &want.lse, tolerance).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(all[..first].iter().all(|value| value.to_bits() == 0));
            }
        }
    }
}

/// Marked loops compute the same whether the composer expands them or the driver runs them as they stand.
/// The broadcast and split families are not among the rolled: a broadcast's lane must be a constant, which only unrolling makes of it.
#[test]
fn rolled_and_checked_texts_compute_the_same() {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape {
            kv_heads: 1,
            ..AttentionShape::new(1, 2, 7, 41, 20)
        },
        causal: Some(CausalAlignment::LowerRight),
        key_padding: Some(KeyPadding::Boolean),
        ..Default::default()
    };
    for (name, engine) in engines_of_every_family() {
        let mut others = vec![engine.with_text_options(TextOptions {
            checked: true,
            ..Default::default()
        })];
        if engine.caps().only_family == Some(Family::Tile) {
            others.push(engine.with_text_options(TextOptions {
                unroll: Unroll::Rolled,
                ..Default::default()
            }));
        }
        for descriptor in both(descriptor.clone()) {
            let inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 3);
            for other in &others {
                check_inputs(&name, other, &descriptor, &inputs);
                assert_eq!(
                    run(&engine, &descriptor, &inputs),
                    run(other, &descriptor, &inputs),
                    "{name}"
                );
            }
        }
    }
}
