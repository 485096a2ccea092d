//! Tile sizes as dated rows, best first: the first row that fits the device and the problem is taken.

use crate::caps::{CapsLimits, DeviceClass, Tier};
use crate::problem::{AttentionShape, BlockMaskShape};

/// One row: the sizes that the tile kernels are compiled with.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tile {
    /// The row's name, as plans show it.
    pub name: &'static str,
    /// The least tier that it needs.
    pub tier: Tier,
    /// Only for this class of device; `None` is any.
    pub class: Option<DeviceClass>,
    /// Only for at most so many query rows; `None` is any number.
    pub max_seqlen_q: Option<u32>,
    /// Query rows of a workgroup.
    pub tile_q: u32,
    /// Invocations along the keys; each owns four keys, so a tile has `4 * tx` of them.
    pub tx: u32,
    /// Invocations along the query rows.
    pub ty: u32,
    /// Channels of query and key staged at a time, in vec4.
    pub d4_chunk: u32,
    /// The most vec4 of value channels that one invocation accumulates for each of its rows.
    pub max_v_groups: u32,
    /// Whether the query tile stays in workgroup memory from start to end.
    pub query_resident: bool,
    /// Where the row comes from.
    pub measured: &'static str,
}

/// The rows.
pub const TILES: &[Tile] = &[
    Tile {
        name: "8x32 resident",
        tier: Tier::Extended,
        class: None,
        max_seqlen_q: Some(8),
        tile_q: 8,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        max_v_groups: 4,
        query_resident: true,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
    Tile {
        name: "8x32 streamed",
        tier: Tier::Portable,
        class: None,
        max_seqlen_q: Some(8),
        tile_q: 8,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        max_v_groups: 4,
        query_resident: false,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
    Tile {
        name: "32x32 resident",
        tier: Tier::Extended,
        class: None,
        max_seqlen_q: None,
        tile_q: 32,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        max_v_groups: 4,
        query_resident: true,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
    Tile {
        name: "32x32 streamed",
        tier: Tier::Portable,
        class: None,
        max_seqlen_q: None,
        tile_q: 32,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        max_v_groups: 4,
        query_resident: false,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
];

/// For kernels that own one row and 64 keys a workgroup, with no products: the average of heads.
pub const ELEMENTWISE: Tile = Tile {
    name: "1x64",
    tier: Tier::Portable,
    class: None,
    max_seqlen_q: None,
    tile_q: 1,
    tx: 16,
    ty: 4,
    d4_chunk: 1,
    max_v_groups: 1,
    query_resident: false,
    measured: "bound by memory on every device: not tuned",
};

impl Tile {
    /// The first row that fits; there is one for every device that WebGPU allows.
    pub(crate) fn choose(
        shape: &AttentionShape,
        class: DeviceClass,
        tier: Tier,
        limits: &CapsLimits,
    ) -> Option<&'static Tile> {
        TILES.iter().find(|tile| {
            tile.tier <= tier
                && tile.class.is_none_or(|only| only == class)
                && tile.max_seqlen_q.is_none_or(|most| shape.seqlen_q <= most)
                && tile.threads() <= limits.max_invocations
                && tile.workgroup_bytes(shape) <= limits.max_workgroup_bytes
        })
    }

    /// Invocations of a workgroup.
    pub fn threads(&self) -> u32 {
        self.tx * self.ty
    }

    /// Query rows of an invocation.
    pub fn rows(&self) -> u32 {
        self.tile_q / self.ty
    }

    /// Keys of a tile.
    pub fn tile_kv(&self) -> u32 {
        4 * self.tx
    }

    /// Chunks of `d4_chunk` vec4 in a row of query or key.
    pub fn d_chunks(&self, head_dim: u32) -> u32 {
        head_dim.div_ceil(4 * self.d4_chunk)
    }

    /// Vec4 of value channels that an invocation accumulates for each row.
    pub fn v_groups(&self, head_dim_v: u32) -> u32 {
        head_dim_v.div_ceil(4 * self.tx).min(self.max_v_groups)
    }

    /// Value channels of a workgroup.
    pub fn chunk_channels(&self, head_dim_v: u32) -> u32 {
        4 * self.tx * self.v_groups(head_dim_v)
    }

    /// Chunks that the value channels are cut into; each computes the scores anew in the fused kernel.
    pub fn v_chunks(&self, head_dim_v: u32) -> u32 {
        head_dim_v.div_ceil(self.chunk_channels(head_dim_v))
    }

    /// Vec4 from one query row to the next in workgroup memory.
    pub fn q_stride(&self, head_dim: u32) -> u32 {
        1 + self.d4_chunk
            * if self.query_resident {
                self.d_chunks(head_dim)
            } else {
                1
            }
    }

    /// Vec4 from one key or value row to the next in workgroup memory.
    pub fn kv_stride(&self) -> u32 {
        1 + self.d4_chunk.max(self.tx)
    }

    /// Vec4 from one row of weights to the next in workgroup memory.
    pub fn p_stride(&self) -> u32 {
        1 + self.tx
    }

    /// Query rows and keys of a unit that a block mask's lists speak of: a block, as far as it is whole tiles.
    pub fn list_units(&self, mask: &BlockMaskShape) -> [u32; 2] {
        let unit = |tile: u32, block: u32| tile * (block / tile).max(1);
        [unit(self.tile_q, mask.block_q), unit(self.tile_kv(), mask.block_kv)]
    }

    /// Workgroup memory of the fused kernel, the largest of them all.
    pub fn workgroup_bytes(&self, shape: &AttentionShape) -> u32 {
        let query = self.tile_q.saturating_mul(self.q_stride(shape.head_dim));
        let keys = self.tile_kv() * self.kv_stride();
        let weights = self.tile_q * self.p_stride();
        let vec4s = query.saturating_add(keys + weights);
        vec4s.saturating_mul(16).saturating_add(4 * self.tile_q * self.tx + 16)
    }

    /// Loop trips of one invocation for one tile of keys, at most, all its loops counted together.
    ///
    /// Dropout's generator takes ten rounds and the loop's own trip for each of a lane's four keys in each of its rows.
    pub fn trips_per_tile(&self, shape: &AttentionShape, generates_dropout: bool) -> u32 {
        let stage = |vec4s: u32| vec4s.div_ceil(self.threads()) + 1;
        let chunk = stage(self.tile_kv() * self.d4_chunk) + stage(self.tile_q * self.d4_chunk) + self.d4_chunk + 1;
        // The guarded products take five trips (four and the loop's own) where the plain ones take one.
        let group = stage(self.tile_kv() * self.tx) + 6 * self.tx;
        let weights = stage(self.tile_q * self.tx);
        let dropout = if generates_dropout { 44 * self.rows() } else { 0 };
        let rest = dropout + 3 + self.v_groups(shape.head_dim_v) * group + weights;
        self.d_chunks(shape.head_dim).saturating_mul(chunk).saturating_add(rest)
    }
}
