//! The operands of a call as host slices.

use crate::error::{Error, Operand, Result};
use crate::problem::{KeyPadding, Problem};

/// Host slices for one call, each as long as its operand spans in memory (`batch * heads * seqlen * head_dim` elements
/// when contiguous).
///
/// Masks are bytes, 0 for closed: a `&[bool]` becomes one with `bytemuck::cast_slice`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostInputs<'a> {
    /// `[batch, heads, seqlen_q, head_dim]` in the descriptor's layout.
    pub query: &'a [f32],
    /// `[batch, kv_heads, seqlen_k, head_dim]` in the descriptor's layout.
    pub key: &'a [f32],
    /// `[batch, kv_heads, seqlen_k, head_dim_v]` in the descriptor's layout.
    pub value: &'a [f32],
    /// The boolean mask, if the descriptor names one.
    pub mask: Option<&'a [u8]>,
    /// The additive bias, if the descriptor names one.
    pub bias: Option<&'a [f32]>,
    /// The key padding, if the descriptor names one.
    pub key_padding: Option<HostKeyPadding<'a>>,
}

/// Key padding as host data, `[batch, seqlen_k - appended_keys]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HostKeyPadding<'a> {
    /// One `f32` a key, added to its scores.
    Additive(&'a [f32]),
    /// One byte a key, 0 for closed.
    Boolean(&'a [u8]),
}

impl<'a> HostInputs<'a> {
    /// Checks that exactly the operands that the problem names are here, each of its length.
    pub fn validate(&self, problem: &Problem) -> Result<()> {
        self.validate_lengths(
            problem,
            &[
                (Operand::Query, Some(self.query.len())),
                (Operand::Key, Some(self.key.len())),
                (Operand::Value, Some(self.value.len())),
            ],
        )?;
        self.validate_masks(problem)
    }

    /// Checks mask, bias and key padding only.
    pub(crate) fn validate_masks(&self, problem: &Problem) -> Result<()> {
        let (padding_kind, padding_len) = match self.key_padding {
            None => (None, None),
            Some(HostKeyPadding::Additive(padding)) => (Some(KeyPadding::Additive), Some(padding.len())),
            Some(HostKeyPadding::Boolean(padding)) => (Some(KeyPadding::Boolean), Some(padding.len())),
        };
        self.validate_lengths(
            problem,
            &[
                (Operand::Mask, self.mask.map(<[u8]>::len)),
                (Operand::Bias, self.bias.map(<[f32]>::len)),
                (Operand::KeyPadding, padding_len),
            ],
        )?;
        if padding_kind != problem.key_padding() {
            return Err(Error::Unsupported {
                what: format!("key_padding given as {padding_kind:?}"),
                why: format!("the descriptor says {:?}", problem.key_padding()),
            });
        }
        Ok(())
    }

    fn validate_lengths(&self, problem: &Problem, operands: &[(Operand, Option<usize>)]) -> Result<()> {
        for &(operand, len) in operands {
            match (problem.extent(operand), len) {
                (None, None) => {}
                (None, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
                (Some(_), None) => return Err(Error::MissingOperand { operand }),
                (Some(extent), Some(actual)) if actual as u64 != extent.span() => {
                    return Err(Error::Length {
                        operand,
                        actual: actual as u64,
                        expected: extent.span(),
                    });
                }
                (Some(_), Some(_)) => {}
            }
        }
        Ok(())
    }

    /// An operand's bytes; `None` when it is absent or an output.
    pub(crate) fn bytes(&self, operand: Operand) -> Option<&'a [u8]> {
        match operand {
            Operand::Query => Some(bytemuck::cast_slice(self.query)),
            Operand::Key => Some(bytemuck::cast_slice(self.key)),
            Operand::Value => Some(bytemuck::cast_slice(self.value)),
            Operand::Mask => self.mask,
            Operand::Bias => self.bias.map(bytemuck::cast_slice),
            Operand::KeyPadding => self.key_padding.map(|padding| match padding {
                HostKeyPadding::Additive(values) => bytemuck::cast_slice(values),
                HostKeyPadding::Boolean(bytes) => bytes,
            }),
            _ => None,
        }
    }
}
