//! The comparator is itself tested: it must catch what is planted.

mod support;

use support::{Tolerance, compare};

const WANT: [f64; 6] = [1.0, -2.0, 0.5, f64::NEG_INFINITY, 3.0, 0.0];
const TOLERANCE: Tolerance = Tolerance {
    absolute: 1e-6,
    relative: 1e-6,
};

fn right() -> [f32; 6] {
    WANT.map(|want| want as f32)
}

fn planted(index: usize, value: f32) -> [f32; 6] {
    let mut got = right();
    got[index] = value;
    got
}

#[test]
fn what_is_right_passes() {
    assert_eq!(compare(&right(), &WANT, TOLERANCE), Ok(()));
    assert_eq!(compare(&planted(0, 1.000_001), &WANT, TOLERANCE), Ok(()));
    assert_eq!(compare(&[f32::NAN], &[f64::NAN], TOLERANCE), Ok(()));
}

#[test]
fn planted_faults_are_caught() {
    for (index, value) in [
        (0, f32::NAN),
        (3, f32::NAN),
        (0, 1.00001),
        (1, 2.0),
        (3, f32::INFINITY),
        (3, f32::MIN),
        (4, f32::INFINITY),
        (4, f32::from_bits(0x7fc0_dead)),
        (5, 1e-5),
    ] {
        let mismatch = compare(&planted(index, value), &WANT, TOLERANCE).expect_err(&format!("{value} at {index}"));
        assert_eq!((mismatch.index, mismatch.wrong), (index, 1));
    }
    let swapped = [right()[1], right()[0], right()[2], right()[3], right()[4], right()[5]];
    assert_eq!(compare(&swapped, &WANT, TOLERANCE).unwrap_err().wrong, 2);
    assert!(compare(&right()[..5], &WANT, TOLERANCE).is_err());
    assert!(compare(&[0.0], &[f64::NAN], TOLERANCE).is_err());
}

#[test]
fn a_nan_bound_passes_nothing() {
    let tolerance = Tolerance {
        absolute: f64::NAN,
        relative: 0.0,
    };
    assert!(compare(&[1.0], &[1.5], tolerance).is_err());
}

#[test]
fn the_tolerance_grows_with_the_naive_error_and_no_further() {
    let want = [1.0, 2.0];
    let exact = Tolerance::derived(&want, &want);
    assert!(exact.absolute < 1e-6);
    let rough = Tolerance::derived(&[1.0, 2.001], &want);
    assert!(rough.absolute > 0.002 && rough.absolute < 0.002_01);
    assert!(compare(&[1.0, 2.003], &want, rough).is_err());
    // A naive NaN must not make everything pass.
    assert!(Tolerance::derived(&[f64::NAN, 2.0], &want).absolute < 1e-6);
}
