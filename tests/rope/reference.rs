//! The `f64` reference, by what a rotation must be: nothing here shares a formula with it.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use wgpu_attention::{
    Error, Layout, Operand, RopeAngles, RopeConfig, RopeDTypes, RopeDescriptor, RopeFrequencies, RopeHostInputs,
    RopeLayouts, RopePairing, RopePositions, RopeProblem, Strides, reference,
};

const PAIRINGS: [RopePairing; 2] = [RopePairing::HalfSplit, RopePairing::Interleaved];

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-2.0..2.0)).collect()
}

fn rotated(descriptor: &RopeDescriptor<'_>, x: &[f32]) -> Vec<f64> {
    let inputs = RopeHostInputs {
        x,
        ..Default::default()
    };
    reference::rope(&RopeProblem::new(descriptor).unwrap(), &inputs).unwrap()
}

/// One row of one head at a position.
fn row(frequencies: &RopeFrequencies, pairing: RopePairing, position: i32, x: &[f32]) -> Vec<f64> {
    let angles = RopeAngles::Frequencies(frequencies);
    let descriptor = RopeDescriptor {
        positions: RopePositions::Offset(position),
        pairing,
        ..RopeDescriptor::new([1, 1, 1, x.len() as u32], angles)
    };
    rotated(&descriptor, x)
}

#[test]
fn pairs_keep_their_length() {
    let frequencies = RopeFrequencies::from_inv_freq(vec![1.0, 0.3, 0.07], 1.5).unwrap();
    let x = random(8, 1);
    for (pairing, pairs) in PAIRINGS
        .into_iter()
        .zip([[[0, 3], [1, 4], [2, 5]], [[0, 1], [2, 3], [4, 5]]])
    {
        let out = row(&frequencies, pairing, 12_345, &x);
        for [first, second] in pairs {
            let before = f64::from(x[first]).hypot(x[second].into());
            assert!((out[first].hypot(out[second]) - 1.5 * before).abs() < 1e-14 * before);
        }
        assert_eq!(out[6..], [f64::from(x[6]), f64::from(x[7])]);
    }
}

#[test]
fn scores_depend_on_the_distance_alone() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(16)).unwrap();
    let (query, key) = (random(16, 2), random(16, 3));
    for pairing in PAIRINGS {
        let score = |q_position, k_position| -> f64 {
            let query = row(&frequencies, pairing, q_position, &query);
            let key = row(&frequencies, pairing, k_position, &key);
            query.iter().zip(key).map(|(q, k)| q * k).sum()
        };
        let near = score(7, 3);
        assert!((score(100_007, 100_003) - near).abs() < 1e-9);
        assert!((score(-3, -7) - near).abs() < 1e-12);
        assert!((score(8, 3) - near).abs() > 1e-3);
    }
}

#[test]
fn position_0_changes_nothing_but_the_scale() {
    let x = random(10, 4);
    let frequencies = RopeFrequencies::from_inv_freq(vec![1.0, 0.5], 1.25).unwrap();
    for pairing in PAIRINGS {
        let out = row(&frequencies, pairing, 0, &x);
        for (channel, (out, x)) in out.iter().zip(&x).enumerate() {
            let scale = if channel < 4 { 1.25 } else { 1.0 };
            assert_eq!(*out, scale * f64::from(*x));
        }
    }
}

#[test]
fn interleaved_is_the_half_split_of_sorted_channels() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(12)).unwrap();
    let x = random(12, 5);
    let sorted: Vec<f32> = (0..12).map(|channel| x[2 * (channel % 6) + channel / 6]).collect();
    let halves = row(&frequencies, RopePairing::HalfSplit, 77, &sorted);
    let interleaved = row(&frequencies, RopePairing::Interleaved, 77, &x);
    for channel in 0..12 {
        assert_eq!(halves[channel], interleaved[2 * (channel % 6) + channel / 6]);
    }
}

#[test]
fn a_turn_and_its_opposite_cancel() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(8)).unwrap();
    let x = random(8, 6);
    let out: Vec<f32> = row(&frequencies, RopePairing::HalfSplit, 1234, &x)
        .iter()
        .map(|value| *value as f32)
        .collect();
    let back = row(&frequencies, RopePairing::HalfSplit, -1234, &out);
    assert!(back.iter().zip(&x).all(|(back, x)| (back - f64::from(*x)).abs() < 1e-6));
}

/// By hand: rotary_dim 2 of 3 channels, two sequences, rows at the positions that the ids say.
#[test]
fn ids_and_caches_say_the_same() {
    let quarter = RopeFrequencies::from_inv_freq(vec![std::f64::consts::FRAC_PI_2], 1.0).unwrap();
    let x = [1.0, 2.0, 9.0, 3.0, 4.0, 9.0, 5.0, 6.0, 9.0, 7.0, 8.0, 9.0];
    let want = [-2.0, 1.0, 9.0, -3.0, -4.0, 9.0, 6.0, -5.0, 9.0, 7.0, 8.0, 9.0];
    let sizes = [2, 1, 2, 3];
    let cos = [1.0, 0.0, -1.0, 0.0, 1.0];
    let sin = [0.0, 1.0, 0.0, -1.0, 0.0];
    let ids = [1, 2, 3, 4];
    let by_position = RopeAngles::CacheByPosition {
        rotary_dim: 2,
        max_positions: 5,
    };
    let by_row = RopeAngles::CacheByRow { rotary_dim: 2 };
    let frequency = RopeAngles::Frequencies(&quarter);
    for (angles, position_ids, cache) in [
        (frequency, Some(&ids[..]), None),
        (by_position, Some(&ids[..]), Some(0)),
        (by_row, None, Some(1)),
    ] {
        let descriptor = RopeDescriptor {
            positions: RopePositions::Ids,
            ..RopeDescriptor::new(sizes, angles)
        };
        let problem = RopeProblem::new(&descriptor).unwrap();
        let inputs = RopeHostInputs {
            x: &x,
            position_ids,
            cos: cache.map(|first| &cos[first..]),
            sin: cache.map(|first| &sin[first..]),
        };
        let out = reference::rope(&problem, &inputs).unwrap();
        assert!(
            out.iter().zip(want).all(|(out, want)| (out - want).abs() < 1e-14),
            "{angles:?}: {out:?}"
        );
    }
    // The same two rows' positions for both sequences, by ids and by an offset.
    let shared = RopeDescriptor {
        positions: RopePositions::SharedIds,
        ..RopeDescriptor::new(sizes, frequency)
    };
    let offset = RopeDescriptor {
        positions: RopePositions::Offset(1),
        ..shared
    };
    let inputs = RopeHostInputs {
        x: &x,
        position_ids: Some(&ids[..2]),
        ..Default::default()
    };
    let out = reference::rope(&RopeProblem::new(&shared).unwrap(), &inputs).unwrap();
    assert_eq!(out, rotated(&offset, &x));
}

#[test]
fn layouts_place_what_they_say() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(4)).unwrap();
    let plain = RopeDescriptor::new([2, 3, 5, 4], RopeAngles::Frequencies(&frequencies));
    let x = random(2 * 3 * 5 * 4, 7);
    let want = rotated(&plain, &x);
    let strided = RopeDescriptor {
        layouts: RopeLayouts {
            x: Layout::Bhsd,
            out: Layout::Strided(Strides {
                batch: 200,
                head: 7,
                row: 30,
            }),
        },
        ..plain
    };
    let out = rotated(&strided, &x);
    assert_eq!(out.len(), 200 + 4 * 30 + 2 * 7 + 4);
    for (index, want) in want.iter().enumerate() {
        let (channel, row, head, batch) = (index % 4, index / 4 % 5, index / 20 % 3, index / 60);
        assert_eq!(out[batch * 200 + head * 7 + row * 30 + channel], *want);
    }
}

#[test]
fn wrong_requests_are_refused() {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(8)).unwrap();
    let angles = RopeAngles::Frequencies(&frequencies);
    let refused = |descriptor: &RopeDescriptor<'_>| RopeProblem::new(descriptor).unwrap_err();
    for axis in 0..4 {
        let mut sizes = [2, 2, 2, 8];
        sizes[axis] = 0;
        assert!(matches!(
            refused(&RopeDescriptor::new(sizes, angles)),
            Error::ZeroSize { .. }
        ));
    }
    let sizes = [1, 1, 4, 8];
    // 8 of 7 channels; 3, none, and more than there are from caches.
    let narrow = RopeDescriptor::new([1, 1, 4, 7], angles);
    assert!(matches!(
        refused(&narrow),
        Error::RotaryDim {
            rotary_dim: 8,
            limit: 7
        }
    ));
    for rotary_dim in [0, 3, 10] {
        let descriptor = RopeDescriptor::new(sizes, RopeAngles::CacheByRow { rotary_dim });
        assert!(matches!(refused(&descriptor), Error::RotaryDim { .. }));
    }
    let table = |max_positions| RopeAngles::CacheByPosition {
        rotary_dim: 8,
        max_positions,
    };
    assert!(matches!(
        refused(&RopeDescriptor::new(sizes, table(0))),
        Error::ZeroSize { .. }
    ));
    for (angles, offset) in [(table(6), 3), (table(6), -1), (angles, i32::MAX - 2)] {
        let descriptor = RopeDescriptor {
            positions: RopePositions::Offset(offset),
            ..RopeDescriptor::new(sizes, angles)
        };
        assert!(matches!(refused(&descriptor), Error::Position { .. }), "{offset}");
    }
    let overlapping = RopeDescriptor {
        layouts: RopeLayouts {
            x: Layout::Bhsd,
            out: Layout::Strided(Strides {
                batch: 0,
                head: 0,
                row: 7,
            }),
        },
        ..RopeDescriptor::new(sizes, angles)
    };
    assert!(matches!(refused(&overlapping), Error::OverlappingStrides { .. }));
    assert!(matches!(
        refused(&RopeDescriptor::new([u32::MAX, 2, 2, 8], angles)),
        Error::IndexOverflow {
            operand: Operand::X,
            ..
        }
    ));
    let converting = RopeDescriptor {
        dtypes: RopeDTypes {
            out: wgpu_attention::DType::F16,
            ..Default::default()
        },
        in_place: true,
        ..RopeDescriptor::new(sizes, angles)
    };
    assert!(matches!(refused(&converting), Error::Unsupported { .. }));
}

#[test]
fn wrong_host_inputs_are_refused() {
    let angles = RopeAngles::CacheByPosition {
        rotary_dim: 2,
        max_positions: 3,
    };
    let descriptor = RopeDescriptor {
        positions: RopePositions::SharedIds,
        ..RopeDescriptor::new([1, 1, 2, 2], angles)
    };
    let problem = RopeProblem::new(&descriptor).unwrap();
    let good = RopeHostInputs {
        x: &[0.0; 4],
        position_ids: Some(&[0, 2]),
        cos: Some(&[1.0; 3]),
        sin: Some(&[0.0; 3]),
    };
    assert!(good.validate(&problem).is_ok());
    let refused = |inputs: RopeHostInputs<'_>| inputs.validate(&problem).unwrap_err();
    assert!(matches!(
        refused(RopeHostInputs { x: &[0.0; 5], ..good }),
        Error::Length {
            operand: Operand::X,
            ..
        }
    ));
    assert!(matches!(
        refused(RopeHostInputs { cos: None, ..good }),
        Error::MissingOperand { operand: Operand::Cos }
    ));
    assert!(matches!(
        refused(RopeHostInputs {
            sin: Some(&[0.0; 2]),
            ..good
        }),
        Error::Length {
            operand: Operand::Sin,
            actual: 2,
            expected: 3
        }
    ));
    for (ids, at) in [([0, 3], 1), ([-1, 0], 0)] {
        assert!(matches!(
            refused(RopeHostInputs {
                position_ids: Some(&ids),
                ..good
            }),
            Error::Contents { operand: Operand::PositionIds, index, .. } if index == at
        ));
    }
    let by_offset = RopeDescriptor::new([1, 1, 2, 2], angles);
    assert!(matches!(
        good.validate(&RopeProblem::new(&by_offset).unwrap()),
        Err(Error::UnexpectedOperand {
            operand: Operand::PositionIds
        })
    ));
}
