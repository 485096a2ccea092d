//! Which positions are open, and what is added to their scores.

use crate::error::{Error, Operand, Result};
use crate::problem::layout::Extent;

/// Where the causal diagonal lies. The two differ as soon as `seqlen_q != seqlen_k`.
///
/// ```text
/// seqlen_q = 2, seqlen_k = 5          seqlen_q = 5, seqlen_k = 2
/// UpperLeft     LowerRight            UpperLeft   LowerRight
/// 1 0 0 0 0     1 1 1 1 0             1 0         0 0
/// 1 1 0 0 0     1 1 1 1 1             1 1         0 0
///                                     1 1         0 0
///                                     1 1         1 0
///                                     1 1         1 1
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CausalAlignment {
    /// Key `j` is open for query `i` when `j <= i`: PyTorch's `is_causal`.
    UpperLeft,
    /// Key `j` is open for query `i` when `j <= i + seqlen_k - seqlen_q`: FlashAttention's, and what decoding with a
    /// cache needs. Rows that see no key give zeros.
    LowerRight,
}

/// The shape of a mask or a bias that is broadcast over `[batch, heads, seqlen_q, seqlen_k]`.
///
/// ```
/// use wgpu_attention::Broadcast;
///
/// let per_key = Broadcast::right_aligned(&[14])?; // one value a key, for all batches, heads and rows
/// assert_eq!(per_key.shape, [1, 1, 1, 14]);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Broadcast {
    /// Sizes of `[batch, heads, seqlen_q, seqlen_k]`, each 1 or the problem's own.
    pub shape: [u32; 4],
    /// Strides of the same axes in elements; `None` is contiguous. Strides of axes of size 1 do not matter.
    pub strides: Option<[u32; 4]>,
}

impl Broadcast {
    /// A contiguous operand of this shape.
    pub const fn new(shape: [u32; 4]) -> Self {
        Self { shape, strides: None }
    }

    /// A contiguous operand of rank 0 to 4, its axes aligned from the right as NumPy and PyTorch do.
    pub fn right_aligned(shape: &[u32]) -> Result<Self> {
        if shape.len() > 4 {
            return Err(Error::Shape {
                operand: Operand::Mask,
                actual: shape.to_vec(),
                expected: "at most 4 axes".into(),
            });
        }
        let mut full = [1; 4];
        full[4 - shape.len()..].copy_from_slice(shape);
        Ok(Self::new(full))
    }

    pub(crate) fn resolve(&self, operand: Operand, full: [u32; 4]) -> Result<Extent> {
        let fits = (0..4).all(|axis| self.shape[axis] == 1 || self.shape[axis] == full[axis]);
        if !fits {
            return Err(Error::Shape {
                operand,
                actual: self.shape.to_vec(),
                expected: format!("1 or the problem's size on each axis of {full:?}"),
            });
        }
        match self.strides {
            None => Extent::contiguous(operand, self.shape),
            Some(strides) => Extent::strided(operand, self.shape, strides.map(u64::from)),
        }
    }
}

/// A sliding window: key `j` is open for query `i` when `p - left <= j <= p + right`, both ends counted, where `p` is `i`
/// (`UpperLeft`) or `i + seqlen_k - seqlen_q` (`LowerRight`). `None` is no bound. It intersects with the causal rule.
///
/// `left: Some(1), right: Some(0)` of 5 keys, for 3 queries at `LowerRight` (1 is open):
///
/// ```text
/// 0 1 1 0 0
/// 0 0 1 1 0
/// 0 0 0 1 1
/// ```
///
/// The layer of a model with windows of 8 tokens and a sink for each head:
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Engine, HostInputs, Window};
///
/// let descriptor = AttentionDescriptor {
///     shape: AttentionShape::new(1, 3, 40, 40, 16),
///     window: Some(Window { left: Some(7), right: Some(0), alignment: CausalAlignment::LowerRight }),
///     sinks: true,
///     ..Default::default()
/// };
/// let (x, sinks) = (vec![0.5; 3 * 40 * 16], [0.5, -1.0, 2.0]);
/// let inputs = HostInputs { sinks: Some(&sinks), ..HostInputs::new(&x, &x, &x) };
/// let output = Engine::new()?.attention(&descriptor, &inputs)?;
/// assert!(output.out[0] < 0.5); // the sink takes its share
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Window {
    /// How many keys before its own position a query sees.
    pub left: Option<u32>,
    /// How many keys after it.
    pub right: Option<u32>,
    /// What a query's own position is.
    pub alignment: CausalAlignment,
}

/// The shape of a block mask: the operand `block_mask` holds one `u32` for each block of `block_q` rows and `block_kv` keys,
/// `[batch, heads, ceil(seqlen_q / block_q), ceil(seqlen_k / block_kv)]`, contiguous: a [`BlockState`].
///
/// Tiles whose blocks are all closed are never visited. The blocks of the last row and column may reach past the ends.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct BlockMaskShape {
    /// The problem's batch, or 1 for all alike.
    pub batch: u32,
    /// The problem's heads, or 1 for all alike.
    pub heads: u32,
    /// Query rows of a block.
    pub block_q: u32,
    /// Keys of a block.
    pub block_kv: u32,
}

/// What a block mask says of a block.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u32)]
pub enum BlockState {
    /// Every position is closed.
    Closed = 0,
    /// Some positions may be closed: `mask_mod` is asked for each (without one, all are open).
    Partial = 1,
    /// Every position is open: `mask_mod` is not asked.
    Open = 2,
}

/// What the `[batch, seqlen_k]` key padding operand holds.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyPadding {
    /// One `f32` a key, added to the scores; negative infinity closes.
    Additive,
    /// One byte a key: 0 closes it, anything else leaves it open.
    Boolean,
    /// One `u32` a sequence, `[batch]`: how many of its keys there are. Whatever lies behind is closed and never read, and
    /// `LowerRight` is counted from this length. Lengths beyond `seqlen_k` count as `seqlen_k`.
    Lengths,
}
