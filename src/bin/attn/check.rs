//! Whether numbers are right: the tolerance is derived, not picked.

use serde::Serialize;

/// The largest error of some numbers and the largest that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Check {
    pub max_error: f64,
    pub allowed_error: f64,
}

impl Check {
    /// Compares with the reference. Allowed is twice the error of the naive computation in the same precision, and four
    /// units in the last place of the largest number.
    pub fn new(got: &[f32], want: &[f64], naive: &[f64]) -> Self {
        let largest = want.iter().fold(0.0f64, |most, value| most.max(value.abs()));
        let got = got.iter().map(|&value| f64::from(value));
        let max_error = if got.len() == want.len() {
            largest_difference(got, want)
        } else {
            f64::INFINITY
        };
        let naive_error = largest_difference(naive.iter().copied(), want);
        Self {
            max_error,
            allowed_error: 2.0 * naive_error + 4.0 * f64::from(f32::EPSILON) * largest,
        }
    }

    /// Whether the numbers are right.
    pub fn is_right(&self) -> bool {
        self.max_error <= self.allowed_error
    }

    /// Of two checks the one that is nearer to failing, or fails more.
    pub fn worse(self, other: Self) -> Self {
        let share = |check: &Self| check.max_error / check.allowed_error;
        if share(&self) >= share(&other) { self } else { other }
    }
}

/// Infinite where a number is NaN on one side only, or infinite on one side only.
fn largest_difference(got: impl Iterator<Item = f64>, want: &[f64]) -> f64 {
    got.zip(want).fold(0.0, |most, (got, &want)| {
        let difference = match (got.is_nan(), want.is_nan()) {
            (true, true) => 0.0,
            (false, false) if got == want => 0.0,
            (false, false) => (got - want).abs(),
            _ => f64::INFINITY,
        };
        most.max(difference)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_caught() {
        let want = [1.0, -2.0, 0.5];
        let right = Check::new(&[1.0, -2.0, 0.5], &want, &want);
        assert!(right.is_right());
        for wrong in [[1.0, -2.0, 0.500_001], [f32::NAN, -2.0, 0.5], [1.0, f32::INFINITY, 0.5]] {
            let check = Check::new(&wrong, &want, &want);
            assert!(!check.is_right(), "{wrong:?}");
            assert_eq!(check.worse(right), check);
            assert_eq!(right.worse(check), check);
        }
        assert!(!Check::new(&[1.0, -2.0], &want, &want).is_right());
    }
}
