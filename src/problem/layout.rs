//! Where an operand's elements lie: strides in elements, the last axis always contiguous.

use crate::error::{Error, Operand, Result};

/// How a `[batch, heads, seqlen, head_dim]` operand lies in memory.
///
/// ```
/// use wgpu_attention::{Layout, Layouts, Strides};
///
/// // Query, key and value packed in one `[batch, seqlen, 3, heads, head_dim]` buffer: 8 heads of 64, 128 rows.
/// let packed = Layout::Strided(Strides { batch: 128 * 3 * 512, head: 64, row: 3 * 512 });
/// let layouts = Layouts { out: Layout::Bshd, ..Layouts::all(packed) };
/// assert_eq!(layouts.query, layouts.key);
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Layout {
    /// `[batch, heads, seqlen, head_dim]`, contiguous.
    #[default]
    Bhsd,
    /// `[batch, seqlen, heads, head_dim]`, contiguous: what a projection to `heads * head_dim` channels gives.
    Bshd,
    /// Any strides. For an input they may overlap or be 0 (a broadcast); for an output no two elements may meet.
    Strided(Strides),
}

/// Distances between neighbours, in elements. Channels are always 1 apart.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Strides {
    /// From one sequence to the next.
    pub batch: u32,
    /// From one head to the next.
    pub head: u32,
    /// From one row (token) to the next.
    pub row: u32,
}

/// Sequences of different lengths packed one after another, without padding: query and out are
/// `[tokens_q, heads, head_dim]` with [`Layout::Bshd`] (or `[heads, tokens_q, head_dim]` with [`Layout::Bhsd`], or any
/// strides, of which `batch` does not matter), key and value likewise with `tokens_k`, and the lse is `[heads, tokens_q]`.
///
/// The operands `cu_seqlens_q` and `cu_seqlens_k`, `batch + 1` times `u32` each, hold where each sequence begins and, last,
/// where the last one ends. The shape's `seqlen_q` and `seqlen_k` are upper bounds of the lengths: what of a sequence lies
/// beyond is left out. Masks, biases and weights are `[batch, heads, seqlen_q, seqlen_k]` with positions counted from each
/// sequence's beginning; `LowerRight` is counted from each sequence's own lengths.
///
/// ```
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Engine, HostInputs, Layout, Layouts, Packed};
///
/// // Three sequences of 5, 0 and 25 tokens.
/// let descriptor = AttentionDescriptor {
///     shape: AttentionShape::new(3, 2, 25, 25, 16),
///     packed: Some(Packed { tokens_q: 30, tokens_k: 30 }),
///     layouts: Layouts::all(Layout::Bshd),
///     causal: Some(CausalAlignment::LowerRight),
///     ..Default::default()
/// };
/// let (x, cu_seqlens) = (vec![0.5; 30 * 2 * 16], Some(&[0, 5, 5, 30][..]));
/// let inputs = HostInputs { cu_seqlens_q: cu_seqlens, cu_seqlens_k: cu_seqlens, ..HostInputs::new(&x, &x, &x) };
/// let output = Engine::new()?.attention(&descriptor, &inputs)?;
/// assert_eq!(output.out.len(), 30 * 2 * 16);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Packed {
    /// Rows of query of all sequences.
    pub tokens_q: u32,
    /// Rows of key and value of all sequences.
    pub tokens_k: u32,
}

/// A layout with its sizes: strides resolved, span known.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Extent {
    /// Sizes, `[batch, heads, rows, channels]`.
    pub sizes: [u32; 4],
    /// Strides of the same axes, in elements.
    pub strides: [u32; 4],
}

impl Extent {
    /// Resolves `layout` for an operand of these sizes. Fails when 32-bit indexes do not reach its end.
    pub(crate) fn new(operand: Operand, layout: Layout, sizes: [u32; 4]) -> Result<Self> {
        let [_, heads, rows, dim] = sizes.map(u64::from);
        // Three sizes may multiply to more than 64 bits hold; what saturates is far beyond 32-bit indexes either way.
        let [batch, head, row] = match layout {
            Layout::Bhsd => [(heads * rows).saturating_mul(dim), rows * dim, dim],
            Layout::Bshd => [(heads * rows).saturating_mul(dim), dim, heads * dim],
            Layout::Strided(s) => [s.batch.into(), s.head.into(), s.row.into()],
        };
        Self::strided(operand, sizes, [batch, head, row, 1])
    }

    /// A contiguous operand of these sizes.
    pub(crate) fn contiguous(operand: Operand, sizes: [u32; 4]) -> Result<Self> {
        Self::new(operand, Layout::Bhsd, sizes)
    }

    /// An operand with these strides, of which those of axes of size 1 do not matter and become 0.
    pub(crate) fn strided(operand: Operand, sizes: [u32; 4], strides: [u64; 4]) -> Result<Self> {
        let mut last = 0u64;
        let mut kept = [0u32; 4];
        for axis in 0..4 {
            if sizes[axis] > 1 {
                let reach = u64::from(sizes[axis] - 1).checked_mul(strides[axis]);
                last = reach.and_then(|r| last.checked_add(r)).unwrap_or(u64::MAX);
                kept[axis] = u32::try_from(strides[axis]).unwrap_or(u32::MAX);
            }
        }
        let limit = u64::from(u32::MAX);
        let elements = last.saturating_add(1);
        if elements > limit {
            return Err(Error::IndexOverflow {
                operand,
                elements,
                limit,
            });
        }
        Ok(Self { sizes, strides: kept })
    }

    /// Elements from the first to the last, both counted.
    pub fn span(&self) -> u64 {
        1 + (0..4)
            .map(|axis| u64::from(self.sizes[axis].saturating_sub(1)) * u64::from(self.strides[axis]))
            .sum::<u64>()
    }

    /// Offset of one element, in elements.
    pub fn offset(&self, index: [u32; 4]) -> u64 {
        (0..4)
            .map(|axis| u64::from(index[axis]) * u64::from(self.strides[axis]))
            .sum()
    }

    /// Fails if two elements lie at the same place (or the strides are too entangled to tell that they do not).
    pub(crate) fn validate_apart(&self, operand: Operand) -> Result<()> {
        let mut axes: Vec<usize> = (0..4).filter(|&axis| self.sizes[axis] > 1).collect();
        axes.sort_by_key(|&axis| self.strides[axis]);
        let mut reach = 1u64;
        for axis in axes {
            if u64::from(self.strides[axis]) < reach {
                return Err(Error::OverlappingStrides {
                    operand,
                    strides: self.strides.to_vec(),
                });
            }
            reach += u64::from(self.sizes[axis] - 1) * u64::from(self.strides[axis]);
        }
        Ok(())
    }

    /// Whether vectors of `channels` channels never straddle: every row begins at a multiple of as many and ends at one.
    pub fn is_vectors_of(&self, channels: u32) -> bool {
        let whole = |number: &u32| number.is_multiple_of(channels);
        whole(&self.sizes[3]) && self.strides[..3].iter().all(whole)
    }
}
