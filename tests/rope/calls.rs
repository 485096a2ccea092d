//! The calls: how exact the angles are, positions that nobody knows, host slices, the caller's encoder, refusals.

use wgpu_attention::reference;
use wgpu_attention::{
    BufferAt, DType, Error, Layout, Operand, RopeAngles, RopeConfig, RopeDTypes, RopeDescriptor, RopeFrequencies,
    RopeHostInputs, RopeInputs, RopeLayouts, RopePairing, RopePositions, RopeProblem,
};

use crate::kernels::Operands;
use crate::support::{engine, engines};

/// Cos and sin of pairs `(1, 0)` at positions, and the largest error.
fn largest_error(engine: &wgpu_attention::Engine, frequencies: &RopeFrequencies, positions: &[i32]) -> f64 {
    let pairs = frequencies.inv_freq().len();
    let descriptor = RopeDescriptor {
        positions: RopePositions::SharedIds,
        ..RopeDescriptor::new(
            [1, 1, positions.len() as u32, 2 * pairs as u32],
            RopeAngles::Frequencies(frequencies),
        )
    };
    let x: Vec<f32> = (0..positions.len() * 2 * pairs)
        .map(|index| if index % (2 * pairs) < pairs { 1.0 } else { 0.0 })
        .collect();
    let inputs = RopeHostInputs {
        x: &x,
        position_ids: Some(positions),
        ..Default::default()
    };
    let out = engine.rope(&descriptor, &inputs).unwrap();
    let want = reference::rope(&RopeProblem::new(&descriptor).unwrap(), &inputs).unwrap();
    let errors = out.iter().zip(&want).map(|(out, want)| (f64::from(*out) - want).abs());
    errors.fold(0.0, f64::max)
}

/// At every position cos and sin are as good as at the first ones: a product in `f32` would be off by 4e-3 at 131,071.
#[test]
fn angles_are_exact_at_any_position() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(128)).unwrap();
    let long: Vec<i32> = (0..131_072).step_by(37).chain([131_071]).collect();
    let negative: Vec<i32> = (-70_000..0).step_by(97).collect();
    let far = [
        i32::MIN,
        i32::MIN + 1,
        -(1 << 30),
        1 << 24,
        1 << 30,
        i32::MAX - 1,
        i32::MAX,
    ];
    for (name, engine) in engines() {
        // Two units in the last place of 1; frequencies in `f64` add their own rounding where positions take 31 bits.
        for (positions, bound) in [(&long[..], 2.4e-7), (&negative, 2.4e-7), (&far, 6e-7)] {
            let error = largest_error(&engine, &frequencies, positions);
            assert!(error <= bound, "{name}: {error:e}");
        }
    }
}

#[test]
fn position_0_is_the_identity_to_the_bit() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(8)).unwrap();
    let x: Vec<f32> = (0..10).map(|index| 0.1 - index as f32 / 3.0).collect();
    let inputs = RopeHostInputs {
        x: &x,
        ..Default::default()
    };
    for (name, engine) in engines() {
        for pairing in [RopePairing::HalfSplit, RopePairing::Interleaved] {
            let descriptor = RopeDescriptor {
                pairing,
                ..RopeDescriptor::new([1, 1, 1, 10], RopeAngles::Frequencies(&frequencies))
            };
            assert_eq!(engine.rope(&descriptor, &inputs).unwrap(), x, "{name}");
        }
    }
}

/// Whole turns of a frequency make no difference, since positions are whole numbers; nor does going backwards.
#[test]
fn frequencies_count_without_their_whole_turns() {
    let turn = std::f64::consts::TAU;
    let plain = RopeFrequencies::from_inv_freq(vec![0.3, 0.3, 0.0], 1.0).unwrap();
    let wound = RopeFrequencies::from_inv_freq(vec![0.3 + 5.0 * turn, 0.3 - turn, -turn], 1.0).unwrap();
    let x = [0.5f32, -1.0, 0.25, 2.0, 1.5, -0.75];
    let inputs = RopeHostInputs {
        x: &x,
        ..Default::default()
    };
    let rotated = |frequencies| {
        let descriptor = RopeDescriptor {
            positions: RopePositions::Offset(1000),
            ..RopeDescriptor::new([1, 1, 1, 6], RopeAngles::Frequencies(frequencies))
        };
        engine().rope(&descriptor, &inputs).unwrap()
    };
    let difference = rotated(&plain)
        .into_iter()
        .zip(rotated(&wound))
        .map(|(a, b)| (a - b).abs());
    assert!(difference.fold(0.0, f32::max) < 1e-6);
}

/// Rows whose position lies outside of the tables are NaN where they rotate, and nothing is read there.
#[test]
fn positions_outside_of_the_tables_give_nan() {
    let sizes = [1, 2, 5, 5];
    let ids: [i32; 5] = [0, 3, -1, 2, i32::MAX];
    let x: Vec<f32> = (0..50).map(|index| index as f32).collect();
    for (name, engine) in engines() {
        for out in DType::ALL {
            let descriptor = RopeDescriptor {
                positions: RopePositions::SharedIds,
                dtypes: RopeDTypes {
                    out,
                    ..Default::default()
                },
                ..RopeDescriptor::new(
                    sizes,
                    RopeAngles::CacheByPosition {
                        rotary_dim: 4,
                        max_positions: 3,
                    },
                )
            };
            let rope = engine.prepare_rope(&descriptor).unwrap();
            let [x, cos, sin] = [&x[..], &[1.0; 6], &[0.0; 6]].map(|data| engine.upload(data).unwrap());
            let ids = engine.upload_bytes(bytemuck::cast_slice(&ids)).unwrap();
            let inputs = RopeInputs {
                position_ids: Some((&ids).into()),
                cos: Some((&cos).into()),
                sin: Some((&sin).into()),
                ..RopeInputs::new(&x)
            };
            let tensor = rope.run(&inputs).unwrap();
            let words = engine.read(&tensor).unwrap();
            let got = out.widen(bytemuck::cast_slice(&words));
            for (index, got) in got.iter().take(50).enumerate() {
                let (channel, row) = (index % 5, index / 5 % 5);
                let unknown = channel < 4 && [1, 2, 4].contains(&row);
                match unknown {
                    true => assert!(got.is_nan(), "{name}: {index}: {got}"),
                    false => assert_eq!(*got, index as f32, "{name}"),
                }
            }
        }
    }
}

/// What passes through keeps its bits, NaN and subnormal numbers included; in pairs, NaN and infinities spread.
#[test]
fn what_passes_through_keeps_its_bits() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(2)).unwrap();
    for (name, engine) in engines() {
        for (dtype, special) in [
            (DType::F32, vec![0x7fc0_1234u32, 0xff80_0000, 1, 0x8000_0000]),
            (DType::F16, vec![0x7e01_7c01, 0x0001_fc00]),
            (DType::Bf16, vec![0x7fc1_7f81, 0x0001_ff80]),
        ] {
            let descriptor = RopeDescriptor {
                positions: RopePositions::Offset(3),
                dtypes: RopeDTypes::all(dtype),
                ..RopeDescriptor::new([1, 1, 1, 6], RopeAngles::Frequencies(&frequencies))
            };
            let mut x = dtype.narrow(&[f32::NAN, 1.0]);
            x.extend(bytemuck::cast_slice::<u32, u8>(&special));
            let rope = engine.prepare_rope(&descriptor).unwrap();
            let out = rope.run(&RopeInputs::new(&engine.upload_bytes(&x).unwrap())).unwrap();
            let words: Vec<u32> = engine.read(&out).unwrap().into_iter().map(f32::to_bits).collect();
            let bytes: &[u8] = bytemuck::cast_slice(&words);
            let rotated = 2 * dtype.bytes() as usize;
            assert!(
                dtype.widen(&bytes[..rotated]).iter().all(|value| value.is_nan()),
                "{name}"
            );
            assert_eq!(bytes[rotated..], x[rotated..], "{name} {dtype}");
        }
    }
}

/// Query and key of one packed buffer, rotated in place in the caller's encoder, value left alone.
#[test]
fn a_packed_buffer_rotates_in_place_in_the_callers_encoder() {
    let [batch, heads, seqlen, head_dim] = [2u32, 3, 5, 8];
    let row = 3 * heads * head_dim;
    let packed = Layout::Strided(wgpu_attention::Strides {
        batch: seqlen * row,
        head: head_dim,
        row,
    });
    let frequencies = RopeFrequencies::new(&RopeConfig::new(head_dim)).unwrap();
    let descriptor = RopeDescriptor {
        layouts: RopeLayouts::all(packed),
        in_place: true,
        ..RopeDescriptor::new([batch, heads, seqlen, head_dim], RopeAngles::Frequencies(&frequencies))
    };
    let qkv: Vec<f32> = (0..batch * seqlen * row)
        .map(|index| (index as f32 * 0.37).sin())
        .collect();
    let part = (heads * head_dim) as usize;
    for (name, engine) in engines() {
        let rope = engine.prepare_rope(&descriptor).unwrap();
        let buffer = engine.upload(&qkv).unwrap();
        let at = |part_index: usize| BufferAt {
            buffer: buffer.buffer(),
            offset_bytes: 4 * (part_index * part) as u64,
        };
        let [query, key] = [0, 1].map(|index| rope.bind(&RopeInputs::in_place(), at(index)).unwrap());
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        query.encode(&mut encoder);
        key.encode(&mut encoder);
        engine.queue().submit([encoder.finish()]);
        let got = engine.read(&buffer).unwrap();

        let problem = RopeProblem::new(&descriptor).unwrap();
        let span = problem.extent(Operand::Out).unwrap().span() as usize;
        let mut want: Vec<f64> = qkv.iter().copied().map(f64::from).collect();
        for index in [0, 1] {
            let first = index * part;
            let inputs = RopeHostInputs {
                x: &qkv[first..first + span],
                ..Default::default()
            };
            let rotated = reference::rope(&problem, &inputs).unwrap();
            for (at, value) in (first..).zip(rotated) {
                if at / part % 3 == index {
                    want[at] = value;
                }
            }
        }
        for (index, (got, want)) in got.iter().zip(&want).enumerate() {
            assert!(
                (f64::from(*got) - want).abs() < 5e-7,
                "{name}: {index}: {got} instead of {want}"
            );
            assert!(index / part % 3 < 2 || *got == qkv[index], "{name}: value changed");
        }
    }
}

#[test]
fn wrong_buffers_are_refused() {
    let engine = engine();
    let descriptor = RopeDescriptor {
        positions: RopePositions::Ids,
        dtypes: RopeDTypes::all(DType::F16),
        ..RopeDescriptor::new(
            [1, 2, 4, 8],
            RopeAngles::CacheByPosition {
                rotary_dim: 8,
                max_positions: 4,
            },
        )
    };
    let rope = engine.prepare_rope(&descriptor).unwrap();
    let [x, out, cos] = [128, 128, 32].map(|bytes| engine.allocate(bytes).unwrap());
    let ids = engine.allocate(16).unwrap();
    let good = RopeInputs {
        position_ids: Some((&ids).into()),
        cos: Some((&cos).into()),
        sin: Some((&cos).into()),
        ..RopeInputs::new(&x)
    };
    assert!(rope.bind(&good, &out).is_ok());
    let refused = |inputs: RopeInputs<'_>, out: BufferAt<'_>| rope.bind(&inputs, out).unwrap_err();
    let out_at = |offset_bytes| BufferAt {
        buffer: out.buffer(),
        offset_bytes,
    };
    for (inputs, operand) in [
        (RopeInputs { x: None, ..good }, Operand::X),
        (
            RopeInputs {
                position_ids: None,
                ..good
            },
            Operand::PositionIds,
        ),
        (RopeInputs { sin: None, ..good }, Operand::Sin),
    ] {
        let error = refused(inputs, out_at(0));
        assert!(
            matches!(error, Error::MissingOperand { operand: missing } if missing == operand),
            "{error}"
        );
    }
    let error = refused(
        RopeInputs {
            cos: Some((&ids).into()),
            ..good
        },
        out_at(0),
    );
    assert!(
        matches!(
            error,
            Error::BufferTooSmall {
                operand: Operand::Cos,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        refused(good, out_at(1)),
        Error::BufferOffset {
            operand: Operand::Out,
            ..
        }
    ));
    assert!(matches!(
        refused(good, out_at(2)),
        Error::BufferTooSmall {
            operand: Operand::Out,
            ..
        }
    ));
    assert!(matches!(
        refused(good, (&x).into()),
        Error::SharedBuffer {
            operand: Operand::Out,
            other: Operand::X
        }
    ));

    let frequencies = RopeFrequencies::new(&RopeConfig::new(8)).unwrap();
    let in_place = RopeDescriptor {
        in_place: true,
        ..RopeDescriptor::new([1, 1, 1, 8], RopeAngles::Frequencies(&frequencies))
    };
    let rope = engine.prepare_rope(&in_place).unwrap();
    assert!(matches!(
        rope.bind(&RopeInputs::new(&x), &out).unwrap_err(),
        Error::UnexpectedOperand { operand: Operand::X }
    ));
    assert!(matches!(
        rope.run(&RopeInputs::in_place()).unwrap_err(),
        Error::Unsupported { .. }
    ));
    assert!(matches!(
        rope.bind(
            &RopeInputs {
                position_ids: Some((&ids).into()),
                ..RopeInputs::in_place()
            },
            &out
        )
        .unwrap_err(),
        Error::UnexpectedOperand {
            operand: Operand::PositionIds
        }
    ));
}

/// One call on host slices is the same as one on tensors, in place or not, through half types too.
#[test]
fn host_slices_give_what_the_reference_says() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(6)).unwrap();
    for (name, engine) in engines() {
        for in_place in [false, true] {
            for dtype in DType::ALL {
                let descriptor = RopeDescriptor {
                    dtypes: RopeDTypes::all(dtype),
                    layouts: RopeLayouts::all(Layout::Bshd),
                    in_place,
                    ..RopeDescriptor::new([2, 3, 5, 7], RopeAngles::Frequencies(&frequencies))
                };
                let problem = RopeProblem::new(&descriptor).unwrap();
                let operands = Operands::random(&problem, 9);
                let got = engine.rope(&descriptor, &operands.host()).unwrap();
                let want = reference::rope(&problem, &operands.host()).unwrap();
                let bound = [1e-6, 2e-3, 1.6e-2][DType::ALL.iter().position(|other| *other == dtype).unwrap()];
                assert_eq!(got.len(), want.len());
                let close = got
                    .iter()
                    .zip(&want)
                    .all(|(got, want)| (f64::from(*got) - want).abs() <= bound);
                assert!(close, "{name}: {dtype}");
            }
        }
    }
    let too_long = RopeHostInputs {
        x: &[0.0; 13],
        ..Default::default()
    };
    let descriptor = RopeDescriptor::new([1, 1, 2, 6], RopeAngles::Frequencies(&frequencies));
    assert!(matches!(
        engine().rope(&descriptor, &too_long),
        Err(Error::Length {
            operand: Operand::X,
            ..
        })
    ));
}
