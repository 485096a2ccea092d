//! The comparator. Written so that whatever is not provably close enough fails: NaN in particular.

use std::fmt;

/// How far a result may be from the reference.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// For every element alike.
    pub absolute: f64,
    /// Times the expected value's size.
    pub relative: f64,
}

/// Units in the last place of the largest value that the rounding of a result may cost.
const ULPS: f64 = 4.0;

impl Tolerance {
    /// Twice the error of the naive computation in the same precision, and a few units in the last place of the largest
    /// value: what rounds differently may differ that much, not more.
    pub fn derived(naive: &[f64], want: &[f64]) -> Self {
        assert_eq!(naive.len(), want.len());
        let error = naive
            .iter()
            .zip(want)
            .map(|(naive, want)| (naive - want).abs())
            .filter(|e| e.is_finite());
        let largest = want
            .iter()
            .map(|want| want.abs())
            .filter(|size| size.is_finite())
            .fold(0.0, f64::max);
        let ulp = f64::from(f32::EPSILON);
        Self {
            absolute: 2.0 * error.fold(0.0, f64::max) + ULPS * ulp * largest,
            relative: ULPS * ulp,
        }
    }
}

/// The first thing that is wrong, and the worst.
#[derive(Clone, Debug, PartialEq)]
pub struct Mismatch {
    pub index: usize,
    pub got: f64,
    pub want: f64,
    pub bound: f64,
    pub wrong: usize,
    pub total: usize,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            index,
            got,
            want,
            bound,
            wrong,
            total,
        } = self;
        write!(
            f,
            "{wrong} of {total} wrong; worst at {index}: got {got:e}, want {want:e} within {bound:e}"
        )
    }
}

/// Compares element by element. NaN is right only where NaN is wanted, an infinity only where the same one is.
pub fn compare(got: &[f32], want: &[f64], tolerance: Tolerance) -> Result<(), Mismatch> {
    if got.len() != want.len() {
        let (got_len, want_len) = (got.len() as f64, want.len() as f64);
        return Err(Mismatch {
            index: 0,
            got: got_len,
            want: want_len,
            bound: 0.0,
            wrong: want.len(),
            total: want.len(),
        });
    }
    let mut worst: Option<(f64, Mismatch)> = None;
    let mut wrong = 0;
    for (index, (&got, &want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got);
        let bound = tolerance.absolute + tolerance.relative * want.abs();
        let right = (got.is_nan() && want.is_nan()) || got == want || (got - want).abs() <= bound && want.is_finite();
        if right {
            continue;
        }
        wrong += 1;
        let excess = (got - want).abs() - bound;
        let excess = if excess.is_nan() { f64::INFINITY } else { excess };
        if worst.as_ref().is_none_or(|(most, _)| excess > *most) {
            worst = Some((
                excess,
                Mismatch {
                    index,
                    got,
                    want,
                    bound,
                    wrong: 0,
                    total: 0,
                },
            ));
        }
    }
    match worst {
        None => Ok(()),
        Some((_, mismatch)) => Err(Mismatch {
            wrong,
            total: want.len(),
            ..mismatch
        }),
    }
}
