//! Every feature of the forward pass, alone and with others, in both ways to compute, on every adapter and tier.

mod support;

use support::inputs::Numbers;
use support::run::{Mods, check, check_inputs, check_mods, run};
use support::{OwnedInputs, engines, engines_and_gpus, matrix_engines};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionRope, AttentionShape, Broadcast, Capture, CaptureElement, CausalAlignment,
    DType, DTypes, Dropout, DropoutKeep, Engine, Error, HostInputs, KeyPadding, Layout, Layouts, Operand, Outputs,
    Packed, Problem, RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies, RopeHostInputs, RopePairing,
    RopePositions, ScoreStage, Strides, Window,
};

type Descriptor = AttentionDescriptor<'static>;

const UPPER: CausalAlignment = CausalAlignment::UpperLeft;
const LOWER: CausalAlignment = CausalAlignment::LowerRight;

fn both(descriptor: &Descriptor) -> [Descriptor; 2] {
    [Algorithm::Fused, Algorithm::ThreeKernels].map(|algorithm| AttentionDescriptor {
        algorithm,
        ..descriptor.clone()
    })
}

/// Each descriptor both ways, with lse and weights, on every engine.
fn check_all(descriptors: &[Descriptor]) {
    for (name, engine) in engines_and_gpus().into_iter().chain(matrix_engines()) {
        for (seed, descriptor) in (0..).zip(descriptors) {
            for descriptor in both(descriptor) {
                let outputs = Outputs {
                    lse: true,
                    weights: true,
                    ..descriptor.outputs
                };
                check(&name, &engine, &AttentionDescriptor { outputs, ..descriptor }, seed);
            }
        }
    }
}

fn shape(seqlen_q: u32, seqlen_k: u32) -> AttentionShape {
    AttentionShape {
        kv_heads: 2,
        ..AttentionShape::new(2, 4, seqlen_q, seqlen_k, 20)
    }
}

fn plain(seqlen_q: u32, seqlen_k: u32) -> Descriptor {
    AttentionDescriptor {
        shape: shape(seqlen_q, seqlen_k),
        ..Default::default()
    }
}

fn window(left: Option<u32>, right: Option<u32>, alignment: CausalAlignment) -> Option<Window> {
    Some(Window { left, right, alignment })
}

#[test]
fn windows() {
    let mut all = Vec::new();
    for (seqlen_q, seqlen_k) in [(129, 129), (7, 127), (127, 7), (1, 257), (70, 100)] {
        for (left, right) in [
            (Some(0), Some(0)),
            (Some(5), None),
            (None, Some(40)),
            (Some(33), Some(2)),
        ] {
            for alignment in [UPPER, LOWER] {
                all.push(AttentionDescriptor {
                    window: window(left, right, alignment),
                    causal: (left == Some(33)).then_some(alignment),
                    ..plain(seqlen_q, seqlen_k)
                });
            }
        }
    }
    // With masks, and with keys that are open to all.
    all.push(AttentionDescriptor {
        window: window(Some(9), Some(3), LOWER),
        causal: Some(UPPER),
        mask: Some(Broadcast::new([2, 1, 45, 60])),
        bias: Some(Broadcast::new([1, 4, 45, 60])),
        key_padding: Some(KeyPadding::Boolean),
        ..plain(45, 60)
    });
    all.push(AttentionDescriptor {
        window: window(Some(4), Some(4), LOWER),
        appended_keys: 2,
        ..plain(45, 62)
    });
    // The last rows' windows lie a tile and more behind the last key.
    all.push(AttentionDescriptor {
        window: window(Some(4), None, UPPER),
        appended_keys: 2,
        ..plain(100, 16)
    });
    check_all(&all);
}

#[test]
fn scores_are_capped_and_biased_by_distance() {
    let mut all = Vec::new();
    for (seqlen_q, seqlen_k) in [(129, 127), (7, 33), (1, 129)] {
        for softcap in [0.7, 30.0, 1e4, f32::MAX] {
            all.push(AttentionDescriptor {
                softcap: Some(softcap),
                causal: Some(LOWER),
                ..plain(seqlen_q, seqlen_k)
            });
        }
        all.push(AttentionDescriptor {
            alibi_slopes: true,
            causal: Some(UPPER),
            ..plain(seqlen_q, seqlen_k)
        });
        all.push(AttentionDescriptor {
            alibi_slopes: true,
            softcap: Some(5.0),
            bias: Some(Broadcast::new([1, 1, seqlen_q, seqlen_k])),
            ..plain(seqlen_q, seqlen_k)
        });
    }
    check_all(&all);
}

#[test]
fn sinks() {
    let mut all = Vec::new();
    for (seqlen_q, seqlen_k) in [(129, 127), (7, 33), (1, 129)] {
        all.push(AttentionDescriptor {
            sinks: true,
            ..plain(seqlen_q, seqlen_k)
        });
        all.push(AttentionDescriptor {
            sinks: true,
            causal: Some(LOWER),
            mask: Some(Broadcast::new([2, 1, seqlen_q, seqlen_k])),
            ..plain(seqlen_q, seqlen_k)
        });
    }
    check_all(&all);
}

#[test]
fn dropout() {
    let mut all = Vec::new();
    for (seqlen_q, seqlen_k) in [(129, 127), (7, 33), (1, 129)] {
        for keep in [
            DropoutKeep::Given,
            DropoutKeep::Philox {
                seed: 0x0123_4567_89ab_cdef,
                offset: 7,
            },
        ] {
            all.push(AttentionDescriptor {
                dropout: Some(Dropout { probability: 0.3, keep }),
                causal: Some(LOWER),
                ..plain(seqlen_q, seqlen_k)
            });
        }
    }
    check_all(&all);
}

/// The generator on the GPU is the one on the CPU, bit by bit: with equal scores and one-hot values each weight shows.
#[test]
fn dropout_by_philox_drops_what_the_reference_drops() {
    for (name, engine) in engines() {
        for algorithm in [Algorithm::Fused, Algorithm::ThreeKernels] {
            let shape = AttentionShape {
                head_dim_v: 64,
                ..AttentionShape::new(2, 3, 37, 64, 4)
            };
            let descriptor = AttentionDescriptor {
                shape,
                dropout: Some(Dropout {
                    probability: 0.4,
                    keep: DropoutKeep::Philox { seed: 99, offset: 3 },
                }),
                algorithm,
                ..Default::default()
            };
            let zeros = vec![0.0f32; 2 * 3 * 64 * 4];
            let mut value = vec![0.0f32; 2 * 3 * 64 * 64];
            for head in 0..6 {
                for key in 0..64 {
                    value[(head * 64 + key) * 64 + key] = 1.0;
                }
            }
            let inputs = HostInputs::new(&zeros[..2 * 3 * 37 * 4], &zeros, &value);
            let out = engine.attention(&descriptor, &inputs).unwrap().out;
            for (index, &value) in out.iter().enumerate() {
                let (row, key) = (index / 64, index as u32 % 64);
                let position = [row as u32 / 37, row as u32 % 37, key];
                let kept = wgpu_attention::problem::philox_keeps(0.4, 99, 3, position);
                assert_eq!(value != 0.0, kept, "{name}: {position:?}");
            }
        }
    }
}

#[test]
fn lengths_of_sequences() {
    let mut all = Vec::new();
    for (seqlen_q, seqlen_k) in [(129, 127), (7, 33), (1, 257)] {
        for causal in [None, Some(UPPER), Some(LOWER)] {
            all.push(AttentionDescriptor {
                key_padding: Some(KeyPadding::Lengths),
                causal,
                ..plain(seqlen_q, seqlen_k)
            });
        }
        all.push(AttentionDescriptor {
            key_padding: Some(KeyPadding::Lengths),
            window: window(Some(11), Some(1), LOWER),
            alibi_slopes: true,
            sinks: true,
            ..plain(seqlen_q, seqlen_k)
        });
    }
    check_all(&all);
}

#[test]
fn packed_sequences() {
    let mut all = Vec::new();
    for (batch, tokens_q, tokens_k) in [(5, 150, 190), (1, 40, 40), (9, 30, 64)] {
        let packed = Some(Packed { tokens_q, tokens_k });
        let shape = AttentionShape {
            kv_heads: 2,
            head_dim_v: 24,
            ..AttentionShape::new(batch, 4, 45, 70, 20)
        };
        for (layout, causal) in [
            (Layout::Bshd, None),
            (Layout::Bshd, Some(LOWER)),
            (Layout::Bhsd, Some(UPPER)),
        ] {
            all.push(AttentionDescriptor {
                shape,
                packed,
                causal,
                layouts: Layouts::all(layout),
                ..Default::default()
            });
        }
        all.push(AttentionDescriptor {
            shape,
            packed,
            layouts: Layouts::all(Layout::Bshd),
            window: window(Some(11), Some(3), LOWER),
            alibi_slopes: true,
            softcap: Some(4.0),
            ..Default::default()
        });
        all.push(AttentionDescriptor {
            shape,
            packed,
            layouts: Layouts::all(Layout::Bshd),
            causal: Some(LOWER),
            mask: Some(Broadcast::new([batch, 1, 45, 70])),
            ..Default::default()
        });
        let strided = |row| {
            Layout::Strided(Strides {
                batch: 0,
                head: 27,
                row,
            })
        };
        all.push(AttentionDescriptor {
            shape,
            packed,
            causal: Some(LOWER),
            layouts: Layouts::all(strided(4 * 27 + 1)),
            ..Default::default()
        });
    }
    check_all(&all);
}

/// Numbers and row lengths that are no multiple of a vector, in every storage type, on devices with and without `f16`.
#[test]
fn storage_types() {
    let mut descriptors = Vec::new();
    for dtype in [DType::F16, DType::Bf16] {
        for (head_dim, head_dim_v) in [(64, 64), (20, 24), (33, 7), (1, 1), (130, 66)] {
            for layout in [Layout::Bhsd, Layout::Bshd] {
                descriptors.push(AttentionDescriptor {
                    shape: AttentionShape {
                        kv_heads: 1,
                        head_dim_v,
                        ..AttentionShape::new(2, 2, 37, 45, head_dim)
                    },
                    dtypes: DTypes::all(dtype),
                    layouts: Layouts::all(layout),
                    causal: Some(LOWER),
                    ..Default::default()
                });
            }
        }
    }
    // Each operand in a type of its own, with a bias in a narrow type.
    for (index, bias) in DType::ALL.into_iter().enumerate() {
        let dtype = |number: usize| DType::ALL[(index + number) % 3];
        descriptors.push(AttentionDescriptor {
            dtypes: DTypes {
                query: dtype(0),
                key: dtype(1),
                value: dtype(2),
                out: dtype(1),
                bias,
            },
            bias: Some(Broadcast::new([2, 4, 37, 45])),
            ..plain(37, 45)
        });
    }
    // Rows of out with gaps between them: their neighbours in a word stay.
    let strided = Layout::Strided(Strides {
        batch: 3001,
        head: 701,
        row: 17,
    });
    descriptors.push(AttentionDescriptor {
        shape: AttentionShape::new(2, 4, 37, 45, 13),
        dtypes: DTypes::all(DType::F16),
        layouts: Layouts::all(strided),
        ..Default::default()
    });
    check_all(&descriptors);
    for (name, engine) in engines() {
        let mut caps = engine.caps().clone();
        caps.shader_f16 = false;
        let emulated = engine.with_caps(caps);
        for (seed, descriptor) in (0..).zip(&descriptors) {
            for descriptor in both(descriptor) {
                check(&format!("{name} without f16"), &emulated, &descriptor, seed);
            }
        }
    }
}

/// Long rows of narrow numbers that several dispatches accumulate: in `f32` in between.
#[test]
fn narrow_outputs_are_rounded_once() {
    for (name, engine) in engines() {
        let mut caps = engine.caps().clone();
        caps.max_loop_trips = Some(300);
        let limited = engine.with_caps(caps);
        for (head_dim_v, dtype) in [(32, DType::F16), (7, DType::Bf16), (160, DType::F16)] {
            let descriptor = AttentionDescriptor {
                shape: AttentionShape {
                    head_dim_v,
                    ..AttentionShape::new(2, 2, 35, 700, 16)
                },
                dtypes: DTypes::all(dtype),
                sinks: true,
                ..Default::default()
            };
            for descriptor in both(&descriptor) {
                let plan = limited.plan(&descriptor).unwrap();
                assert!(plan.passes().iter().any(|pass| pass.partial), "{plan}");
                check(&name, &limited, &descriptor, 1);
            }
        }
    }
}

/// Scores at each stage, and weights of some rows only, from either way to compute.
#[test]
fn scores_and_rows_to_look_at() {
    for (name, engine) in engines() {
        for stage in [ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Biased] {
            for rows in [None, Some([0, 1]), Some([30, 47])] {
                for weights in [false, true] {
                    let descriptor = AttentionDescriptor {
                        softcap: Some(2.0),
                        causal: Some(LOWER),
                        mask: Some(Broadcast::new([2, 1, 47, 70])),
                        bias: Some(Broadcast::new([1, 4, 1, 70])),
                        outputs: Outputs {
                            lse: weights && rows.is_none(),
                            weights,
                            scores: Some(stage),
                            rows,
                        },
                        ..plain(47, 70)
                    };
                    for descriptor in both(&descriptor) {
                        check(&name, &engine, &descriptor, 5);
                    }
                    check(&name, &engine, &descriptor, 6);
                }
            }
        }
        let packed = AttentionDescriptor {
            shape: AttentionShape::new(4, 2, 40, 50, 16),
            packed: Some(Packed {
                tokens_q: 90,
                tokens_k: 120,
            }),
            layouts: Layouts::all(Layout::Bshd),
            causal: Some(LOWER),
            outputs: Outputs {
                weights: true,
                scores: Some(ScoreStage::Biased),
                rows: Some([5, 33]),
                ..Default::default()
            },
            ..Default::default()
        };
        for descriptor in both(&packed) {
            check(&name, &engine, &descriptor, 7);
        }
    }
}

/// A NaN in a query reaches the scores of its sequence's keys, and none behind them.
#[test]
fn scores_behind_a_length_are_zero() {
    for (name, engine) in engines() {
        for stage in [ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Biased] {
            let descriptor = AttentionDescriptor {
                key_padding: Some(KeyPadding::Lengths),
                outputs: Outputs {
                    scores: Some(stage),
                    ..Default::default()
                },
                ..plain(9, 40)
            };
            let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 9);
            inputs.query.singles()[25] = f32::NAN;
            inputs.lengths = Some(vec![37, 3]);
            for descriptor in both(&descriptor) {
                check_inputs(&name, &engine, &descriptor, &inputs);
            }
        }
    }
}

const CAPTURES: &[Capture<'static>] = &[
    Capture {
        name: "slope",
        element: CaptureElement::F32,
        len: 4,
    },
    Capture {
        name: "document",
        element: CaptureElement::I32,
        len: 100,
    },
];

fn slopes() -> [f32; 4] {
    [0.5, 0.25, 0.125, -0.25]
}

fn documents() -> Vec<i32> {
    (0..100).map(|position| position / 17).collect()
}

fn with_captures(descriptor: &Descriptor) -> OwnedInputs {
    let mut inputs = OwnedInputs::random(&Problem::new(descriptor).unwrap(), 8);
    inputs.captures = vec![
        bytemuck::cast_slice(&slopes()).to_vec(),
        bytemuck::cast_slice(&documents()).to_vec(),
    ];
    inputs
}

const SCORE_MOD: &str = "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    let distance = f32(i32(q_idx) - i32(kv_idx));
    return select(score - slope[head] * distance, NEGATIVE_INFINITY, kv_idx % 7u == 3u && batch == 0u);
}";

const MASK_MOD: &str = "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return document[q_idx] == document[kv_idx];
}";

const PROB_MOD: &str = "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return prob * prob + select(0.0, 0.25, q_idx == kv_idx);
}";

/// The caller's functions, together with the built-in rules.
#[test]
fn functions_of_the_callers_own() {
    let score_mod = |score: f64, [batch, head, q_idx, kv_idx]: [u32; 4]| {
        if kv_idx % 7 == 3 && batch == 0 {
            return f64::NEG_INFINITY;
        }
        score - f64::from(slopes()[head as usize]) * (f64::from(q_idx) - f64::from(kv_idx))
    };
    let documents = documents();
    let mask_mod = |[_, _, q_idx, kv_idx]: [u32; 4]| documents[q_idx as usize] == documents[kv_idx as usize];
    let prob_mod = |prob: f64, [_, _, q_idx, kv_idx]: [u32; 4]| prob * prob + if q_idx == kv_idx { 0.25 } else { 0.0 };
    for (name, engine) in engines() {
        for (with_score, with_mask, with_prob) in [
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (false, false, true),
            (true, true, true),
        ] {
            let descriptor = AttentionDescriptor {
                causal: with_score.then_some(LOWER),
                softcap: with_mask.then_some(3.0),
                mods: wgpu_attention::Mods {
                    score_mod: with_score.then_some(SCORE_MOD),
                    mask_mod: with_mask.then_some(MASK_MOD),
                    prob_mod: with_prob.then_some(PROB_MOD),
                    captures: CAPTURES,
                },
                outputs: Outputs {
                    lse: true,
                    weights: true,
                    ..Default::default()
                },
                ..plain(70, 100)
            };
            let inputs = with_captures(&descriptor);
            let mods = Mods {
                score_mod: with_score.then_some(&score_mod),
                mask_mod: with_mask.then_some(&mask_mod),
                prob_mod: with_prob.then_some(&prob_mod),
            };
            for descriptor in both(&descriptor) {
                if with_prob && descriptor.algorithm == Algorithm::Fused {
                    assert!(matches!(Problem::new(&descriptor), Err(Error::Unsupported { .. })));
                    continue;
                }
                check_mods(&name, &engine, &descriptor, &inputs, &mods);
            }
        }
    }
}

/// A prob_mod that opens positions: never behind a sequence's end, whose keys and values are NaN.
#[test]
fn a_prob_mod_opens_nothing_behind_a_length() {
    let prob_mod = |prob: f64, [_, _, q_idx, kv_idx]: [u32; 4]| prob * prob + if q_idx == kv_idx { 0.25 } else { 0.0 };
    let mods = Mods {
        prob_mod: Some(&prob_mod),
        ..Default::default()
    };
    let descriptor = |weights| AttentionDescriptor {
        causal: Some(LOWER),
        mods: wgpu_attention::Mods {
            prob_mod: Some(PROB_MOD),
            captures: CAPTURES,
            ..Default::default()
        },
        outputs: Outputs {
            lse: true,
            weights,
            ..Default::default()
        },
        ..plain(37, 45)
    };
    for (name, engine) in engines() {
        for weights in [false, true] {
            let padded = AttentionDescriptor {
                key_padding: Some(KeyPadding::Lengths),
                ..descriptor(weights)
            };
            let mut inputs = with_captures(&padded);
            inputs.lengths = Some(vec![31, 0]);
            let shape = padded.shape;
            for (row, key) in (0..shape.batch * shape.kv_heads * shape.seqlen_k).map(|row| (row, row % shape.seqlen_k))
            {
                let open = if row < shape.kv_heads * shape.seqlen_k { 31 } else { 0 };
                let channels = row as usize * shape.head_dim as usize..(row as usize + 1) * shape.head_dim as usize;
                if key >= open {
                    inputs.key.singles()[channels.clone()].fill(f32::NAN);
                    inputs.value.singles()[channels].fill(f32::NAN);
                }
            }
            check_mods(&name, &engine, &padded, &inputs, &mods);
            let packed = AttentionDescriptor {
                packed: Some(Packed {
                    tokens_q: 50,
                    tokens_k: 70,
                }),
                layouts: Layouts::all(Layout::Bshd),
                ..descriptor(weights)
            };
            check_mods(&name, &engine, &packed, &with_captures(&packed), &mods);
        }
    }
}

/// A weight of 0 at an open position, be it that it underflowed, that a function made it, or that it was dropped: a NaN in the
/// value there spreads, and one at a closed position does not.
#[test]
fn not_a_number_spreads_from_a_weight_of_zero() {
    let mut descriptor = AttentionDescriptor {
        causal: Some(UPPER),
        bias: Some(Broadcast::new([1, 1, 1, 45])),
        outputs: Outputs {
            weights: true,
            ..Default::default()
        },
        ..plain(37, 45)
    };
    let prepared = |descriptor: &Descriptor, key: usize| {
        let mut inputs = with_captures(descriptor);
        let channels = descriptor.shape.head_dim_v as usize;
        inputs.value.singles()[key * channels + 3] = f32::NAN;
        inputs
    };
    let negative = |prob: f64, [_, _, q_idx, kv_idx]: [u32; 4]| match kv_idx % 3 {
        2 => 0.0,
        _ if q_idx % 2 == 1 => -prob,
        _ => prob,
    };
    for (name, engine) in engines() {
        let mut inputs = prepared(&descriptor, 9);
        inputs.bias.as_mut().unwrap().singles()[9] = -300.0;
        inputs.captures.clear();
        for descriptor in both(&descriptor) {
            check_inputs(&name, &engine, &descriptor, &inputs);
        }
    }
    descriptor.bias = None;
    descriptor.mods = wgpu_attention::Mods {
        prob_mod: Some(
            "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return select(select(prob, -prob, q_idx % 2u == 1u), 0.0, kv_idx % 3u == 2u);
}",
        ),
        captures: CAPTURES,
        ..Default::default()
    };
    let mods = Mods {
        prob_mod: Some(&negative),
        ..Default::default()
    };
    for (name, engine) in engines() {
        for dropout in [None, Some(DropoutKeep::Given)] {
            descriptor.dropout = dropout.map(|keep| Dropout { probability: 0.5, keep });
            for key in [8, 9] {
                check_mods(&name, &engine, &descriptor, &prepared(&descriptor, key), &mods);
            }
        }
    }
}

/// A broken function is reported with its own line numbers.
#[test]
fn broken_functions_are_explained() {
    let engine = support::engine();
    let broken = |score_mod: &'static str, mask_mod: Option<&'static str>| {
        let mods = wgpu_attention::Mods {
            score_mod: Some(score_mod),
            mask_mod,
            captures: CAPTURES,
            ..Default::default()
        };
        engine
            .prepare(&AttentionDescriptor { mods, ..plain(3, 5) })
            .unwrap_err()
    };
    let undefined = "// a helper\nfn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    let x = score;
    return x * slop[head];
}";
    match broken(undefined, None) {
        Error::Mod {
            function: "score_mod",
            line: 4,
            column,
            message,
        } => {
            assert!(column > 1 && message.contains("slop"), "{column}: {message}");
            // What there is instead.
            for capture in CAPTURES {
                assert!(message.contains(capture.name), "{message}");
            }
            // The compiler's own excerpt counts the same lines.
            assert!(message.contains("4 │     return x * slop[head];"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // A brace is missing in one; the other is right.
    let unclosed =
        "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {\n    return score;\n";
    let error = broken(unclosed, Some(MASK_MOD));
    assert!(
        matches!(
            error,
            Error::Mod {
                function: "score_mod",
                ..
            }
        ),
        "{error:?}"
    );
    // Right by itself, but not what the kernels call, or a name that they have.
    let signature = "fn score_mod(score: f32) -> f32 { return score; }";
    assert!(matches!(broken(signature, None), Error::Mod { .. }));
    let misnamed = "fn scoremod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score; }";
    let misnamed = broken(misnamed, None).to_string();
    assert!(
        misnamed.contains("does not define it; expected fn score_mod(score: f32"),
        "{misnamed}"
    );
    // It is the function that does not fit that is named, and not the first.
    let taking_less = broken(
        SCORE_MOD,
        Some("fn mask_mod(batch: u32, head: u32, q_idx: u32) -> bool { return true; }"),
    );
    assert!(
        matches!(
            taking_less,
            Error::Mod {
                function: "mask_mod",
                ..
            }
        ),
        "{taking_less:?}"
    );
    let taken = "fn load_query() -> f32 { return 1.0; }
fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score; }";
    assert!(matches!(broken(taken, None), Error::Mod { .. }));
}

/// What cannot be is refused with a typed error.
#[test]
fn wrong_requests_are_refused() {
    let refused = |descriptor: Descriptor| Problem::new(&descriptor).unwrap_err();
    for softcap in [0.0, -1.0, f32::NAN, f32::NEG_INFINITY] {
        let softcap = Some(softcap);
        assert!(matches!(
            refused(AttentionDescriptor { softcap, ..plain(3, 5) }),
            Error::OutOfRange {
                parameter: "softcap",
                ..
            }
        ));
    }
    for probability in [-0.1, 1.0, f32::NAN, f32::INFINITY] {
        let dropout = Some(Dropout {
            probability,
            keep: DropoutKeep::Given,
        });
        assert!(matches!(
            refused(AttentionDescriptor { dropout, ..plain(3, 5) }),
            Error::OutOfRange { .. }
        ));
    }
    for rows in [[0, 0], [2, 1], [0, 4]] {
        let outputs = Outputs {
            weights: true,
            rows: Some(rows),
            ..Default::default()
        };
        assert!(matches!(
            refused(AttentionDescriptor { outputs, ..plain(3, 5) }),
            Error::Unsupported { .. }
        ));
    }
    for name in ["", "2x", "a b", "_", "__x", "a-b"] {
        let capture = [Capture {
            name,
            element: CaptureElement::F32,
            len: 1,
        }];
        let mods = wgpu_attention::Mods {
            captures: &capture,
            ..Default::default()
        };
        let descriptor = AttentionDescriptor { mods, ..plain(3, 5) };
        assert!(
            matches!(Problem::new(&descriptor), Err(Error::Unsupported { .. })),
            "{name:?}"
        );
    }
    let packed = Some(Packed {
        tokens_q: 0,
        tokens_k: 1,
    });
    assert!(matches!(
        refused(AttentionDescriptor { packed, ..plain(3, 5) }),
        Error::ZeroSize { dimension: "tokens_q" }
    ));
}

/// Contents that contradict the problem are refused where they lie on the host.
#[test]
fn wrong_contents_are_refused() {
    let engine = support::engine();
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(2, 1, 4, 4, 4),
        packed: Some(Packed {
            tokens_q: 6,
            tokens_k: 6,
        }),
        ..Default::default()
    };
    let data = vec![0.5f32; 24];
    let right = [0u32, 2, 6];
    for (wrong, index) in [
        (&[1u32, 2, 6][..], 0),
        (&[0, 5, 6], 1),
        (&[0, 3, 2], 2),
        (&[0, 2, 5], 2),
    ] {
        let inputs = HostInputs {
            cu_seqlens_q: Some(&right),
            cu_seqlens_k: Some(wrong),
            ..HostInputs::new(&data, &data, &data)
        };
        match engine.attention(&descriptor, &inputs) {
            Err(Error::Contents {
                operand: Operand::CuSeqlensK,
                index: found,
                ..
            }) => assert_eq!(found, index),
            other => panic!("{wrong:?}: {other:?}"),
        }
    }
    let inputs = HostInputs {
        cu_seqlens_q: Some(&right),
        cu_seqlens_k: Some(&right),
        ..HostInputs::new(&data, &data, &data)
    };
    assert!(engine.attention(&descriptor, &inputs).is_ok());
    let halves = [half::f16::ONE; 24];
    let inputs = HostInputs {
        query: (&halves).into(),
        ..inputs
    };
    assert!(matches!(
        engine.attention(&descriptor, &inputs),
        Err(Error::DType {
            operand: Operand::Query,
            ..
        })
    ));
}

/// On the GPU nobody checks cu_seqlens, so whatever they hold must stay within the tensors.
#[test]
fn wild_cu_seqlens_stay_within_the_tensors() {
    for (name, engine) in engines() {
        let descriptor = AttentionDescriptor {
            shape: AttentionShape::new(3, 2, 16, 16, 8),
            packed: Some(Packed {
                tokens_q: 20,
                tokens_k: 20,
            }),
            layouts: Layouts::all(Layout::Bshd),
            causal: Some(LOWER),
            ..Default::default()
        };
        for descriptor in both(&descriptor) {
            let mut inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 2);
            inputs.cu_seqlens_q = Some(vec![0, 4_000_000_000, 3, u32::MAX]);
            inputs.cu_seqlens_k = Some(vec![19, 7, u32::MAX, 20]);
            let first = run(&engine, &descriptor, &inputs);
            assert!(first == run(&engine, &descriptor, &inputs), "{name}");
        }
    }
}

/// Query and key turned as they are loaded: both pairings, part of the channels, positions by offset and by ids.
#[test]
fn rotary_embedding_as_rows_are_loaded() {
    for (name, engine) in engines() {
        let mut seed = 0;
        for (head_dim, rotary_dim) in [(32, 32), (20, 12), (33, 10)] {
            let inv_freq =
                (0..rotary_dim / 2).map(|pair| 10_000f64.powf(-2.0 * f64::from(pair) / f64::from(rotary_dim)));
            let frequencies = RopeFrequencies::from_inv_freq(inv_freq.collect(), 1.1).unwrap();
            for pairing in [RopePairing::HalfSplit, RopePairing::Interleaved] {
                for (query, key) in [
                    (Some(RopePositions::Offset(30)), Some(RopePositions::Offset(0))),
                    (Some(RopePositions::Ids), Some(RopePositions::SharedIds)),
                    (None, Some(RopePositions::Ids)),
                ] {
                    seed += 1;
                    let plain = AttentionDescriptor {
                        shape: AttentionShape {
                            kv_heads: 1,
                            ..AttentionShape::new(2, 2, 37, 67, head_dim)
                        },
                        causal: Some(LOWER),
                        rope: Some(AttentionRope {
                            frequencies: &frequencies,
                            pairing,
                            query,
                            key,
                        }),
                        outputs: Outputs {
                            lse: true,
                            weights: true,
                            scores: Some(ScoreStage::Scaled),
                            rows: None,
                        },
                        ..Default::default()
                    };
                    // Six inputs and outputs, ids of both, and what turns.
                    if engine.caps().limits.max_storage_buffers < 9 && query == Some(RopePositions::Ids) {
                        continue;
                    }
                    for algorithm in [Algorithm::Fused, Algorithm::ThreeKernels] {
                        let descriptor = AttentionDescriptor {
                            algorithm,
                            ..plain.clone()
                        };
                        check(&name, &engine, &descriptor, seed);
                    }
                    if head_dim == 20 {
                        let halves = AttentionDescriptor {
                            dtypes: DTypes::all(DType::F16),
                            outputs: Outputs::default(),
                            ..plain.clone()
                        };
                        check(&name, &engine, &halves, seed);
                    }
                }
            }
        }
    }
}

/// Turned as they are loaded, or before: the same.
#[test]
fn the_load_hook_is_the_rotation() {
    let engine = support::engine();
    let frequencies = RopeFrequencies::new(&RopeConfig::new(64)).unwrap();
    let shape = AttentionShape::new(1, 3, 40, 40, 64);
    let descriptor = AttentionDescriptor {
        shape,
        causal: Some(LOWER),
        ..Default::default()
    };
    let inputs = OwnedInputs::random(&Problem::new(&descriptor).unwrap(), 12);
    let host = inputs.host(&[]);
    let with_hook = AttentionDescriptor {
        rope: Some(AttentionRope {
            frequencies: &frequencies,
            pairing: RopePairing::HalfSplit,
            query: Some(RopePositions::Offset(1000)),
            key: Some(RopePositions::Offset(1000)),
        }),
        ..descriptor.clone()
    };
    let hooked = engine.attention(&with_hook, &host).unwrap().out;
    let rope = RopeDescriptor {
        positions: RopePositions::Offset(1000),
        ..RopeDescriptor::new([1, 3, 40, 64], RopeAngles::Frequencies(&frequencies))
    };
    let turn = |numbers: &mut Numbers| {
        let x = numbers.singles();
        engine
            .rope(
                &rope,
                &RopeHostInputs {
                    x,
                    ..Default::default()
                },
            )
            .unwrap()
    };
    let (mut query, mut key) = (inputs.query.clone(), inputs.key.clone());
    let (query, key) = (turn(&mut query), turn(&mut key));
    let turned = HostInputs {
        query: (&query).into(),
        key: (&key).into(),
        ..host
    };
    let plain = engine.attention(&descriptor, &turned).unwrap().out;
    let difference = hooked
        .iter()
        .zip(&plain)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(difference < 1e-6, "{difference}");
}

/// Too many operands for a device's storage buffers: other kernels if they do, else an error that names the limit.
#[test]
fn the_number_of_storage_buffers_is_planned_for() {
    let engine: Engine = support::engine();
    let mut caps = engine.caps().clone();
    caps.limits.max_storage_buffers = 8;
    let limited = engine.with_caps(caps);
    let many = AttentionDescriptor {
        mask: Some(Broadcast::new([1, 1, 40, 50])),
        bias: Some(Broadcast::new([1, 1, 40, 50])),
        key_padding: Some(KeyPadding::Boolean),
        alibi_slopes: true,
        sinks: true,
        outputs: Outputs {
            lse: true,
            ..Default::default()
        },
        ..plain(40, 50)
    };
    assert_eq!(limited.plan(&many).unwrap().algorithm(), Algorithm::ThreeKernels);
    check("eight buffers", &limited, &many, 3);
    let forced = AttentionDescriptor {
        algorithm: Algorithm::Fused,
        ..many
    };
    assert!(matches!(
        limited.plan(&forced),
        Err(Error::Limit {
            limit_name: "maxStorageBuffersPerShaderStage",
            ..
        })
    ));
    check_inputs(
        "all buffers",
        &engine,
        &forced,
        &OwnedInputs::random(&Problem::new(&forced).unwrap(), 3),
    );
}
