//! A multi-head block on the CPU: projections, attention head by head, and the projection of the result.

use super::linear::Linear;
use super::row::Call;
use super::{Precision, Real, ReferenceMods, Tensors, row};
use crate::error::Result;
use crate::multi_head::{HeadWeights, MultiHeadCall, MultiHeadDescriptor, MultiHeadInputs, MultiHeadParameters};
use crate::problem::Problem;

/// All that a multi-head call asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiHeadReference {
    /// `[batch, seqlen_q, embed_dim]` (or sequence first).
    pub output: Vec<f64>,
    /// Each head's result before the output projection, `[batch, seqlen_q, embed_dim]`.
    pub context: Vec<f64>,
    /// As the call asks: per head, averaged or empty.
    pub weights: Vec<f64>,
}

/// Computes a call of a multi-head block in `f64`.
///
/// ```
/// use wgpu_attention::{MultiHeadCall, MultiHeadDescriptor, MultiHeadInputs, MultiHeadParameters, reference};
///
/// // One head of one channel whose projections change nothing, over one word: the word comes back.
/// let weight = vec![1.0];
/// let parameters = MultiHeadParameters {
///     query_weight: weight.clone(),
///     key_weight: weight.clone(),
///     value_weight: weight.clone(),
///     out_weight: weight,
///     ..Default::default()
/// };
/// let descriptor = MultiHeadDescriptor::new(1, 1);
/// let call = MultiHeadCall::self_attention(1, 1);
/// let inputs = MultiHeadInputs::self_attention(&[0.5]);
/// assert_eq!(reference::multi_head(&descriptor, &parameters, &call, &inputs)?.output, [0.5]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn multi_head(
    descriptor: &MultiHeadDescriptor<'_>,
    parameters: &MultiHeadParameters,
    call: &MultiHeadCall,
    inputs: &MultiHeadInputs<'_>,
) -> Result<MultiHeadReference> {
    multi_head_in(Precision::F64, descriptor, parameters, call, inputs)
}

/// As [`multi_head`], in a given precision.
pub fn multi_head_in(
    precision: Precision,
    descriptor: &MultiHeadDescriptor<'_>,
    parameters: &MultiHeadParameters,
    call: &MultiHeadCall,
    inputs: &MultiHeadInputs<'_>,
) -> Result<MultiHeadReference> {
    parameters.validate(descriptor)?;
    let problem = Problem::new(&call.attention(descriptor, parameters.appended_keys(descriptor))?)?;
    inputs.validate(call, descriptor, &problem)?;
    let block = Block {
        descriptor,
        parameters,
        call,
        problem,
    };
    Ok(match precision {
        Precision::F64 => block.run::<f64>(inputs),
        Precision::F32 => block.run::<f32>(inputs),
    })
}

struct Block<'a> {
    descriptor: &'a MultiHeadDescriptor<'a>,
    parameters: &'a MultiHeadParameters,
    call: &'a MultiHeadCall,
    problem: Problem,
}

impl Block<'_> {
    fn run<T: Real>(&self, inputs: &MultiHeadInputs<'_>) -> MultiHeadReference {
        let Self {
            descriptor,
            parameters,
            call,
            ..
        } = self;
        let linear = |weight, bias, in_features: u32| Linear {
            weight,
            bias,
            in_features: in_features as usize,
        };
        let (embed_dim, key_dim, value_dim) = (descriptor.embed_dim, descriptor.key_dim, descriptor.value_dim);
        let query = linear(&parameters.query_weight, parameters.query_bias.as_deref(), embed_dim);
        let key = linear(&parameters.key_weight, parameters.key_bias.as_deref(), key_dim);
        let value = linear(&parameters.value_weight, parameters.value_bias.as_deref(), value_dim);
        let out = linear(&parameters.out_weight, parameters.out_bias.as_deref(), embed_dim);

        let appended = parameters.appended.as_ref();
        let query = self.project::<T>(&query, inputs.query, call.seqlen_q);
        let key = self.with_appended(
            self.project(&key, inputs.key(), call.seqlen_k),
            appended.map(|rows| &rows[0][..]),
        );
        let value = self.with_appended(
            self.project(&value, inputs.value(), call.seqlen_k),
            appended.map(|rows| &rows[1][..]),
        );
        let (context, head_weights) = self.attend(&query, &key, &value, inputs);

        let embed = descriptor.embed_dim as usize;
        let mut output = vec![0.0; context.len()];
        for (index, row) in context.chunks_exact(embed).enumerate() {
            let at = embed * self.input_row(index, call.seqlen_q as usize);
            for (to, from) in output[at..at + embed].iter_mut().zip(out.apply::<T, T>(row)) {
                *to = from.into();
            }
        }
        MultiHeadReference {
            output,
            context: context.into_iter().map(Into::into).collect(),
            weights: self.handed_out(head_weights),
        }
    }

    /// Projects rows to `[batch, rows, embed_dim]`.
    fn project<T: Real>(&self, linear: &Linear<'_>, input: &[f32], rows: u32) -> Vec<T> {
        let rows = rows as usize;
        let mut projected = Vec::new();
        for index in 0..self.call.batch as usize * rows {
            let at = linear.in_features * self.input_row(index, rows);
            projected.extend(linear.apply::<T, f32>(&input[at..at + linear.in_features]));
        }
        projected
    }

    /// Where row `index` of `[batch, rows]` lies in the caller's order.
    fn input_row(&self, index: usize, rows: usize) -> usize {
        match self.call.sequence_first {
            false => index,
            true => index % rows * self.call.batch as usize + index / rows,
        }
    }

    /// The learned row and the zeros behind those of each sequence.
    fn with_appended<T: Real>(&self, rows: Vec<T>, learned: Option<&[f32]>) -> Vec<T> {
        let embed = self.descriptor.embed_dim as usize;
        let mut all = Vec::new();
        for sequence in rows.chunks_exact(embed * self.call.seqlen_k as usize) {
            all.extend_from_slice(sequence);
            all.extend(
                learned
                    .unwrap_or_default()
                    .iter()
                    .map(|&value| <T as From<f32>>::from(value)),
            );
            if self.descriptor.add_zero_attn {
                all.extend(std::iter::repeat_n(<T as From<f32>>::from(0.0), embed));
            }
        }
        all
    }

    /// `[batch, seqlen_q, embed_dim]` and `[batch, heads, seqlen_q, seqlen_k]`.
    fn attend<T: Real>(&self, query: &[T], key: &[T], value: &[T], inputs: &MultiHeadInputs<'_>) -> (Vec<T>, Vec<f64>) {
        let masks = inputs.masks();
        let tensors = Tensors { query, key, value };
        let call = Call {
            problem: &self.problem,
            inputs: &masks,
            mods: &ReferenceMods::default(),
        };
        let shape = self.problem.shape();
        let (embed, head_dim) = (self.descriptor.embed_dim as usize, self.descriptor.head_dim() as usize);
        let mut context = vec![<T as From<f32>>::from(0.0); query.len()];
        let mut weights = Vec::new();
        for batch in 0..shape.batch {
            for head in 0..shape.heads {
                for q_idx in 0..shape.seqlen_q {
                    let row = row::<T, _>(&call, &tensors, [batch, head, q_idx]);
                    let at = (batch * shape.seqlen_q + q_idx) as usize * embed + head as usize * head_dim;
                    for (to, from) in context[at..at + head_dim].iter_mut().zip(row.out) {
                        *to = T::back(from);
                    }
                    weights.extend(row.weights);
                }
            }
        }
        (context, weights)
    }

    fn handed_out(&self, head_weights: Vec<f64>) -> Vec<f64> {
        let shape = self.problem.shape();
        match self.call.weights {
            HeadWeights::None => Vec::new(),
            HeadWeights::PerHead => head_weights,
            HeadWeights::Averaged => {
                let map = shape.seqlen_q as usize * shape.seqlen_k as usize;
                let heads = shape.heads as usize;
                let sequences = head_weights.chunks_exact(map * heads);
                let means = sequences.flat_map(|sequence| {
                    (0..map).map(move |at| sequence[at..].iter().step_by(map).sum::<f64>() / heads as f64)
                });
                means.collect()
            }
        }
    }
}
