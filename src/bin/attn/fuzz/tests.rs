//! The fuzzer itself: it draws the same again, and sees what is wrong.

use wgpu_attention::{
    AttentionDescriptor, AttentionShape, CausalAlignment, DType, DTypes, DeviceCaps, Error, Operand, Outputs, Problem,
    ScoreStage,
};

use super::case::{Call, Case, Kind};
use super::compare::Expected;
use super::data::Data;
use super::draw::{Draw, Stream};
use super::judge::{is_deserved, plan};
use super::mould::BLOCK;
use super::run::Answer;

/// A request with every output, its data, and what is right.
fn small(dtype: DType) -> (Problem, Expected) {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(2, 2, 5, 7, 6),
        dtypes: DTypes::all(dtype),
        causal: Some(CausalAlignment::LowerRight),
        outputs: Outputs {
            lse: true,
            weights: true,
            scores: Some(ScoreStage::Biased),
            rows: None,
        },
        ..Default::default()
    };
    let problem = Problem::new(&descriptor).unwrap();
    let data = Data::random(&problem, &descriptor, &mut Draw::new(5, Stream::Case, 0));
    let expected = Expected::new(&descriptor, &problem, &data).unwrap().unwrap();
    (problem, expected)
}

/// Each number of each output made wrong, one at a time.
#[test]
fn wrong_answers_are_caught() {
    for dtype in DType::ALL {
        let (problem, expected) = small(dtype);
        let right = expected.naive_answer(&problem);
        assert!(expected.check(&problem, &right).unwrap() <= 1.0);
        type Field = fn(&mut Answer) -> &mut Vec<f32>;
        let fields: [Field; 4] = [
            |answer| &mut answer.out,
            |answer| answer.lse.as_mut().unwrap(),
            |answer| answer.weights.as_mut().unwrap(),
            |answer| answer.scores.as_mut().unwrap(),
        ];
        for (number, field) in fields.into_iter().enumerate() {
            let len = field(&mut right.clone()).len();
            // A step of the storage type that no rounding explains, or of a single.
            let step = match dtype {
                DType::Bf16 if number == 0 => 0.02,
                DType::F16 if number == 0 => 2e-3,
                _ => 5e-5,
            };
            for index in 0..len {
                let value = field(&mut right.clone())[index];
                let step = step * (1.0 + value.abs());
                for wrong in [value + step, value - step, f32::NAN, f32::INFINITY] {
                    if wrong.to_bits() == value.to_bits() {
                        continue;
                    }
                    let mut answer = right.clone();
                    field(&mut answer)[index] = wrong;
                    let infinite_alike = value == f32::NEG_INFINITY && wrong == f32::NEG_INFINITY;
                    let checked = expected.check(&problem, &answer);
                    assert!(
                        checked.is_err() || infinite_alike,
                        "{dtype} {number} [{index}]: {value} as {wrong}"
                    );
                }
            }
            let mut longer = right.clone();
            field(&mut longer).push(0.0);
            assert!(expected.check(&problem, &longer).is_err());
        }
        for wrong in [
            Answer {
                lse: None,
                ..right.clone()
            },
            Answer {
                weights: None,
                ..right.clone()
            },
            Answer {
                scores: None,
                ..right.clone()
            },
        ] {
            assert!(expected.check(&problem, &wrong).is_err());
        }
    }
}

/// An infinity in a value is wanted where its weight is not 0, and NaN only where a single may have the weight as 0.
#[test]
fn not_a_number_for_an_infinity_is_right_where_weights_vanish() {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 1, 3, 4, 2),
        ..Default::default()
    };
    let problem = Problem::new(&descriptor).unwrap();
    for factor in [1.0, 100.0] {
        let mut data = Data::random(&problem, &descriptor, &mut Draw::new(5, Stream::Case, 1));
        data.get_mut(Operand::Value).unwrap().set(5, f32::INFINITY);
        let query = data.get_mut(Operand::Query).unwrap();
        for index in 0..6 {
            query.set(index, query.at(index) * factor);
        }
        let expected = Expected::new(&descriptor, &problem, &data).unwrap().unwrap();
        let answer = |number: f32| Answer {
            out: (expected.naive_answer(&problem).out.iter().enumerate())
                .map(|(index, &right)| if index % 2 == 1 { number } else { right })
                .collect(),
            lse: None,
            weights: None,
            scores: None,
        };
        assert!(expected.check(&problem, &answer(f32::INFINITY)).is_ok());
        assert!(expected.check(&problem, &answer(f32::NEG_INFINITY)).is_err());
        assert!(expected.check(&problem, &answer(3.0)).is_err());
        assert_eq!(expected.check(&problem, &answer(f32::NAN)).is_ok(), factor > 1.0);
    }
}

/// A case is the same whichever were drawn before it.
#[test]
fn cases_are_drawn_from_seed_and_number_alone() {
    let device = DeviceCaps::default();
    let text = |seed, number| format!("{:?}", Case::draw(seed, number, &device));
    let forwards: Vec<_> = (0..40).map(|number| text(3, number)).collect();
    for number in (0..40).rev() {
        assert!(forwards[number as usize] == text(3, number), "case {number}");
    }
    assert!(text(3, 0) != text(4, 0));
    assert!(text(3, 0) != text(3, BLOCK));
}

/// Every kind of case occurs; valid ones pass the pure path but for limits, planted faults that it can see are seen.
#[test]
fn cases_are_what_they_are_meant_to_be() {
    let device = DeviceCaps::default();
    let mut kinds = [0; 3];
    for number in 0..600 {
        let case = Case::draw(9, number * 41, &device);
        let planned = plan(&case, &case.caps);
        match &case.kind {
            Kind::Valid => {
                kinds[0] += 1;
                let limited = matches!(planned, Err(Error::Limit { .. }));
                assert!(planned.is_ok() || limited, "case {}: {planned:?}", number * 41);
            }
            Kind::Faulty(_) => {
                kinds[1] += 1;
                if let Err(error) = &planned {
                    assert_eq!(is_deserved(&case, error, true), Ok(()), "case {}", number * 41);
                }
            }
            Kind::Wild => kinds[2] += 1,
        }
    }
    assert!(kinds.iter().all(|&count| count > 60), "{kinds:?}");
}

/// An error that nobody deserves, or another one than planted, is a failure.
#[test]
fn undeserved_errors_are_caught() {
    let device = DeviceCaps::default();
    let cases = || (0..200).map(|number| Case::draw(6, number, &device));
    let error = Error::StateDict {
        name: String::new(),
        problem: String::new(),
    };
    let within = Error::Limit {
        what: String::new(),
        required: 1,
        limit_name: "",
        limit: 2,
    };
    for case in cases() {
        if !matches!(case.kind, Kind::Wild) {
            assert!(is_deserved(&case, &error, true).is_err());
        }
        assert!(is_deserved(&case, &error, false).is_err());
        assert!(is_deserved(&case, &within, true).is_err());
    }
    let valid = cases()
        .find(|case| matches!((&case.kind, &case.call), (Kind::Valid, Call::Host)))
        .unwrap();
    let operand = Operand::Key;
    assert!(is_deserved(&valid, &Error::MissingOperand { operand }, true).is_err());
}
