//! ONNX's `Attention` (opsets 23 to 25) in the terms of this crate: attributes and shapes in, a plan of the call out.
//!
//! Nothing here knows of a GPU. `docs/ONNX.md` tells what the operator means, opset by opset, and how its neighbours
//! (`RotaryEmbedding`, `TensorScatter`, `FlexAttention`) map.

mod data;
mod node;
mod positions;
#[cfg(test)]
mod tests;

pub use node::{OnnxAttention, OnnxMask, OnnxMaskKind};
pub use positions::{Lengths, Window};

use crate::error::Result;
use crate::problem::{AttentionShape, Broadcast, CausalAlignment, Layout, Layouts};
use node::{Sizes, fault};
use positions::{Bounds, Positions};

/// What to compute for an [`OnnxAttention`] node, and how to make its operands.
///
/// ```
/// use wgpu_attention::CausalAlignment;
/// use wgpu_attention::onnx::{OnnxAttention, OnnxPlan};
///
/// // Four new tokens of two sequences behind a past of twelve; nine query heads share three key/value heads of 8 channels.
/// let plan = OnnxPlan::new(&OnnxAttention {
///     is_causal: true,
///     q_num_heads: Some(9),
///     kv_num_heads: Some(3),
///     past_key: Some(&[2, 3, 12, 8]),
///     past_value: Some(&[2, 3, 12, 8]),
///     ..OnnxAttention::new(23, &[2, 4, 72], &[2, 4, 24], &[2, 4, 24])
/// })?;
/// assert_eq!(plan.shape().seqlen_k, 16);
/// assert_eq!(plan.causal(), Some(CausalAlignment::LowerRight));
/// assert_eq!(plan.y_shape(), [2, 4, 72]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxPlan {
    sizes: Sizes,
    scale: Option<f32>,
    softcap: Option<f32>,
    positions: Positions,
    /// The mask as it is given, with four axes.
    mask: Option<(OnnxMaskKind, [u32; 4])>,
    /// Whether a given mask's last axis of 1 stands for all keys.
    mask_key_broadcasts: bool,
    /// Whether the present is wanted.
    present: bool,
    output: Option<OnnxScores>,
}

/// What `qk_matmul_output` holds, `[batch, q_num_heads, q_sequence_length, total_sequence_length]`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OnnxScores {
    /// Mode 0: `scale * query · key`. Nothing is closed yet.
    Scaled,
    /// Mode 1: after softcap. Nothing is closed yet.
    Capped,
    /// Mode 2: after softcap and bias; negative infinity where a position is closed.
    Biased,
    /// Mode 3: the probabilities.
    Weights,
}

impl OnnxPlan {
    /// Checks a node. Errors name the attribute, input or output, what came and what was expected.
    pub fn new(node: &OnnxAttention<'_>) -> Result<Self> {
        node.check()?;
        let sizes = node.sizes()?;
        let bounds = Bounds::new(node.is_causal, node.left_window_size, node.right_window_size);
        let positions = match node.nonpad_kv_seqlen {
            Some(_) => Positions::per_sequence(bounds, sizes.shape),
            None => Positions::fixed(bounds, sizes.past.unwrap_or(0), sizes.shape),
        };
        // Since opset 24 a last axis that is shorter than the keys is extended, and 1 is shorter.
        let mask_key_broadcasts = node.opset < 24;
        let mask = match node.attn_mask {
            None => None,
            Some(mask) => Some((mask.kind, right_aligned(mask.shape, sizes.shape)?)),
        };
        let output = node.qk_matmul_output.then_some(match node.qk_matmul_output_mode {
            0 => OnnxScores::Scaled,
            1 => OnnxScores::Capped,
            2 => OnnxScores::Biased,
            _ => OnnxScores::Weights,
        });
        Ok(Self {
            sizes,
            scale: node.scale,
            softcap: (node.softcap != 0.0).then_some(node.softcap),
            positions,
            mask,
            mask_key_broadcasts,
            present: node.present,
            output,
        })
    }

    /// All sizes; `seqlen_k` is the total sequence length, the past included.
    pub fn shape(&self) -> AttentionShape {
        self.sizes.shape
    }

    /// Factor of `query · key`; `None` is `1 / sqrt(head_dim)`.
    pub fn scale(&self) -> Option<f32> {
        self.scale
    }

    /// The softcap, if there is one.
    pub fn softcap(&self) -> Option<f32> {
        self.softcap
    }

    /// The causal rule, if there is one. It may also be in [`window`](Self::window), and it is left out where it closes
    /// nothing, as for a single query.
    pub fn causal(&self) -> Option<CausalAlignment> {
        self.positions.causal
    }

    /// The window, if there is one.
    pub fn window(&self) -> Option<Window> {
        self.positions.window
    }

    /// Which keys belong to a sequence.
    pub fn lengths(&self) -> Lengths {
        self.positions.lengths
    }

    /// The shape of the boolean mask that [`mask_data`](Self::mask_data) makes, if the call takes one.
    pub fn mask(&self) -> Option<Broadcast> {
        let given = self.given_mask(OnnxMaskKind::Boolean);
        match (given, self.positions.masked) {
            (None, None) => None,
            (given, masked) => {
                let mut shape = self.extended(given.unwrap_or([1; 4]));
                if masked.is_some() {
                    shape[2] = self.sizes.shape.seqlen_q;
                    shape[3] = self.sizes.shape.seqlen_k;
                }
                Some(Broadcast::new(shape))
            }
        }
    }

    /// The shape of the bias that [`bias_data`](Self::bias_data) makes, if the call takes one.
    pub fn bias(&self) -> Option<Broadcast> {
        let given = self.given_mask(OnnxMaskKind::Float)?;
        Some(Broadcast::new(self.extended(given)))
    }

    /// What `qk_matmul_output` holds, if it is connected.
    pub fn scores(&self) -> Option<OnnxScores> {
        self.output
    }

    /// How the operands lie: inputs of three axes are `[batch, seqlen, heads * channels]`; present key and value always have
    /// four.
    pub fn layouts(&self) -> Layouts {
        let packed = if self.sizes.packed { Layout::Bshd } else { Layout::Bhsd };
        let cached = if self.rearranges() { Layout::Bhsd } else { packed };
        Layouts {
            query: packed,
            key: cached,
            value: cached,
            out: packed,
        }
    }

    /// The shape of `Y`.
    pub fn y_shape(&self) -> Vec<u32> {
        let AttentionShape {
            batch,
            heads,
            seqlen_q,
            head_dim_v,
            ..
        } = self.sizes.shape;
        if self.sizes.packed {
            vec![batch, seqlen_q, heads * head_dim_v]
        } else {
            vec![batch, heads, seqlen_q, head_dim_v]
        }
    }

    /// The shape of `present_key`.
    pub fn present_key_shape(&self) -> [u32; 4] {
        let shape = self.sizes.shape;
        [shape.batch, shape.kv_heads, shape.seqlen_k, shape.head_dim]
    }

    /// The shape of `present_value`.
    pub fn present_value_shape(&self) -> [u32; 4] {
        let shape = self.sizes.shape;
        [shape.batch, shape.kv_heads, shape.seqlen_k, shape.head_dim_v]
    }

    /// The shape of `qk_matmul_output`.
    pub fn scores_shape(&self) -> [u32; 4] {
        let shape = self.sizes.shape;
        [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k]
    }

    /// Whether key and value become present ones.
    fn rearranges(&self) -> bool {
        self.sizes.past.is_some() || (self.present && self.sizes.packed)
    }

    fn given_mask(&self, kind: OnnxMaskKind) -> Option<[u32; 4]> {
        self.mask.filter(|(given, _)| *given == kind).map(|(_, shape)| shape)
    }

    /// A given mask's shape with all keys, or one for all of them.
    fn extended(&self, shape: [u32; 4]) -> [u32; 4] {
        let [batch, heads, rows, keys] = shape;
        let keys = match keys {
            1 if self.mask_key_broadcasts => 1,
            _ => self.sizes.shape.seqlen_k,
        };
        [batch, heads, rows, keys]
    }
}

/// A mask's shape with four axes.
fn right_aligned(given: &[u32], shape: AttentionShape) -> Result<[u32; 4]> {
    let full = [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k];
    let mut axes = [1; 4];
    let fits = (1..=4).contains(&given.len()) && {
        axes[4 - given.len()..].copy_from_slice(given);
        let broadcasts = (0..3).all(|axis| axes[axis] == 1 || axes[axis] == full[axis]);
        broadcasts && (1..=full[3]).contains(&axes[3])
    };
    match fits {
        true => Ok(axes),
        false => {
            let expected = format!("one to four axes that broadcast to {full:?}, the last one also shorter");
            Err(fault("attn_mask", format!("of shape {given:?}"), expected))
        }
    }
}
