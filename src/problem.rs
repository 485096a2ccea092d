//! What is to be computed: [`AttentionDescriptor`] as a caller writes it, [`Problem`] once it is known to make sense.
//!
//! Nothing here knows of a GPU.

pub(crate) mod descriptor;
pub(crate) mod dtype;
pub(crate) mod inputs;
pub(crate) mod layout;
pub(crate) mod mask;
pub(crate) mod mods;
pub(crate) mod score;
pub(crate) mod shape;
mod validate;

pub use descriptor::{Algorithm, AttentionDescriptor, AttentionRope, DTypes, Layouts, Outputs};
pub use dtype::DType;
pub use inputs::{HostInputs, HostKeyPadding, HostTensor};
pub use layout::{Extent, Layout, Packed, Strides};
pub use mask::{BlockMaskShape, BlockState, Broadcast, CausalAlignment, KeyPadding, Window};
pub use mods::{Capture, CaptureElement, Mods};
pub(crate) use score::dropout_threshold;
pub use score::{Dropout, DropoutKeep, ScoreStage, philox_keeps};
pub use shape::AttentionShape;
pub(crate) use validate::{Linear, MAX_ROWS};

use std::sync::Arc;

use crate::error::{Operand, Result};
use crate::rope::{RopeFrequencies, RopePairing, RopePositions};
use mods::OwnedMods;

/// A validated request: every size positive, every operand's strides resolved and within 32-bit indexes.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    label: Option<String>,
    shape: AttentionShape,
    dtypes: DTypes,
    scale: f32,
    softcap: Option<f32>,
    causal: Option<CausalAlignment>,
    window: Option<Window>,
    key_padding: Option<KeyPadding>,
    block_mask: Option<BlockMaskShape>,
    mods: OwnedMods,
    rope: Option<OwnedRope>,
    dropout: Option<Dropout>,
    appended_keys: u32,
    packed: Option<Packed>,
    outputs: Outputs,
    algorithm: Algorithm,
    /// Every operand that a call takes or gives, with where its elements lie.
    operands: Vec<(Operand, Extent)>,
}

/// An [`AttentionRope`] that a problem owns. Cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OwnedRope {
    pub(crate) frequencies: Arc<RopeFrequencies>,
    pub(crate) pairing: RopePairing,
    pub(crate) query: Option<RopePositions>,
    pub(crate) key: Option<RopePositions>,
}

impl Problem {
    /// Checks a descriptor. Errors name the operand, what came and what was expected.
    pub fn new(descriptor: &AttentionDescriptor<'_>) -> Result<Self> {
        validate::problem(descriptor)
    }

    /// Name for debugging.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// All sizes.
    pub fn shape(&self) -> AttentionShape {
        self.shape
    }

    /// Storage types.
    pub fn dtypes(&self) -> DTypes {
        self.dtypes
    }

    /// Factor of `query · key`, the default filled in.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The softcap, if there is a finite one.
    pub fn softcap(&self) -> Option<f32> {
        self.softcap
    }

    /// Where the causal diagonal lies, if there is one.
    pub fn causal(&self) -> Option<CausalAlignment> {
        self.causal
    }

    /// The sliding window, if there is one with a bound.
    pub fn window(&self) -> Option<Window> {
        self.window
    }

    /// What is added to a query's index to find its own position among keys, when all sequences are of full length.
    pub fn offset(&self, alignment: CausalAlignment) -> i64 {
        match alignment {
            CausalAlignment::UpperLeft => 0,
            CausalAlignment::LowerRight => i64::from(self.masked_keys()) - i64::from(self.shape.seqlen_q),
        }
    }

    /// With a causal rule: key `j` is open for query `i` when `j <= i + causal_offset`.
    pub fn causal_offset(&self) -> Option<i64> {
        self.causal.map(|alignment| self.offset(alignment))
    }

    /// What the key padding operand holds, if there is one.
    pub fn key_padding(&self) -> Option<KeyPadding> {
        self.key_padding
    }

    /// The shape of the block mask, if there is one.
    pub fn block_mask(&self) -> Option<BlockMaskShape> {
        self.block_mask
    }

    /// The caller's own functions.
    pub(crate) fn mods(&self) -> &OwnedMods {
        &self.mods
    }

    /// The rotary embedding of query and key, if there is one.
    pub(crate) fn rope(&self) -> Option<&OwnedRope> {
        self.rope.as_ref()
    }

    /// The dropout, if any weight is dropped.
    pub fn dropout(&self) -> Option<Dropout> {
        self.dropout
    }

    /// Number of keys at the end that are open to every query.
    pub fn appended_keys(&self) -> u32 {
        self.appended_keys
    }

    /// Number of keys that causal rule, mask, bias and padding speak of: `seqlen_k - appended_keys`.
    pub fn masked_keys(&self) -> u32 {
        self.shape.seqlen_k - self.appended_keys
    }

    /// How sequences are packed, if they are.
    pub fn packed(&self) -> Option<Packed> {
        self.packed
    }

    /// Whether sequences may be shorter than the shape says.
    pub fn has_lengths(&self) -> bool {
        self.packed.is_some() || self.key_padding == Some(KeyPadding::Lengths)
    }

    /// Whether some position of a sequence may be closed.
    pub fn may_close(&self) -> bool {
        self.causal.is_some() || self.window.is_some() || self.may_close_by_score()
    }

    /// Whether causal rule and window are all that may stand between a scaled product and the score that softmax sees.
    pub(crate) fn has_bounds_alone(&self) -> bool {
        !self.may_close_by_score() && self.softcap.is_none() && !self.has(Operand::AlibiSlopes)
    }

    /// Whether something besides causal rule and window may close a position: a mask, a bias, a function.
    fn may_close_by_score(&self) -> bool {
        let padded = matches!(self.key_padding, Some(KeyPadding::Additive | KeyPadding::Boolean));
        let modified = self.mods.score_mod.is_some() || self.mods.mask_mod.is_some();
        self.block_mask.is_some() || self.has(Operand::Mask) || self.has(Operand::Bias) || padded || modified
    }

    /// What is wanted besides `out`.
    pub fn outputs(&self) -> Outputs {
        self.outputs
    }

    /// The query rows whose weights and scores are handed out.
    pub fn rows(&self) -> std::ops::Range<u32> {
        let [begin, end] = self.outputs.rows.unwrap_or([0, self.shape.seqlen_q]);
        begin..end
    }

    /// Which way to compute was asked for.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Every operand that a call takes or gives.
    pub fn operands(&self) -> impl Iterator<Item = Operand> {
        self.operands.iter().map(|(operand, _)| *operand)
    }

    /// Whether a call takes or gives this operand.
    pub fn has(&self, operand: Operand) -> bool {
        self.extent(operand).is_some()
    }

    /// An operand's sizes and strides; `None` when the problem does not have it.
    pub fn extent(&self, operand: Operand) -> Option<Extent> {
        let found = self.operands.iter().find(|(present, _)| *present == operand)?;
        Some(found.1)
    }

    /// Where the lse of each row lies, wanted or not: `[batch, heads, seqlen_q]`, or `[heads, tokens_q]` of packed sequences.
    pub(crate) fn lse_extent(&self) -> Result<Extent> {
        let AttentionShape {
            batch, heads, seqlen_q, ..
        } = self.shape;
        let [sequences, rows] = match self.packed {
            None => [batch, seqlen_q],
            Some(packed) => [1, packed.tokens_q],
        };
        Extent::contiguous(Operand::Lse, [sequences, heads, 1, rows])
    }

    /// `out` as the workspace holds it between dispatches: contiguous, in `f32`, rows a multiple of four long.
    pub(crate) fn partial_extent(&self) -> Result<Extent> {
        let lse = self.lse_extent()?;
        let channels = self.shape.head_dim_v.checked_next_multiple_of(4).unwrap_or(u32::MAX);
        Extent::contiguous(Operand::Out, [lse.sizes[0], lse.sizes[1], lse.sizes[3], channels])
    }

    /// Whether all rows' weights are handed out.
    pub(crate) fn hands_out_all_weights(&self) -> bool {
        self.outputs.weights && self.rows() == (0..self.shape.seqlen_q)
    }

    /// The storage type of a floating-point operand.
    pub fn dtype(&self, operand: Operand) -> DType {
        match operand {
            Operand::Query => self.dtypes.query,
            Operand::Key => self.dtypes.key,
            Operand::Value => self.dtypes.value,
            Operand::Out => self.dtypes.out,
            Operand::Bias => self.dtypes.bias,
            _ => DType::F32,
        }
    }

    /// Bytes of one element of an operand.
    pub fn element_bytes(&self, operand: Operand) -> u64 {
        match operand {
            Operand::Mask | Operand::DropoutMask => 1,
            Operand::KeyPadding if self.key_padding == Some(KeyPadding::Boolean) => 1,
            _ => self.dtype(operand).bytes(),
        }
    }

    /// Bytes an operand spans, up to the next multiple of 4 that a GPU binding needs.
    pub fn span_bytes(&self, operand: Operand) -> Option<u64> {
        let extent = self.extent(operand)?;
        Some((extent.span() * self.element_bytes(operand)).next_multiple_of(4))
    }

    fn set(&mut self, operand: Operand, extent: Extent) {
        self.operands.retain(|(present, _)| *present != operand);
        self.operands.push((operand, extent));
    }
}
