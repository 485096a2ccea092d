//! Merging of partial attention results, by the formula.

use crate::error::Result;
use crate::merge::{MergeStatesDescriptor, validate_lengths};

use super::{Precision, Real};

/// Partial attention results joined, in `f64`.
#[derive(Clone, Debug, PartialEq)]
pub struct MergeReference {
    /// `[batch, heads, seqlen_q, head_dim_v]`.
    pub out: Vec<f64>,
    /// `[batch, heads, seqlen_q]`, natural logarithms.
    pub lse: Vec<f64>,
}

/// Joins partial results: `lse = ln(sum(exp(lse_n)))` and `out = sum(exp(lse_n - lse) * out_n)`, over the parts whose
/// `lse_n` is not negative infinity. Where no part is left, out is 0 and lse negative infinity. NaN or positive infinity in
/// an `lse_n` makes its row's out and lse NaN. Storage types do not matter here: nothing is rounded.
///
/// ```
/// use wgpu_attention::{MergeStatesDescriptor, reference};
///
/// // Three parts of one row; the last saw no key, and what its out holds does not matter.
/// let lse_parts = [0.0, 0.0, f32::NEG_INFINITY];
/// let merged = reference::merge_states(&MergeStatesDescriptor::new(3, 1, 1, 1, 1), &[1.0, 3.0, f32::NAN], &lse_parts)?;
/// assert!((merged.out[0] - 2.0).abs() < 1e-12);
/// assert!((merged.lse[0] - 2f64.ln()).abs() < 1e-12);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// A size that is 0, or slices of another length than the descriptor says.
pub fn merge_states(
    descriptor: &MergeStatesDescriptor<'_>,
    out_parts: &[f32],
    lse_parts: &[f32],
) -> Result<MergeReference> {
    merge_states_in(Precision::F64, descriptor, out_parts, lse_parts)
}

/// Joins partial results in a given precision.
pub fn merge_states_in(
    precision: Precision,
    descriptor: &MergeStatesDescriptor<'_>,
    out_parts: &[f32],
    lse_parts: &[f32],
) -> Result<MergeReference> {
    validate_lengths(descriptor, out_parts, lse_parts)?;
    Ok(match precision {
        Precision::F64 => merge::<f64>(descriptor, out_parts, lse_parts),
        Precision::F32 => merge::<f32>(descriptor, out_parts, lse_parts),
    })
}

fn merge<T: Real>(descriptor: &MergeStatesDescriptor<'_>, out_parts: &[f32], lse_parts: &[f32]) -> MergeReference {
    let number = <T as From<f32>>::from;
    let (parts, dim) = (descriptor.parts as usize, descriptor.head_dim_v as usize);
    let rows = lse_parts.len() / parts;
    let mut result = MergeReference {
        out: Vec::with_capacity(rows * dim),
        lse: Vec::with_capacity(rows),
    };
    for row in 0..rows {
        // The parts that saw a key, each with its lse.
        let open: Vec<(usize, T)> = (0..parts)
            .map(|part| part * rows + row)
            .filter(|&at| lse_parts[at] != f32::NEG_INFINITY)
            .map(|at| (at, number(lse_parts[at])))
            .collect();
        let largest = (open.iter()).fold(
            number(f32::NEG_INFINITY),
            |most, &(_, lse)| if lse > most { lse } else { most },
        );
        let mut sum = number(0.0);
        for &(_, lse) in &open {
            sum += (lse - largest).exp();
        }
        result.lse.push(if open.is_empty() {
            f64::NEG_INFINITY
        } else {
            (largest + sum.ln()).into()
        });
        for channel in 0..dim {
            let mut out = number(0.0);
            for &(at, lse) in &open {
                out += (lse - largest).exp() / sum * number(out_parts[at * dim + channel]);
            }
            result.out.push(out.into());
        }
    }
    result
}
