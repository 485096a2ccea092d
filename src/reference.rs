//! The CPU oracle: plain loops in `f64` that define every feature. Slow on purpose: no tiling, no cleverness, no GPU.
//!
//! For query row `i` of head `h`, with `p = i + offset` its own position among the keys:
//!
//! ```text
//! score[j]  = scale * (query[i] · key[j])                      ScoreStage::Scaled
//! score[j]  = softcap * tanh(score[j] / softcap)               ScoreStage::Capped
//! score[j]  = score_mod(score[j], batch, head, i, j)
//! score[j] += -slope[h] * |p - j| + bias + additive padding    ScoreStage::Biased, closed positions left out
//! lse       = ln(sum_j exp(score[j]) + exp(sink[h]))
//! weight[j] = prob_mod(exp(score[j] - lse), batch, head, i, j)
//! out       = sum_j weight[j] * keep[j] / (1 - probability) * value[j]
//! ```
//!
//! Closed positions are left out altogether, so nothing behind a mask reaches a result. A row with no open key gives zeros and
//! an lse of negative infinity (with a sink, the sink). NaN in an open position spreads as IEEE 754 says.

mod linear;
mod merge;
mod multi_head;
mod rope;
mod row;
mod scatter;

pub use linear::{linear, linear_in};
pub use merge::{MergeReference, merge_states, merge_states_in};
pub use multi_head::{MultiHeadReference, multi_head, multi_head_in};
pub use rope::{rope, rope_in};
pub use row::is_open;
pub(crate) use row::{Real, Tensors, row};
pub use scatter::tensor_scatter;

use crate::error::{Error, Operand, Result};
use crate::problem::{Extent, HostInputs, Problem, ScoreStage};
use row::Call;

/// All that a problem asks for, computed in `f64`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// `out` as it lies in memory by the problem's layout; gaps between its elements are 0.
    pub out: Vec<f64>,
    /// `[batch, heads, seqlen_q]`, or `[heads, tokens_q]` of packed sequences.
    pub lse: Vec<f64>,
    /// `[batch, heads, rows, seqlen_k]` if the problem asks for weights, else empty.
    pub weights: Vec<f64>,
    /// `[batch, heads, rows, seqlen_k]` if the problem asks for scores, else empty. Behind the end of a shorter sequence they
    /// are 0 as long as masks do not count, and closed once they do.
    pub scores: Vec<f64>,
}

/// One row of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct ReferenceRow {
    /// `[head_dim_v]`.
    pub out: Vec<f64>,
    /// Log-sum-exp of the row.
    pub lse: f64,
    /// `[seqlen_k]`.
    pub weights: Vec<f64>,
    /// `[seqlen_k]`, at the stage that the problem asks for; empty if it asks for none.
    pub scores: Vec<f64>,
}

/// Which number type the same formulas are computed in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Precision {
    /// The reference itself.
    #[default]
    F64,
    /// The naive computation in single precision, by whose error tolerances are measured.
    F32,
}

/// A score or a weight, and `[batch, head, q_idx, kv_idx]`.
pub type ValueMod<'a> = &'a dyn Fn(f64, [u32; 4]) -> f64;

/// The caller's functions of a [`Mods`](crate::Mods) once more, in Rust: the reference does not run WGSL.
#[derive(Clone, Copy, Default)]
pub struct ReferenceMods<'a> {
    /// `score_mod`; negative infinity closes.
    pub score_mod: Option<ValueMod<'a>>,
    /// `mask_mod`, from `[batch, head, q_idx, kv_idx]`.
    pub mask_mod: Option<&'a dyn Fn([u32; 4]) -> bool>,
    /// `prob_mod`.
    pub prob_mod: Option<ValueMod<'a>>,
}

/// Computes a whole problem.
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, HostInputs, Problem, reference};
///
/// // Two keys that match a query equally: their values are averaged.
/// let shape = AttentionShape { head_dim_v: 1, ..AttentionShape::new(1, 1, 1, 2, 2) };
/// let problem = Problem::new(&AttentionDescriptor { shape, ..Default::default() })?;
/// let inputs = HostInputs::new(&[1.0f32, 1.0], &[1.0f32, 0.0, 0.0, 1.0], &[10.0f32, 20.0]);
/// let result = reference::attention(&problem, &inputs)?;
/// assert!((result.out[0] - 15.0).abs() < 1e-12);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn attention(problem: &Problem, inputs: &HostInputs<'_>) -> Result<Reference> {
    attention_in(Precision::F64, problem, inputs)
}

/// Computes a whole problem in a given precision.
pub fn attention_in(precision: Precision, problem: &Problem, inputs: &HostInputs<'_>) -> Result<Reference> {
    attention_with(precision, problem, inputs, &ReferenceMods::default())
}

/// Computes a whole problem with the caller's functions.
///
/// ```
/// use wgpu_attention::reference::{self, Precision, ReferenceMods};
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, HostInputs, Mods, Problem};
///
/// let mask_mod = "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool { return kv_idx % 2u == 0u; }";
/// let problem = Problem::new(&AttentionDescriptor {
///     shape: AttentionShape::new(1, 1, 1, 4, 1),
///     mods: Mods { mask_mod: Some(mask_mod), ..Default::default() },
///     ..Default::default()
/// })?;
/// let in_rust = |[_batch, _head, _q_idx, kv_idx]: [u32; 4]| kv_idx % 2 == 0;
/// let mods = ReferenceMods { mask_mod: Some(&in_rust), ..Default::default() };
/// let inputs = HostInputs::new(&[0.0f32], &[0.0f32; 4], &[1.0f32, 7.0, 3.0, 7.0]);
/// let result = reference::attention_with(Precision::F64, &problem, &inputs, &mods)?;
/// assert_eq!(result.out, [2.0]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// # Errors
/// [`Error::Unsupported`] when the problem has a function that `mods` lacks.
pub fn attention_with(
    precision: Precision,
    problem: &Problem,
    inputs: &HostInputs<'_>,
    mods: &ReferenceMods<'_>,
) -> Result<Reference> {
    inputs.validate(problem)?;
    validate_mods(problem, mods)?;
    let shape = problem.shape();
    let out_extent = extent(problem, Operand::Out);
    let lse_extent = problem.lse_extent()?;
    let mut result = Reference {
        out: vec![0.0; span(&out_extent)],
        lse: vec![f64::NEG_INFINITY; span(&lse_extent)],
        weights: Vec::new(),
        scores: Vec::new(),
    };
    let handed_out = problem.rows();
    for batch in 0..shape.batch {
        let sequence = row::sequence_of(problem, inputs, batch);
        for head in 0..shape.heads {
            for q_idx in 0..shape.seqlen_q {
                let row = if q_idx < sequence.rows {
                    compute_row(precision, problem, inputs, mods, [batch, head, q_idx])
                } else {
                    behind_end(problem)
                };
                if q_idx < sequence.rows {
                    let [sequence_number, at] = match problem.packed() {
                        None => [batch, q_idx],
                        Some(_) => [0, sequence.query_base + q_idx],
                    };
                    for (channel, value) in (0..).zip(&row.out) {
                        result.out[index(&out_extent, [sequence_number, head, at, channel])] = *value;
                    }
                    result.lse[index(&lse_extent, [sequence_number, head, 0, at])] = row.lse;
                }
                if handed_out.contains(&q_idx) {
                    if problem.outputs().weights {
                        result.weights.extend(row.weights);
                    }
                    result.scores.extend(row.scores);
                }
            }
        }
    }
    Ok(result)
}

/// Computes single rows `[batch, head, q_idx]`, for spot checks of problems too large to compute whole. Indexes beyond the
/// problem's sizes wrap around.
pub fn rows(problem: &Problem, inputs: &HostInputs<'_>, positions: &[[u32; 3]]) -> Result<Vec<ReferenceRow>> {
    rows_in(Precision::F64, problem, inputs, positions)
}

/// Computes single rows in a given precision.
pub fn rows_in(
    precision: Precision,
    problem: &Problem,
    inputs: &HostInputs<'_>,
    positions: &[[u32; 3]],
) -> Result<Vec<ReferenceRow>> {
    rows_with(precision, problem, inputs, &ReferenceMods::default(), positions)
}

/// Computes single rows with the caller's functions.
pub fn rows_with(
    precision: Precision,
    problem: &Problem,
    inputs: &HostInputs<'_>,
    mods: &ReferenceMods<'_>,
    positions: &[[u32; 3]],
) -> Result<Vec<ReferenceRow>> {
    inputs.validate(problem)?;
    validate_mods(problem, mods)?;
    let shape = problem.shape();
    let wrap = |&[batch, head, q_idx]: &[u32; 3]| [batch % shape.batch, head % shape.heads, q_idx % shape.seqlen_q];
    Ok(positions
        .iter()
        .map(|position| {
            let [batch, head, q_idx] = wrap(position);
            match q_idx < row::sequence_of(problem, inputs, batch).rows {
                true => compute_row(precision, problem, inputs, mods, [batch, head, q_idx]),
                false => behind_end(problem),
            }
        })
        .collect())
}

fn validate_mods(problem: &Problem, mods: &ReferenceMods<'_>) -> Result<()> {
    let asked = problem.mods();
    for (name, asked, given) in [
        ("score_mod", asked.score_mod.is_some(), mods.score_mod.is_some()),
        ("mask_mod", asked.mask_mod.is_some(), mods.mask_mod.is_some()),
        ("prob_mod", asked.prob_mod.is_some(), mods.prob_mod.is_some()),
    ] {
        if asked != given {
            return Err(Error::Unsupported {
                what: format!(
                    "the reference of a problem {} {name}",
                    if asked { "with" } else { "without" }
                ),
                why: "ReferenceMods must hold the functions that the problem has, and no other".into(),
            });
        }
    }
    Ok(())
}

fn compute_row(
    precision: Precision,
    problem: &Problem,
    inputs: &HostInputs<'_>,
    mods: &ReferenceMods<'_>,
    position: [u32; 3],
) -> ReferenceRow {
    let call = Call { problem, inputs, mods };
    match precision {
        Precision::F64 => row::<f64, _>(&call, &row::HostTensors(inputs), position),
        Precision::F32 => row::<f32, _>(&call, &row::HostTensors(inputs), position),
    }
}

/// A row that its sequence does not have.
fn behind_end(problem: &Problem) -> ReferenceRow {
    let shape = problem.shape();
    let keys = shape.seqlen_k as usize;
    ReferenceRow {
        out: vec![0.0; shape.head_dim_v as usize],
        lse: f64::NEG_INFINITY,
        weights: vec![0.0; keys],
        scores: match problem.outputs().scores {
            None => Vec::new(),
            Some(ScoreStage::Biased) => vec![f64::NEG_INFINITY; keys],
            Some(_) => vec![0.0; keys],
        },
    }
}

/// The operand's extent; one that the problem does not have is never asked for, since the inputs were validated.
fn extent(problem: &Problem, operand: Operand) -> Extent {
    problem.extent(operand).unwrap_or(Extent {
        sizes: [1; 4],
        strides: [0; 4],
    })
}

fn index(extent: &Extent, position: [u32; 4]) -> usize {
    usize::try_from(extent.offset(position)).unwrap_or(usize::MAX)
}

fn span(extent: &Extent) -> usize {
    usize::try_from(extent.span()).unwrap_or(usize::MAX)
}
