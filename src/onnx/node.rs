//! An `Attention` node as a graph has it, and the checks of its shapes.

use crate::error::{Error, Result};
use crate::problem::AttentionShape;

/// An `Attention` node of ONNX: attributes, shapes of the inputs that are connected, and which outputs are.
///
/// Nothing is checked until it becomes an [`OnnxPlan`](super::OnnxPlan).
#[derive(Clone, Debug, PartialEq)]
pub struct OnnxAttention<'a> {
    /// The opset that the model imports, 23 or later: the operator has versions 23, 24 and 25.
    pub opset: u32,
    /// `is_causal`.
    pub is_causal: bool,
    /// `left_window_size` (opset 25): keys before a query's own position that it sees, -1 all.
    pub left_window_size: i64,
    /// `right_window_size` (opset 25): keys after a query's own position that it sees, -1 all.
    pub right_window_size: i64,
    /// `scale`; `None` is `1 / sqrt(head_size)`.
    pub scale: Option<f32>,
    /// `softcap`; 0 is none.
    pub softcap: f32,
    /// `softmax_precision`, an element type of ONNX (1 float, 10 float16, 11 double, 16 bfloat16). The softmax is computed
    /// in `f32` whatever it says.
    pub softmax_precision: Option<i64>,
    /// `qk_matmul_output_mode`, 0 to 3: what `qk_matmul_output` holds.
    pub qk_matmul_output_mode: i64,
    /// `q_num_heads`, which inputs of three axes need.
    pub q_num_heads: Option<u32>,
    /// `kv_num_heads`, which inputs of three axes need.
    pub kv_num_heads: Option<u32>,
    /// Shape of `Q`: `[batch, q_num_heads, q_sequence_length, head_size]` or
    /// `[batch, q_sequence_length, q_num_heads * head_size]`.
    pub query: &'a [u32],
    /// Shape of `K`: `[batch, kv_num_heads, kv_sequence_length, head_size]` or
    /// `[batch, kv_sequence_length, kv_num_heads * head_size]`.
    pub key: &'a [u32],
    /// Shape of `V`: `[batch, kv_num_heads, kv_sequence_length, v_head_size]` or
    /// `[batch, kv_sequence_length, kv_num_heads * v_head_size]`.
    pub value: &'a [u32],
    /// `attn_mask`, of one to four axes aligned from the right with `[batch, q_num_heads, q_sequence_length,
    /// total_sequence_length]`.
    pub attn_mask: Option<OnnxMask<'a>>,
    /// Shape of `past_key`: `[batch, kv_num_heads, past_sequence_length, head_size]`.
    pub past_key: Option<&'a [u32]>,
    /// Shape of `past_value`: `[batch, kv_num_heads, past_sequence_length, v_head_size]`.
    pub past_value: Option<&'a [u32]>,
    /// Shape of `nonpad_kv_seqlen` (opset 24): `[batch]`.
    pub nonpad_kv_seqlen: Option<&'a [u32]>,
    /// Whether `present_key` and `present_value` are connected.
    pub present: bool,
    /// Whether `qk_matmul_output` is connected.
    pub qk_matmul_output: bool,
}

impl<'a> OnnxAttention<'a> {
    /// A node with all attributes at their defaults and no more inputs and outputs than it must have.
    pub const fn new(opset: u32, query: &'a [u32], key: &'a [u32], value: &'a [u32]) -> Self {
        Self {
            opset,
            is_causal: false,
            left_window_size: -1,
            right_window_size: -1,
            scale: None,
            softcap: 0.0,
            softmax_precision: None,
            qk_matmul_output_mode: 0,
            q_num_heads: None,
            kv_num_heads: None,
            query,
            key,
            value,
            attn_mask: None,
            past_key: None,
            past_value: None,
            nonpad_kv_seqlen: None,
            present: false,
            qk_matmul_output: false,
        }
    }
}

/// An `attn_mask` input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OnnxMask<'a> {
    /// What an element is.
    pub kind: OnnxMaskKind,
    /// Its shape.
    pub shape: &'a [u32],
}

/// What the elements of an `attn_mask` are.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OnnxMaskKind {
    /// True leaves open.
    Boolean,
    /// Added to the scores.
    Float,
}

/// The sizes of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    /// With the past in `seqlen_k`.
    pub(super) shape: AttentionShape,
    /// Whether inputs and output are `[batch, sequence, heads * size]`.
    pub(super) packed: bool,
    /// Length of the past, if there is one.
    pub(super) past: Option<u32>,
}

impl OnnxAttention<'_> {
    /// Checks which attributes, inputs and outputs go together.
    pub(super) fn check(&self) -> Result<()> {
        if self.opset < 23 {
            return Err(fault("opset", self.opset, "23 or later"));
        }
        if !(0..=3).contains(&self.qk_matmul_output_mode) {
            return Err(fault("qk_matmul_output_mode", self.qk_matmul_output_mode, "0 to 3"));
        }
        if self
            .softmax_precision
            .is_some_and(|type_| ![1, 10, 11, 16].contains(&type_))
        {
            let actual = self.softmax_precision.unwrap_or_default();
            return Err(fault("softmax_precision", actual, "1, 10, 11 or 16"));
        }
        // The operator multiplies query and key by the square root of the scale each.
        if let Some(scale) = self.scale.filter(|scale| !(0.0..f32::INFINITY).contains(scale)) {
            return Err(fault("scale", scale, "a finite number, 0 or more"));
        }
        if !(0.0..f32::INFINITY).contains(&self.softcap) {
            return Err(fault("softcap", self.softcap, "a finite number, 0 or more"));
        }
        for (name, size) in [
            ("left_window_size", self.left_window_size),
            ("right_window_size", self.right_window_size),
        ] {
            if size < -1 {
                return Err(fault(name, size, "-1 or more"));
            }
            if size >= 0 && self.opset < 25 {
                return Err(fault(name, size, "none before opset 25"));
            }
        }
        if self.past_key.is_some() != self.past_value.is_some() {
            return Err(fault("past_key and past_value", "one of them", "both or neither"));
        }
        if self.nonpad_kv_seqlen.is_some() {
            if self.opset < 24 {
                return Err(fault("nonpad_kv_seqlen", "an input", "none before opset 24"));
            }
            if self.past_key.is_some() {
                return Err(fault("nonpad_kv_seqlen", "an input beside past_key", "one of the two"));
            }
            if self.present && self.opset >= 25 {
                let expected = "one of the two since opset 25";
                return Err(fault("nonpad_kv_seqlen", "an input beside present_key", expected));
            }
        }
        Ok(())
    }

    /// Checks the shapes and takes the sizes from them.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let packed = self.query.len() == 3;
        let [batch, heads, seqlen_q, head_dim] = self.axes("Q", self.query, "q_num_heads", self.q_num_heads)?;
        let key = self.axes("K", self.key, "kv_num_heads", self.kv_num_heads)?;
        let [_, kv_heads, new_rows, _] = key;
        expect_shape("K", key, [batch, kv_heads, new_rows, head_dim])?;
        let value = self.axes("V", self.value, "kv_num_heads", self.kv_num_heads)?;
        let head_dim_v = value[3];
        expect_shape("V", value, [batch, kv_heads, new_rows, head_dim_v])?;
        let mut past = None;
        if let (Some(past_key), Some(past_value)) = (self.past_key, self.past_value) {
            let past_key = four("past_key", past_key)?;
            let rows = past_key[2];
            expect_shape("past_key", past_key, [batch, kv_heads, rows, head_dim])?;
            let past_value = four("past_value", past_value)?;
            expect_shape("past_value", past_value, [batch, kv_heads, rows, head_dim_v])?;
            past = Some(rows);
        }
        if let Some(shape) = self.nonpad_kv_seqlen
            && shape != [batch]
        {
            return Err(fault("nonpad_kv_seqlen", format!("{shape:?}"), format!("[{batch}]")));
        }
        let seqlen_k = past.unwrap_or(0).checked_add(new_rows);
        let seqlen_k = seqlen_k.ok_or_else(|| fault("past_key", format!("{past:?} rows"), "32-bit sizes"))?;
        let shape = AttentionShape {
            batch,
            heads,
            kv_heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v,
        };
        shape.validate()?;
        if heads.checked_mul(head_dim_v).is_none() {
            let expected = "a size that times q_num_heads is one of 32 bits";
            return Err(fault("V", format!("{:?}", self.value), expected));
        }
        Ok(Sizes { shape, packed, past })
    }

    /// The four axes of `Q`, `K` or `V`, which have three or four, all alike.
    fn axes(&self, name: &'static str, shape: &[u32], attribute: &'static str, heads: Option<u32>) -> Result<[u32; 4]> {
        if self.query.len() != 3 {
            let axes = four(name, shape)?;
            if let Some(heads) = heads {
                if self.opset >= 25 {
                    return Err(fault(attribute, heads, "none with inputs of four axes since opset 25"));
                }
                if heads != axes[1] {
                    return Err(fault(attribute, heads, format!("{}, as in {name}", axes[1])));
                }
            }
            return Ok(axes);
        }
        let [batch, rows, channels] =
            <[u32; 3]>::try_from(shape).map_err(|_| fault(name, format!("{shape:?}"), "three axes, as many as Q"))?;
        let heads = heads.ok_or_else(|| fault(attribute, "nothing", "a number: the inputs have three axes"))?;
        let size = channels.checked_div(heads);
        let size = size.filter(|size| size * heads == channels).ok_or_else(|| {
            let expected = format!("a last axis that is a multiple of {attribute}, which is {heads}");
            fault(name, format!("{shape:?}"), expected)
        })?;
        Ok([batch, heads, rows, size])
    }
}

fn four(name: &'static str, shape: &[u32]) -> Result<[u32; 4]> {
    <[u32; 4]>::try_from(shape).map_err(|_| fault(name, format!("{shape:?}"), "four axes"))
}

fn expect_shape(name: &'static str, actual: [u32; 4], expected: [u32; 4]) -> Result<()> {
    if actual == expected {
        return Ok(());
    }
    let axes = "[batch, heads, sequence, size]";
    Err(fault(name, format!("{axes} = {actual:?}"), format!("{expected:?}")))
}

pub(super) fn fault(name: &'static str, actual: impl ToString, expected: impl ToString) -> Error {
    Error::OnnxNode {
        name,
        actual: actual.to_string(),
        expected: expected.to_string(),
    }
}
