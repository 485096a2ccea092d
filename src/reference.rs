//! The CPU oracle: plain loops in `f64` that define every feature. Slow on purpose: no tiling, no cleverness, no GPU.
//!
//! For query row `i` of head `h`: `score[j] = scale * (query[i] · key[j]) + bias + padding`; closed positions are left out
//! altogether, so nothing behind a mask reaches a result; `lse = ln(sum_j exp(score[j]))`;
//! `weights[j] = exp(score[j] - lse)`; `out = sum_j weights[j] * value[j]`. A row with no open key gives zeros and an lse of
//! negative infinity. NaN in an open position spreads as IEEE 754 says.

mod merge;
mod multi_head;
mod scatter;

pub use merge::{MergeReference, merge_states, merge_states_in};
pub use multi_head::{MultiHeadReference, multi_head, multi_head_in};
pub use scatter::tensor_scatter;

use crate::error::{Operand, Result};
use crate::problem::{Extent, HostInputs, HostKeyPadding, Problem};

/// All that a problem asks for, computed in `f64`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reference {
    /// `out` as it lies in memory by the problem's layout; gaps between its elements are 0.
    pub out: Vec<f64>,
    /// `[batch, heads, seqlen_q]`.
    pub lse: Vec<f64>,
    /// `[batch, heads, seqlen_q, seqlen_k]` if the problem asks for weights, else empty.
    pub weights: Vec<f64>,
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
}

/// Which number type the same formulas are computed in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Precision {
    /// The reference itself.
    F64,
    /// The naive computation in single precision, by whose error tolerances are measured.
    F32,
}

/// Computes a whole problem.
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, HostInputs, Problem, reference};
///
/// // Two keys that match a query equally: their values are averaged.
/// let shape = AttentionShape { head_dim_v: 1, ..AttentionShape::new(1, 1, 1, 2, 2) };
/// let problem = Problem::new(&AttentionDescriptor { shape, ..Default::default() })?;
/// let (query, key, value) = ([1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [10.0, 20.0]);
/// let inputs = HostInputs { query: &query, key: &key, value: &value, ..Default::default() };
/// let result = reference::attention(&problem, &inputs)?;
/// assert!((result.out[0] - 15.0).abs() < 1e-12);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn attention(problem: &Problem, inputs: &HostInputs<'_>) -> Result<Reference> {
    attention_in(Precision::F64, problem, inputs)
}

/// Computes a whole problem in a given precision.
pub fn attention_in(precision: Precision, problem: &Problem, inputs: &HostInputs<'_>) -> Result<Reference> {
    inputs.validate(problem)?;
    let shape = problem.shape();
    let out_extent = extent(problem, Operand::Out);
    let mut result = Reference {
        out: vec![0.0; span(&out_extent)],
        lse: Vec::new(),
        weights: Vec::new(),
    };
    for batch in 0..shape.batch {
        for head in 0..shape.heads {
            for q_idx in 0..shape.seqlen_q {
                let row = compute_row(precision, problem, inputs, [batch, head, q_idx]);
                for (channel, value) in (0..).zip(&row.out) {
                    result.out[index(&out_extent, [batch, head, q_idx, channel])] = *value;
                }
                result.lse.push(row.lse);
                if problem.outputs().weights {
                    result.weights.extend(row.weights);
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
    inputs.validate(problem)?;
    let shape = problem.shape();
    let wrap = |&[batch, head, q_idx]: &[u32; 3]| [batch % shape.batch, head % shape.heads, q_idx % shape.seqlen_q];
    Ok(positions
        .iter()
        .map(|position| compute_row(precision, problem, inputs, wrap(position)))
        .collect())
}

/// Whether key `kv_idx` is open for a query row, whatever its scores.
pub fn is_open(problem: &Problem, inputs: &HostInputs<'_>, [batch, head, q_idx]: [u32; 3], kv_idx: u32) -> bool {
    if kv_idx >= problem.masked_keys() {
        return true;
    }
    let causal = problem
        .causal_offset()
        .is_none_or(|offset| i64::from(kv_idx) <= i64::from(q_idx) + offset);
    let mask = inputs
        .mask
        .is_none_or(|mask| mask[at(problem, Operand::Mask, [batch, head, q_idx, kv_idx])] != 0);
    let bias = bias(problem, inputs, [batch, head, q_idx, kv_idx]) != f32::NEG_INFINITY;
    let padded = at_padding(problem, batch, kv_idx);
    let padding = match inputs.key_padding {
        None => true,
        Some(HostKeyPadding::Boolean(padding)) => padding[padded] != 0,
        Some(HostKeyPadding::Additive(padding)) => padding[padded] != f32::NEG_INFINITY,
    };
    causal && mask && bias && padding
}

fn compute_row(precision: Precision, problem: &Problem, inputs: &HostInputs<'_>, position: [u32; 3]) -> ReferenceRow {
    let tensors = Tensors {
        query: inputs.query,
        key: inputs.key,
        value: inputs.value,
    };
    match precision {
        Precision::F64 => row::<f64, f32>(problem, &tensors, inputs, position),
        Precision::F32 => row::<f32, f32>(problem, &tensors, inputs, position),
    }
}

/// Query, key and value in any precision; what else a row needs comes with [`HostInputs`].
struct Tensors<'a, N> {
    query: &'a [N],
    key: &'a [N],
    value: &'a [N],
}

/// What the formulas need of a number.
trait Real:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::AddAssign
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + From<f32>
    + Into<f64>
{
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    /// A value that came from this type.
    fn back(value: f64) -> Self;
}

impl Real for f32 {
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln(self) -> Self {
        self.ln()
    }
    fn back(value: f64) -> Self {
        value as f32
    }
}

impl Real for f64 {
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln(self) -> Self {
        self.ln()
    }
    fn back(value: f64) -> Self {
        value
    }
}

fn row<T: Real + From<N>, N: Copy>(
    problem: &Problem,
    tensors: &Tensors<'_, N>,
    inputs: &HostInputs<'_>,
    position: [u32; 3],
) -> ReferenceRow {
    let shape = problem.shape();
    let [batch, head, q_idx] = position;
    let kv_head = head / shape.group_size();
    let zero = <T as From<f32>>::from(0.0);

    // Scores of the open keys, by key.
    let mut scores: Vec<(u32, T)> = Vec::new();
    let query = channels(tensors.query, problem, Operand::Query, [batch, head, q_idx]);
    for kv_idx in (0..shape.seqlen_k).filter(|&kv_idx| is_open(problem, inputs, position, kv_idx)) {
        let mut product = zero;
        for (q, k) in query
            .iter()
            .zip(channels(tensors.key, problem, Operand::Key, [batch, kv_head, kv_idx]))
        {
            product += <T as From<N>>::from(*q) * <T as From<N>>::from(*k);
        }
        let mut score = product * <T as From<f32>>::from(problem.scale());
        if kv_idx < problem.masked_keys() {
            score += <T as From<f32>>::from(bias(problem, inputs, [batch, head, q_idx, kv_idx]));
            if let Some(HostKeyPadding::Additive(padding)) = inputs.key_padding {
                score += <T as From<f32>>::from(padding[at_padding(problem, batch, kv_idx)]);
            }
        }
        scores.push((kv_idx, score));
    }

    let mut result = ReferenceRow {
        out: vec![0.0; shape.head_dim_v as usize],
        lse: f64::NEG_INFINITY,
        weights: vec![0.0; shape.seqlen_k as usize],
    };
    let Some(&(_, first)) = scores.first() else {
        return result;
    };
    let row_max = scores
        .iter()
        .fold(first, |max, &(_, score)| if score > max { score } else { max });
    let mut row_sum = zero;
    for (_, score) in &scores {
        row_sum += (*score - row_max).exp();
    }
    let mut out = vec![zero; shape.head_dim_v as usize];
    for (kv_idx, score) in scores {
        let weight = (score - row_max).exp() / row_sum;
        result.weights[kv_idx as usize] = weight.into();
        for (sum, v) in out.iter_mut().zip(channels(
            tensors.value,
            problem,
            Operand::Value,
            [batch, kv_head, kv_idx],
        )) {
            *sum += weight * <T as From<N>>::from(*v);
        }
    }
    result.lse = (row_max + row_sum.ln()).into();
    result.out = out.into_iter().map(Into::into).collect();
    result
}

/// The channels of one row.
fn channels<'a, N>(data: &'a [N], problem: &Problem, operand: Operand, [batch, head, row]: [u32; 3]) -> &'a [N] {
    let extent = extent(problem, operand);
    let first = index(&extent, [batch, head, row, 0]);
    &data[first..first + extent.sizes[3] as usize]
}

fn bias(problem: &Problem, inputs: &HostInputs<'_>, position: [u32; 4]) -> f32 {
    inputs
        .bias
        .map_or(0.0, |bias| bias[at(problem, Operand::Bias, position)])
}

fn at_padding(problem: &Problem, batch: u32, kv_idx: u32) -> usize {
    problem
        .extent(Operand::KeyPadding)
        .map_or(0, |extent| index(&extent, [batch, 0, 0, kv_idx]))
}

fn at(problem: &Problem, operand: Operand, position: [u32; 4]) -> usize {
    index(&extent(problem, operand), position)
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
