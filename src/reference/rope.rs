//! Rotary embedding on the CPU: the angle in `f64`, then pair by pair.

use super::{Precision, index, span};
use crate::error::{Operand, Result};
use crate::rope::{RopeHostInputs, RopePositions, RopeProblem};

/// Rotates in `f64`. The result lies in memory by out's layout; gaps between its elements are 0, or x's own in place.
///
/// ```
/// use wgpu_attention::{RopeAngles, RopeDescriptor, RopeFrequencies, RopeHostInputs, RopePositions, RopeProblem, reference};
///
/// // A quarter turn a position: at position 1, (1, 0) becomes (0, 1).
/// let quarter = RopeFrequencies::from_inv_freq(vec![std::f64::consts::FRAC_PI_2], 1.0)?;
/// let problem = RopeProblem::new(&RopeDescriptor {
///     positions: RopePositions::Offset(1),
///     ..RopeDescriptor::new([1, 1, 1, 2], RopeAngles::Frequencies(&quarter))
/// })?;
/// let out = reference::rope(&problem, &RopeHostInputs { x: &[1.0, 0.0], ..Default::default() })?;
/// assert!(out[0].abs() < 1e-15 && (out[1] - 1.0).abs() < 1e-15);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn rope(problem: &RopeProblem, inputs: &RopeHostInputs<'_>) -> Result<Vec<f64>> {
    rope_in(Precision::F64, problem, inputs)
}

/// As [`rope`], in a given precision: in single precision cos and sin are rounded, and what follows is computed in it.
pub fn rope_in(precision: Precision, problem: &RopeProblem, inputs: &RopeHostInputs<'_>) -> Result<Vec<f64>> {
    inputs.validate(problem)?;
    let out_extent = extent(problem, Operand::Out);
    let x_extent = problem.extent(Operand::X).unwrap_or(out_extent);
    let mut out = match problem.in_place() {
        true => inputs.x.iter().copied().map(f64::from).collect(),
        false => vec![0.0; span(&out_extent)],
    };
    let [batches, heads, seqlen, head_dim] = problem.sizes();
    for batch in 0..batches {
        for row in 0..seqlen {
            let turns: Vec<_> = (0..problem.rotary_dim() / 2)
                .map(|pair| cos_sin(problem, inputs, [batch, row, pair]))
                .collect();
            for head in 0..heads {
                let x_at = |channel| f64::from(inputs.x[index(&x_extent, [batch, head, row, channel])]);
                let mut store = |channel, value| out[index(&out_extent, [batch, head, row, channel])] = value;
                for (pair, &(cos, sin)) in (0..).zip(&turns) {
                    let [first, second] = problem.channels(pair);
                    let (x1, x2) = (x_at(first), x_at(second));
                    store(first, turned(precision, [x1, cos, -x2, sin]));
                    store(second, turned(precision, [x2, cos, x1, sin]));
                }
                for channel in problem.rotary_dim()..head_dim {
                    store(channel, x_at(channel));
                }
            }
        }
    }
    Ok(out)
}

/// `a cos + b sin`.
fn turned(precision: Precision, [a, cos, b, sin]: [f64; 4]) -> f64 {
    match precision {
        Precision::F64 => a * cos + b * sin,
        Precision::F32 => f64::from(a as f32 * cos as f32 + b as f32 * sin as f32),
    }
}

/// Cos and sin of a row's pair, times the attention scaling.
fn cos_sin(problem: &RopeProblem, inputs: &RopeHostInputs<'_>, [batch, row, pair]: [u32; 3]) -> (f64, f64) {
    let position = match (problem.positions(), problem.extent(Operand::PositionIds)) {
        (_, Some(extent)) => inputs.position_ids.unwrap_or_default()[index(&extent, [batch, 0, 0, row])].into(),
        (RopePositions::Offset(offset), None) => i64::from(offset) + i64::from(row),
        (_, None) => 0,
    };
    if let Some(frequencies) = problem.frequencies() {
        let angle = position as f64 * frequencies.inv_freq()[pair as usize];
        let scaling = frequencies.attention_scaling();
        return (angle.cos() * scaling, angle.sin() * scaling);
    }
    let cache = extent(problem, Operand::Cos);
    let at = match problem.max_positions() {
        // Validated to lie within the caches.
        Some(_) => index(&cache, [0, 0, position as u32, pair]),
        None => index(&cache, [batch, 0, row, pair]),
    };
    let value = |list: Option<&[f32]>| f64::from(list.unwrap_or_default()[at]);
    (value(inputs.cos), value(inputs.sin))
}

/// The operand's extent; one that the problem does not have is never asked for, since the inputs were validated.
fn extent(problem: &RopeProblem, operand: Operand) -> crate::problem::Extent {
    problem.extent(operand).unwrap_or(crate::problem::Extent {
        sizes: [1; 4],
        strides: [0; 4],
    })
}
