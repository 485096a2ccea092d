//! Memory that a plan needs besides the operands.

use crate::caps::DeviceCaps;
use crate::error::{Error, Result};

/// Sizes of the workspace's parts. The fused kernel needs none unless one row's keys are visited in several passes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Workspace {
    /// Scores of the three kernels, when the caller does not want the weights: one block of rows at a time.
    pub scores_bytes: u64,
    /// Planes of `[batch, heads, seqlen_q]` for the lse between passes.
    pub lse_planes: u32,
    /// Bytes of one such plane.
    pub lse_plane_bytes: u64,
    /// `out` in `f32`, when several passes add to it and the caller's is narrower.
    pub partial_bytes: u64,
    /// What runs of keys made of each row, in `f32`, and their lse.
    pub parts_bytes: u64,
    /// See `parts_bytes`.
    pub part_lse_bytes: u64,
    /// Which tiles a block mask leaves to visit.
    pub tile_lists_bytes: u64,
    /// What a rotary embedding turns by.
    pub rope_steps_bytes: u64,
}

impl Workspace {
    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.scores_bytes
            + u64::from(self.lse_planes) * self.lse_plane_bytes
            + self.partial_bytes
            + self.parts_bytes
            + self.part_lse_bytes
            + self.tile_lists_bytes
            + self.rope_steps_bytes
    }

    pub(crate) fn validate(&self, caps: &DeviceCaps) -> Result<()> {
        let planes_bytes = u64::from(self.lse_planes) * self.lse_plane_bytes;
        let largest = self
            .scores_bytes
            .max(planes_bytes)
            .max(self.partial_bytes)
            .max(self.parts_bytes)
            .max(self.part_lse_bytes)
            .max(self.tile_lists_bytes);
        if largest > caps.limits.max_buffer_bytes {
            return Err(Error::Limit {
                what: "the workspace".into(),
                required: largest,
                limit_name: "maxBufferSize",
                limit: caps.limits.max_buffer_bytes,
            });
        }
        Ok(())
    }
}
