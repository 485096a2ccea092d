//! One call of a multi-head block: its sizes, its inputs on the host, and what it gives back.

use crate::error::{Error, Operand, Result};
use crate::multi_head::MultiHeadDescriptor;
use crate::problem::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, HostInputs, HostKeyPadding, KeyPadding,
    Layout, Layouts, Outputs, Problem,
};

/// The sizes of one call and what it is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MultiHeadCall {
    /// Number of sequences.
    pub batch: u32,
    /// Rows of query.
    pub seqlen_q: u32,
    /// Rows of key and value, without those that the block itself appends.
    pub seqlen_k: u32,
    /// Inputs and output are `[seqlen, batch, channels]` instead of `[batch, seqlen, channels]`.
    pub sequence_first: bool,
    /// Closes the keys in a query's future; appended keys stay open.
    pub causal: Option<CausalAlignment>,
    /// A boolean mask that broadcasts to `[batch, heads, seqlen_q, seqlen_k]`; 0 closes. (PyTorch's `attn_mask` for this
    /// module says the opposite: true closes.)
    pub mask: Option<Broadcast>,
    /// An additive bias that broadcasts to `[batch, heads, seqlen_q, seqlen_k]`.
    pub bias: Option<Broadcast>,
    /// Key padding, `[batch, seqlen_k]`; in bytes, 0 closes.
    pub key_padding: Option<KeyPadding>,
    /// Which weights to hand out.
    pub weights: HeadWeights,
    /// Which way to compute.
    pub algorithm: Algorithm,
}

/// Which attention weights a multi-head call hands out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HeadWeights {
    /// Their mean over heads, `[batch, seqlen_q, seqlen_k]`.
    Averaged,
    /// None.
    #[default]
    None,
    /// Those of each head, `[batch, heads, seqlen_q, seqlen_k]`.
    PerHead,
}

impl MultiHeadCall {
    /// Self-attention of `batch` sequences, nothing masked.
    pub const fn self_attention(batch: u32, seqlen: u32) -> Self {
        Self {
            batch,
            seqlen_q: seqlen,
            seqlen_k: seqlen,
            sequence_first: false,
            causal: None,
            mask: None,
            bias: None,
            key_padding: None,
            weights: HeadWeights::None,
            algorithm: Algorithm::Auto,
        }
    }

    /// The attention inside: heads split by strides, the appended keys counted.
    pub(crate) fn attention(
        &self,
        descriptor: &MultiHeadDescriptor<'_>,
        appended_keys: u32,
    ) -> Result<AttentionDescriptor<'static>> {
        if self.seqlen_k == 0 {
            return Err(Error::ZeroSize { dimension: "seqlen_k" });
        }
        let seqlen_k = self.seqlen_k.saturating_add(appended_keys);
        Ok(AttentionDescriptor {
            label: Some("multi-head attention"),
            shape: AttentionShape::new(
                self.batch,
                descriptor.heads,
                self.seqlen_q,
                seqlen_k,
                descriptor.head_dim(),
            ),
            causal: self.causal,
            mask: self.mask,
            bias: self.bias,
            key_padding: self.key_padding,
            appended_keys,
            layouts: Layouts::all(Layout::Bshd),
            outputs: Outputs {
                weights: self.weights != HeadWeights::None,
                ..Default::default()
            },
            algorithm: self.algorithm,
            ..Default::default()
        })
    }
}

/// The inputs of a call as host slices, `[batch, seqlen, channels]` (or sequence first).
#[derive(Clone, Copy, Debug, Default)]
pub struct MultiHeadInputs<'a> {
    /// `[batch, seqlen_q, embed_dim]`.
    pub query: &'a [f32],
    /// `[batch, seqlen_k, key_dim]`; `None` is the query itself.
    pub key: Option<&'a [f32]>,
    /// `[batch, seqlen_k, value_dim]`; `None` is the key.
    pub value: Option<&'a [f32]>,
    /// The boolean mask, if the call names one.
    pub mask: Option<&'a [u8]>,
    /// The additive bias, if the call names one.
    pub bias: Option<&'a [f32]>,
    /// The key padding, if the call names one.
    pub key_padding: Option<HostKeyPadding<'a>>,
}

impl<'a> MultiHeadInputs<'a> {
    /// Query, key and value are the same.
    pub fn self_attention(x: &'a [f32]) -> Self {
        Self {
            query: x,
            ..Self::default()
        }
    }

    /// Checks lengths, and that exactly the masks that the call names are here.
    pub(crate) fn validate(
        &self,
        call: &MultiHeadCall,
        descriptor: &MultiHeadDescriptor<'_>,
        problem: &Problem,
    ) -> Result<()> {
        let rows = |rows: u32, channels: u32| u64::from(call.batch) * u64::from(rows) * u64::from(channels);
        let (key, value) = (self.key(), self.value());
        for (operand, actual, expected) in [
            (
                Operand::Query,
                self.query.len(),
                rows(call.seqlen_q, descriptor.embed_dim),
            ),
            (Operand::Key, key.len(), rows(call.seqlen_k, descriptor.key_dim)),
            (Operand::Value, value.len(), rows(call.seqlen_k, descriptor.value_dim)),
        ] {
            if actual as u64 != expected {
                let actual = actual as u64;
                return Err(Error::Length {
                    operand,
                    actual,
                    expected,
                });
            }
        }
        self.masks().validate_masks(problem)
    }

    /// The key input, which is the query's when there is none.
    pub(crate) fn key(&self) -> &'a [f32] {
        self.key.unwrap_or(self.query)
    }

    /// The value input, which is the key's when there is none.
    pub(crate) fn value(&self) -> &'a [f32] {
        self.value.unwrap_or(self.key())
    }

    /// Mask, bias and padding alone.
    pub(crate) fn masks(&self) -> HostInputs<'a> {
        HostInputs {
            mask: self.mask,
            bias: self.bias.map(Into::into),
            key_padding: self.key_padding,
            ..Default::default()
        }
    }
}

/// What a call on host slices gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiHeadOutput {
    /// `[batch, seqlen_q, embed_dim]` (or sequence first).
    pub output: Vec<f32>,
    /// Each head's result before the output projection, `[batch, seqlen_q, embed_dim]`.
    pub context: Vec<f32>,
    /// The weights, if asked for; their keys include appended ones.
    pub weights: Option<Vec<f32>>,
}
