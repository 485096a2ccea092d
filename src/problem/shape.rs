//! Sizes of an attention problem.

use crate::error::{Error, Result};

/// The sizes of a problem. All are at least 1; `heads` is a multiple of `kv_heads`.
///
/// `heads == kv_heads` is multi-head attention, `kv_heads == 1` is multi-query attention, anything between is
/// grouped-query attention: query head `h` reads key and value head `h / (heads / kv_heads)`.
///
/// ```
/// use wgpu_attention::AttentionShape;
///
/// // 8 query heads that share 2 key/value heads, values wider than keys.
/// let shape = AttentionShape { kv_heads: 2, head_dim_v: 96, ..AttentionShape::new(1, 8, 128, 128, 64) };
/// assert_eq!(shape.group_size(), 4);
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct AttentionShape {
    /// Number of sequences.
    pub batch: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Number of key and value heads.
    pub kv_heads: u32,
    /// Rows of query in each sequence.
    pub seqlen_q: u32,
    /// Rows of key and value in each sequence.
    pub seqlen_k: u32,
    /// Channels of query and key in each head.
    pub head_dim: u32,
    /// Channels of value and out in each head.
    pub head_dim_v: u32,
}

impl AttentionShape {
    /// A shape with as many key/value heads as query heads and values as wide as keys.
    pub const fn new(batch: u32, heads: u32, seqlen_q: u32, seqlen_k: u32, head_dim: u32) -> Self {
        Self {
            batch,
            heads,
            kv_heads: heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v: head_dim,
        }
    }

    /// Query heads that share one key/value head.
    pub const fn group_size(&self) -> u32 {
        match self.heads.checked_div(self.kv_heads) {
            Some(group_size) => group_size,
            None => 0,
        }
    }

    /// Multiply-adds, times two, of the two matrix products when no position is closed.
    pub fn flops(&self) -> f64 {
        let positions = self.batch as f64 * self.heads as f64 * self.seqlen_q as f64 * self.seqlen_k as f64;
        2.0 * positions * (self.head_dim as f64 + self.head_dim_v as f64)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (dimension, size) in [
            ("batch", self.batch),
            ("heads", self.heads),
            ("kv_heads", self.kv_heads),
            ("seqlen_q", self.seqlen_q),
            ("seqlen_k", self.seqlen_k),
            ("head_dim", self.head_dim),
            ("head_dim_v", self.head_dim_v),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(Error::HeadsNotDivisible {
                heads: self.heads,
                kv_heads: self.kv_heads,
            });
        }
        Ok(())
    }
}

/// One sequence, one head, one row, one channel: fill in the rest with struct update.
impl Default for AttentionShape {
    fn default() -> Self {
        Self::new(1, 1, 1, 1, 1)
    }
}
