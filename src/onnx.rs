//! ONNX's `Attention` (opsets 23 to 25) in the terms of this crate: attributes and shapes in, a descriptor out.
//!
//! Nothing here knows of a GPU. `docs/ONNX.md` tells what the operator means, opset by opset, and how its neighbours
//! (`RotaryEmbedding`, `TensorScatter`, `FlexAttention`) map.

mod data;
mod node;
mod positions;
#[cfg(test)]
mod tests;

pub use node::{OnnxAttention, OnnxMask, OnnxMaskKind};

use crate::error::Result;
use crate::problem::{
    AttentionDescriptor, AttentionShape, Broadcast, KeyPadding, Layout, Layouts, Outputs, ScoreStage,
};
use node::{Sizes, fault};
use positions::{Bounds, Lengths, Masked, Positions};

/// What to compute for an [`OnnxAttention`] node, and how to make its operands.
///
/// ```
/// use wgpu_attention::onnx::{OnnxAttention, OnnxPlan};
/// use wgpu_attention::{CausalAlignment, HostInputs};
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
/// let descriptor = plan.descriptor();
/// assert_eq!(descriptor.shape.seqlen_k, 16);
/// assert_eq!(descriptor.causal, Some(CausalAlignment::LowerRight));
/// assert_eq!(plan.y_shape(), [2, 4, 72]);
///
/// // The node's inputs, and one call.
/// let (q, k, v) = (vec![0.1; 2 * 4 * 72], vec![0.2; 2 * 4 * 24], vec![0.3; 2 * 4 * 24]);
/// let (past_key, past_value) = (vec![0.4; 2 * 3 * 12 * 8], vec![0.3; 2 * 3 * 12 * 8]);
/// let (key, value) = (plan.key(Some(&past_key), &k)?, plan.value(Some(&past_value), &v)?);
/// let output = wgpu_attention::Engine::new()?.attention(&descriptor, &HostInputs::new(&q, &*key, &*value))?;
/// assert!((output.out[0] - 0.3).abs() < 1e-6); // Y
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxPlan {
    descriptor: AttentionDescriptor<'static>,
    sizes: Sizes,
    lengths: Lengths,
    /// What the boolean mask closes besides the given one.
    masked: Option<Masked>,
    /// The mask as it is given, with four axes.
    mask: Option<(OnnxMaskKind, [u32; 4])>,
    /// Whether a given mask's last axis of 1 stands for all keys.
    mask_key_broadcasts: bool,
    /// Whether the present is wanted.
    present: bool,
}

impl OnnxPlan {
    /// Checks a node. Errors name the attribute, input or output, what came and what was expected.
    pub fn new(node: &OnnxAttention<'_>) -> Result<Self> {
        node.check()?;
        let sizes = node.sizes()?;
        let shape = sizes.shape;
        let outputs = outputs(node);
        // Scores that masks do not reach are handed out for all keys, and none are behind a sequence's end.
        let may_shorten = !matches!(outputs.scores, Some(ScoreStage::Scaled | ScoreStage::Capped));
        let bounds = Bounds::new(node.is_causal, node.left_window_size, node.right_window_size);
        let positions = match node.nonpad_kv_seqlen {
            Some(_) => Positions::per_sequence(bounds, shape, may_shorten),
            None => Positions::fixed(bounds, sizes.past.unwrap_or(0), shape, may_shorten),
        };
        let mask = match node.attn_mask {
            None => None,
            Some(mask) => Some((mask.kind, right_aligned(mask.shape, shape)?)),
        };
        let mut plan = Self {
            descriptor: AttentionDescriptor {
                shape,
                scale: node.scale,
                softcap: (node.softcap != 0.0).then_some(node.softcap),
                causal: positions.causal,
                window: positions.window,
                key_padding: (positions.lengths != Lengths::All).then_some(KeyPadding::Lengths),
                outputs,
                ..Default::default()
            },
            sizes,
            lengths: positions.lengths,
            masked: positions.masked,
            mask,
            // Since opset 24 a last axis that is shorter than the keys is extended, and 1 is shorter.
            mask_key_broadcasts: node.opset < 24,
            present: node.present,
        };
        plan.descriptor.mask = plan.boolean_mask();
        plan.descriptor.bias = plan.given_mask(OnnxMaskKind::Float).map(|given| plan.extended(given));
        plan.descriptor.layouts = plan.layouts();
        Ok(plan)
    }

    /// The attention call. Storage types, label and algorithm are the caller's to set.
    ///
    /// `Y` is its `out`; `qk_matmul_output` its `scores` or, in mode 3, its `weights`. Its `mask`, `bias` and lengths are made
    /// by [`mask_data`](Self::mask_data), [`bias_data`](Self::bias_data) and [`key_lengths`](Self::key_lengths), key and
    /// value by [`key`](Self::key) and [`value`](Self::value). The causal rule may be there as a window, and it is left out
    /// where it closes nothing.
    pub fn descriptor(&self) -> AttentionDescriptor<'static> {
        self.descriptor.clone()
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
    pub fn qk_matmul_output_shape(&self) -> [u32; 4] {
        let shape = self.sizes.shape;
        [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k]
    }

    /// The boolean mask that the call takes: a given one, extended, and what is left to it.
    fn boolean_mask(&self) -> Option<Broadcast> {
        let given = self.given_mask(OnnxMaskKind::Boolean).map(|given| self.extended(given));
        let Some(masked) = self.masked else { return given };
        let shape = self.sizes.shape;
        let [batch, heads, ..] = given.map_or([1; 4], |given| given.shape);
        let batch = match masked {
            Masked::Outside(_) => batch,
            Masked::OutsideByLength(_) => shape.batch,
        };
        Some(Broadcast::new([batch, heads, shape.seqlen_q, shape.seqlen_k]))
    }

    fn given_mask(&self, kind: OnnxMaskKind) -> Option<[u32; 4]> {
        self.mask.filter(|(given, _)| *given == kind).map(|(_, shape)| shape)
    }

    /// A given mask with all keys, or one for all of them.
    fn extended(&self, [batch, heads, rows, keys]: [u32; 4]) -> Broadcast {
        let keys = match keys {
            1 if self.mask_key_broadcasts => 1,
            _ => self.sizes.shape.seqlen_k,
        };
        Broadcast::new([batch, heads, rows, keys])
    }

    /// Inputs of three axes are `[batch, seqlen, heads * channels]`; present key and value always have four axes.
    fn layouts(&self) -> Layouts {
        let packed = if self.sizes.packed { Layout::Bshd } else { Layout::Bhsd };
        let cached = if self.rearranges() { Layout::Bhsd } else { packed };
        Layouts {
            query: packed,
            key: cached,
            value: cached,
            out: packed,
        }
    }

    /// Whether key and value become present ones.
    fn rearranges(&self) -> bool {
        self.sizes.past.is_some() || (self.present && self.sizes.packed)
    }
}

/// What the node wants besides `Y` and the present.
fn outputs(node: &OnnxAttention<'_>) -> Outputs {
    let connected = |mode: i64| node.qk_matmul_output && node.qk_matmul_output_mode == mode;
    let stages = [ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Biased];
    Outputs {
        scores: (0..)
            .zip(stages)
            .find_map(|(mode, stage)| connected(mode).then_some(stage)),
        weights: connected(3),
        ..Default::default()
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
