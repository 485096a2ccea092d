//! What is to be computed: [`AttentionDescriptor`] as a caller writes it, [`Problem`] once it is known to make sense.
//!
//! Nothing here knows of a GPU.

pub(crate) mod dtype;
pub(crate) mod inputs;
pub(crate) mod layout;
pub(crate) mod mask;
pub(crate) mod shape;

pub use dtype::DType;
pub use inputs::{HostInputs, HostKeyPadding};
pub use layout::{Extent, Layout, Strides};
pub use mask::{Broadcast, CausalAlignment, KeyPadding};
pub use shape::AttentionShape;

use crate::error::{Error, Operand, Result};

/// A request for `out = softmax(scale * query keyᵀ + bias) value`, for every batch and head.
///
/// All operands are `f32`. Public fields, a [`Default`] for each, and nothing checked until it becomes a [`Problem`].
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Problem};
///
/// let problem = Problem::new(&AttentionDescriptor {
///     shape: AttentionShape::new(1, 8, 512, 512, 64),
///     causal: Some(CausalAlignment::LowerRight),
///     ..Default::default()
/// })?;
/// assert_eq!(problem.scale(), 0.125);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AttentionDescriptor<'a> {
    /// Name for debugging, shown in GPU captures.
    pub label: Option<&'a str>,
    /// All sizes.
    pub shape: AttentionShape,
    /// Factor of `query · key`; `None` is `1 / sqrt(head_dim)`. May be negative or 0, not NaN or infinite.
    pub scale: Option<f32>,
    /// Closes the keys that lie in a query's future.
    pub causal: Option<CausalAlignment>,
    /// A boolean mask: one byte an element, 0 closes, anything else leaves open (PyTorch's `attn_mask`, true = attend).
    pub mask: Option<Broadcast>,
    /// An additive bias: one `f32` an element, added after scaling; negative infinity closes.
    pub bias: Option<Broadcast>,
    /// Key padding, `[batch, seqlen_k - appended_keys]`, contiguous.
    pub key_padding: Option<KeyPadding>,
    /// The last `appended_keys` of the `seqlen_k` keys are open to every query: no causal rule, mask, bias or padding
    /// reaches them, and the operands of these end before them (PyTorch's `add_bias_kv` and `add_zero_attn`).
    pub appended_keys: u32,
    /// How query, key, value and out lie in memory.
    pub layouts: Layouts,
    /// What is wanted besides `out`.
    pub outputs: Outputs,
    /// Which way to compute; [`Algorithm::Auto`] lets the plan choose.
    pub algorithm: Algorithm,
}

/// The layouts of the four tensors with channels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Layouts {
    /// `[batch, heads, seqlen_q, head_dim]`.
    pub query: Layout,
    /// `[batch, kv_heads, seqlen_k, head_dim]`.
    pub key: Layout,
    /// `[batch, kv_heads, seqlen_k, head_dim_v]`.
    pub value: Layout,
    /// `[batch, heads, seqlen_q, head_dim_v]`.
    pub out: Layout,
}

impl Layouts {
    /// The same layout for all four.
    pub const fn all(layout: Layout) -> Self {
        Self {
            query: layout,
            key: layout,
            value: layout,
            out: layout,
        }
    }
}

/// What a call hands out besides `out`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Outputs {
    /// `[batch, heads, seqlen_q]`, contiguous: `ln(sum_j exp(score_j))`, natural logarithm; negative infinity for a row
    /// with no open key.
    pub lse: bool,
    /// `[batch, heads, seqlen_q, seqlen_k]`, contiguous: the probabilities. Needs [`Algorithm::ThreeKernels`], which
    /// [`Algorithm::Auto`] then takes.
    pub weights: bool,
}

/// The two ways to compute.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Algorithm {
    /// The plan chooses, and says why.
    #[default]
    Auto,
    /// One kernel with online softmax: nothing of size `seqlen_q * seqlen_k` is ever stored.
    Fused,
    /// Scores, softmax and weights · value as three kernels; can hand out the weights.
    ThreeKernels,
}

/// A validated request: every size positive, every operand's strides resolved and within 32-bit indexes.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    label: Option<String>,
    shape: AttentionShape,
    scale: f32,
    causal: Option<CausalAlignment>,
    mask: Option<Extent>,
    bias: Option<Extent>,
    key_padding: Option<(KeyPadding, Extent)>,
    appended_keys: u32,
    query: Extent,
    key: Extent,
    value: Extent,
    out: Extent,
    lse: Extent,
    weights: Extent,
    outputs: Outputs,
    algorithm: Algorithm,
}

impl Problem {
    /// Checks a descriptor. Errors name the operand, what came and what was expected.
    pub fn new(descriptor: &AttentionDescriptor<'_>) -> Result<Self> {
        let AttentionDescriptor {
            shape,
            layouts,
            outputs,
            algorithm,
            appended_keys,
            ..
        } = descriptor.clone();
        shape.validate()?;
        let AttentionShape {
            batch,
            heads,
            kv_heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v,
        } = shape;
        let scale = match descriptor.scale {
            None => (1.0 / f64::from(head_dim).sqrt()) as f32,
            Some(scale) if scale.is_finite() => scale,
            Some(value) => {
                return Err(Error::NotFinite {
                    parameter: "scale",
                    value,
                });
            }
        };
        if appended_keys > seqlen_k {
            return Err(Error::AppendedKeys {
                appended_keys,
                seqlen_k,
            });
        }
        let masked_keys = seqlen_k - appended_keys;
        for (operand, rows) in [(Operand::Query, seqlen_q), (Operand::Key, seqlen_k)] {
            // Shaders compare positions as signed numbers.
            if rows > MAX_ROWS {
                return Err(Error::IndexOverflow {
                    operand,
                    elements: rows.into(),
                    limit: MAX_ROWS.into(),
                });
            }
        }
        let full = [batch, heads, seqlen_q, masked_keys];
        let operand_over_keys = |operand, broadcast: Option<Broadcast>| match broadcast {
            None => Ok(None),
            Some(broadcast) if masked_keys == 0 || broadcast.shape.contains(&0) => Err(Error::Shape {
                operand,
                actual: broadcast.shape.to_vec(),
                expected: format!("sizes of at least 1 that broadcast to {full:?}"),
            }),
            Some(broadcast) => broadcast.resolve(operand, full).map(Some),
        };
        let key_padding = match descriptor.key_padding {
            None => None,
            Some(_) if masked_keys == 0 => {
                let expected = "at least one key that is not appended".into();
                return Err(Error::Shape {
                    operand: Operand::KeyPadding,
                    actual: vec![batch, 0],
                    expected,
                });
            }
            Some(kind) => Some((
                kind,
                Extent::contiguous(Operand::KeyPadding, [batch, 1, 1, masked_keys])?,
            )),
        };
        if outputs.weights && algorithm == Algorithm::Fused {
            return Err(Error::Unsupported {
                what: "weights from the fused kernel".into(),
                why: "it never stores them; use Algorithm::Auto or Algorithm::ThreeKernels".into(),
            });
        }
        let problem = Self {
            label: descriptor.label.map(str::to_owned),
            shape,
            scale,
            causal: descriptor.causal,
            mask: operand_over_keys(Operand::Mask, descriptor.mask)?,
            bias: operand_over_keys(Operand::Bias, descriptor.bias)?,
            key_padding,
            appended_keys,
            query: Extent::new(Operand::Query, layouts.query, [batch, heads, seqlen_q, head_dim])?,
            key: Extent::new(Operand::Key, layouts.key, [batch, kv_heads, seqlen_k, head_dim])?,
            value: Extent::new(Operand::Value, layouts.value, [batch, kv_heads, seqlen_k, head_dim_v])?,
            out: Extent::new(Operand::Out, layouts.out, [batch, heads, seqlen_q, head_dim_v])?,
            lse: Extent::contiguous(Operand::Lse, [batch, heads, 1, seqlen_q])?,
            weights: weights_extent(shape, outputs.weights)?,
            outputs,
            algorithm,
        };
        problem.out.validate_apart(Operand::Out)?;
        Ok(problem)
    }

    /// A projection `y = x Wᵀ + b` in the terms of an attention problem: rows of `x` are queries, rows of `W` keys, `y` the
    /// scores.
    pub(crate) fn linear(linear: &Linear) -> Result<Self> {
        let Linear {
            batch,
            rows,
            in_features,
            out_features,
            input,
            output,
            bias,
        } = *linear;
        let problem = Self::new(&AttentionDescriptor {
            label: Some("linear"),
            shape: AttentionShape::new(batch, 1, rows, out_features, in_features),
            bias: bias.then_some(Broadcast::new([1, 1, 1, out_features])),
            algorithm: Algorithm::ThreeKernels,
            ..Default::default()
        })?;
        let strides = |[batch, row]: [u32; 2]| [batch.into(), 0, row.into(), 1];
        Ok(Self {
            query: Extent::strided(Operand::Query, [batch, 1, rows, in_features], strides(input))?,
            key: Extent::contiguous(Operand::Projection, [1, 1, out_features, in_features])?,
            weights: Extent::strided(Operand::Out, [batch, 1, rows, out_features], strides(output))?,
            outputs: Outputs {
                weights: true,
                lse: false,
            },
            ..problem
        })
    }

    /// The mean of weights over heads in the terms of an attention problem: `out` is `[batch, 1, seqlen_q, seqlen_k]`.
    pub(crate) fn average_heads(batch: u32, heads: u32, seqlen_q: u32, seqlen_k: u32) -> Result<Self> {
        let problem = Self::new(&AttentionDescriptor {
            label: Some("average of heads"),
            shape: AttentionShape::new(batch, heads, seqlen_q, seqlen_k, 1),
            scale: Some((1.0 / f64::from(heads)) as f32),
            outputs: Outputs {
                weights: true,
                lse: false,
            },
            ..Default::default()
        })?;
        let out = Extent::contiguous(Operand::Out, [batch, 1, seqlen_q, seqlen_k])?;
        Ok(Self { out, ..problem })
    }

    /// Name for debugging.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// All sizes.
    pub fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// Factor of `query · key`, the default filled in.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Where the causal diagonal lies, if there is one.
    pub fn causal(&self) -> Option<CausalAlignment> {
        self.causal
    }

    /// With a causal rule: key `j` is open for query `i` when `j <= i + causal_offset`.
    pub fn causal_offset(&self) -> Option<i64> {
        self.causal.map(|alignment| match alignment {
            CausalAlignment::UpperLeft => 0,
            CausalAlignment::LowerRight => i64::from(self.masked_keys()) - i64::from(self.shape.seqlen_q),
        })
    }

    /// What the key padding operand holds, if there is one.
    pub fn key_padding(&self) -> Option<KeyPadding> {
        self.key_padding.map(|(kind, _)| kind)
    }

    /// Number of keys at the end that are open to every query.
    pub fn appended_keys(&self) -> u32 {
        self.appended_keys
    }

    /// Number of keys that causal rule, mask, bias and padding speak of: `seqlen_k - appended_keys`.
    pub fn masked_keys(&self) -> u32 {
        self.shape.seqlen_k - self.appended_keys
    }

    /// Whether some position may be closed.
    pub fn may_close(&self) -> bool {
        self.causal.is_some() || self.mask.is_some() || self.bias.is_some() || self.key_padding.is_some()
    }

    /// What is wanted besides `out`.
    pub fn outputs(&self) -> Outputs {
        self.outputs
    }

    /// Which way to compute was asked for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// An operand's sizes and strides; `None` when the problem does not have it.
    pub fn extent(&self, operand: Operand) -> Option<Extent> {
        match operand {
            Operand::Query => Some(self.query),
            Operand::Key => Some(self.key),
            Operand::Value => Some(self.value),
            Operand::Out => Some(self.out),
            Operand::Lse => self.outputs.lse.then_some(self.lse),
            Operand::Weights => self.outputs.weights.then_some(self.weights),
            Operand::Mask => self.mask,
            Operand::Bias => self.bias,
            Operand::KeyPadding => self.key_padding.map(|(_, extent)| extent),
            _ => None,
        }
    }

    /// Bytes of one element of an operand.
    pub fn element_bytes(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Mask => 1,
            Operand::KeyPadding if self.key_padding() == Some(KeyPadding::Boolean) => 1,
            _ => 4,
        }
    }

    /// Bytes an operand spans, up to the next multiple of 4 that a GPU binding needs.
    pub fn span_bytes(&self, operand: Operand) -> Option<u64> {
        let extent = self.extent(operand)?;
        Some((extent.span() * self.element_bytes(operand)).next_multiple_of(4))
    }
}

/// The sizes of a projection; strides are `[batch, row]`, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linear {
    pub(crate) batch: u32,
    pub(crate) rows: u32,
    pub(crate) in_features: u32,
    pub(crate) out_features: u32,
    pub(crate) input: [u32; 2],
    pub(crate) output: [u32; 2],
    pub(crate) bias: bool,
}

/// The most rows of a sequence.
pub(crate) const MAX_ROWS: u32 = i32::MAX as u32 / 2;

/// The weights' extent, which must only be within reach when somebody asks for them.
fn weights_extent(shape: AttentionShape, wanted: bool) -> Result<Extent> {
    let sizes = [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k];
    match Extent::contiguous(Operand::Weights, sizes) {
        Ok(extent) => Ok(extent),
        Err(error) if wanted => Err(error),
        Err(_) => Extent::contiguous(Operand::Weights, [1; 4]),
    }
}
