//! A linear layer on the CPU.

use super::{Precision, Real};
use crate::error::Result;
use crate::linear::{LinearDescriptor, LinearHostInputs};

/// Computes `x weightᵀ + bias` in `f64`, `[rows, out_features]`.
///
/// ```
/// use wgpu_attention::{LinearDescriptor, LinearHostInputs, reference};
///
/// let inputs = LinearHostInputs { x: &[5.0, 3.0], weight: &[1.0, -1.0], bias: None };
/// assert_eq!(reference::linear(&LinearDescriptor::new(1, 2, 1), &inputs)?, [2.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn linear(descriptor: &LinearDescriptor, inputs: &LinearHostInputs<'_>) -> Result<Vec<f64>> {
    linear_in(Precision::F64, descriptor, inputs)
}

/// As [`linear`], in a given precision.
pub fn linear_in(
    precision: Precision,
    descriptor: &LinearDescriptor,
    inputs: &LinearHostInputs<'_>,
) -> Result<Vec<f64>> {
    inputs.validate(descriptor)?;
    let layer = Linear {
        weight: inputs.weight,
        bias: inputs.bias,
        in_features: descriptor.in_features as usize,
    };
    let rows = inputs.x.chunks_exact(layer.in_features);
    Ok(match precision {
        Precision::F64 => rows.flat_map(|row| layer.apply::<f64, f32>(row)).collect(),
        Precision::F32 => (rows.flat_map(|row| layer.apply::<f32, f32>(row)).map(f64::from)).collect(),
    })
}

/// `[out_features, in_features]` and `[out_features]`.
pub(super) struct Linear<'a> {
    pub(super) weight: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) in_features: usize,
}

impl Linear<'_> {
    pub(super) fn apply<T: Real + From<N>, N: Copy>(&self, x: &[N]) -> Vec<T> {
        let outputs = self.weight.chunks_exact(self.in_features).enumerate();
        let outputs = outputs.map(|(feature, weight)| {
            let mut sum = <T as From<f32>>::from(0.0);
            for (x, w) in x.iter().zip(weight) {
                sum += <T as From<N>>::from(*x) * <T as From<f32>>::from(*w);
            }
            if let Some(bias) = self.bias {
                sum += <T as From<f32>>::from(bias[feature]);
            }
            sum
        });
        outputs.collect()
    }
}
