//! Tile sizes as dated rows, best first: the first row that fits the device and the problem is taken.

use crate::Operand;
use crate::caps::{DeviceCaps, DeviceClass, Family, MatrixShape, Tier};
use crate::problem::{AttentionShape, BlockMaskShape, DType, DropoutKeep, Problem};

mod matrix;
mod split;
mod trips;
mod tuned;

pub(crate) use tuned::FusedTiles;

/// One row: the sizes that the kernels of a family are compiled with.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Tile {
    /// The row's name, as plans show it.
    pub name: &'static str,
    /// Which kernels it is for.
    pub family: Family,
    /// The least tier that it needs.
    pub tier: Tier,
    /// Only for this class of device; `None` is any.
    pub class: Option<DeviceClass>,
    /// Only for at most so many query rows; `None` is any number.
    pub max_seqlen_q: Option<u32>,
    /// Query rows of a workgroup.
    pub tile_q: u32,
    /// Invocations along the keys; in the tile family each owns four keys, so a tile has `4 * tx` of them; in the matrix family
    /// `d4_chunk` times four.
    pub tx: u32,
    /// Invocations along the query rows; in the broadcast family a subgroup, and as many keys.
    pub ty: u32,
    /// Channels of query and key staged at a time, in vec4.
    pub d4_chunk: u32,
    /// Invocations that share a key, each with channels of its own: several in the split family alone.
    pub share: u32,
    /// The most vec4 of value channels that one invocation accumulates for each of its rows; in the matrix family the most squares
    /// of them that a workgroup does.
    pub max_v_groups: u32,
    /// Whether the query tile stays in workgroup memory from start to end. Where not, it is streamed, or in the matrix family held in
    /// registers if these do.
    pub query_resident: bool,
    /// What matrices are multiplied: those of the matrix family.
    pub matrix: Option<MatrixShape>,
    /// Where the row comes from.
    pub measured: &'static str,
}

/// The rows.
pub const TILES: &[Tile] = &[
    Tile {
        name: "8x32 resident",
        family: Family::Tile,
        tier: Tier::Extended,
        class: None,
        max_seqlen_q: Some(8),
        tile_q: 8,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        share: 1,
        max_v_groups: 4,
        query_resident: true,
        matrix: None,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
    Tile {
        name: "8x32 streamed",
        family: Family::Tile,
        tier: Tier::Portable,
        class: None,
        max_seqlen_q: Some(8),
        tile_q: 8,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        share: 1,
        max_v_groups: 4,
        query_resident: false,
        matrix: None,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
    Tile {
        name: "32x32 resident",
        family: Family::Tile,
        tier: Tier::Extended,
        class: None,
        max_seqlen_q: None,
        tile_q: 32,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        share: 1,
        max_v_groups: 4,
        query_resident: true,
        matrix: None,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
    Tile {
        name: "32x32 streamed",
        family: Family::Tile,
        tier: Tier::Portable,
        class: None,
        max_seqlen_q: None,
        tile_q: 32,
        tx: 8,
        ty: 8,
        d4_chunk: 8,
        share: 1,
        max_v_groups: 4,
        query_resident: false,
        matrix: None,
        measured: "2026-11-25 llvmpipe 22.3.6: docs/KERNELS.md, Tiles",
    },
];

/// For kernels that own one row and 64 keys a workgroup, with no products: the average of heads.
pub const ELEMENTWISE: Tile = Tile {
    name: "1x64",
    family: Family::Tile,
    tier: Tier::Portable,
    class: None,
    max_seqlen_q: None,
    tile_q: 1,
    tx: 16,
    ty: 4,
    d4_chunk: 1,
    share: 1,
    max_v_groups: 1,
    query_resident: false,
    matrix: None,
    measured: "bound by memory on every device: not tuned",
};

/// How many query rows an invocation of the broadcast family owns: each loads a key for all of them, so more is faster, while the
/// text, and with it the driver's time to compile, grows with rows times channels times lanes.
struct BroadcastRows {
    /// Only for problems of at least so many operations: these are worth a longer compilation. And where the driver compiles slowly.
    min_flops: f64,
    min_flops_where_slow: f64,
    /// The most vec4 of query and out together that an invocation holds, where a subgroup has eight.
    max_vec4s: u32,
    /// The most rows of an invocation: more share each load, and take longer to compile.
    max_rows: u32,
    _measured: &'static str,
}

const BROADCAST_ROWS: &[BroadcastRows] = &[
    BroadcastRows {
        min_flops: 2e9,
        min_flops_where_slow: 2e10,
        max_vec4s: 256,
        max_rows: 8,
        _measured: "2026-11-30 llvmpipe 22.3.6: docs/KERNELS.md, Broadcast, more rows",
    },
    BroadcastRows {
        min_flops: 2e7,
        min_flops_where_slow: 2e7,
        max_vec4s: 192,
        max_rows: 4,
        _measured: "2026-11-30 llvmpipe 22.3.6: docs/KERNELS.md, Families",
    },
    // Done before a longer text were compiled.
    BroadcastRows {
        min_flops: 0.0,
        min_flops_where_slow: 0.0,
        max_vec4s: 48,
        max_rows: 4,
        _measured: "2026-11-30 llvmpipe 22.3.6: docs/KERNELS.md, Families",
    },
];

impl BroadcastRows {
    fn max_vec4s_of(&self, lanes: u32) -> u32 {
        // Little is not worth a longer text even where that is compiled sooner.
        let lanes = if self.min_flops > 0.0 { lanes } else { 8 };
        self.max_vec4s * 8 / lanes
    }
}

/// What an invocation of the broadcast family spends on loads, as so many rows: docs/KERNELS.md, Families.
const BROADCAST_LOADS_IN_ROWS: u32 = 2;

/// The most rows of an invocation of the broadcast family where none go through loops; and where each score loads something of its own
/// besides, a mask or a bias, by text of its own.
const MAX_ROWS_UNROLLED: u32 = 4;
const MAX_ROWS_UNROLLED_LOADING: u32 = 2;

/// The most vec4 of a key that an invocation of the broadcast family loads: each is a load of its own in the text.
const MAX_BROADCAST_D4: u32 = 64;

/// The sizes of the uniform family: as many registers as RADV has for eight waves a SIMD at 64 channels.
pub const UNIFORM: Tile = Tile {
    name: "uniform",
    family: Family::Uniform,
    tier: Tier::Extended,
    class: None,
    max_seqlen_q: None,
    tile_q: 64,
    tx: 4,
    ty: 64,
    d4_chunk: 1,
    share: 1,
    max_v_groups: 16,
    query_resident: true,
    matrix: None,
    measured: "chosen by static figures alone: benches/static",
};

/// The most vec4 of query that an invocation of the uniform family holds.
const MAX_UNIFORM_D4: u32 = 32;

impl Tile {
    /// The first row of the tile family that fits; there is one for every device that WebGPU allows.
    pub(crate) fn choose(shape: &AttentionShape, caps: &DeviceCaps) -> Option<&'static Tile> {
        TILES.iter().find(|tile| {
            tile.tier <= caps.tier
                && tile.class.is_none_or(|only| only == caps.class)
                && tile.max_seqlen_q.is_none_or(|most| shape.seqlen_q <= most)
                && tile.threads() <= caps.limits.max_invocations
                && tile.workgroup_bytes(shape) <= caps.limits.max_workgroup_bytes
        })
    }

    /// A tile of the broadcast family, if that is for this device and problem.
    pub(crate) fn choose_broadcast(problem: &Problem, caps: &DeviceCaps) -> Option<Tile> {
        let shape = problem.shape();
        let wanted = match caps.only_family {
            Some(only) => only == Family::Broadcast,
            None => caps.class == DeviceClass::Cpu,
        };
        let lanes = lanes(caps)?;
        let d4 = shape.head_dim.div_ceil(4);
        if !wanted || d4 > MAX_BROADCAST_D4 {
            return None;
        }
        let least = |row: &BroadcastRows| match caps.compiles_slowly {
            true => row.min_flops_where_slow,
            false => row.min_flops,
        };
        let row = BROADCAST_ROWS.iter().find(|&row| shape.flops() >= least(row))?;
        let dv4 = shape.head_dim_v.div_ceil(4).min(MAX_BROADCAST_D4);
        let compiled = match (caps.rows_in_loops, loads_per_score(problem)) {
            (true, _) => row.max_rows,
            (false, false) => row.max_rows.min(MAX_ROWS_UNROLLED),
            (false, true) => row.max_rows.min(MAX_ROWS_UNROLLED_LOADING),
        };
        let most_rows = (row.max_vec4s_of(lanes) / (d4 + dv4)).clamp(1, compiled);
        // Each subgroup pays for its rows, and what two more would cost for the loads that they share; the last may have few rows.
        let lane_rows = shape.seqlen_q.div_ceil(lanes).max(1);
        let cost = |rows: &u32| u64::from(lane_rows.div_ceil(*rows)) * u64::from(rows + BROADCAST_LOADS_IN_ROWS);
        let mut rows = (1..=most_rows.min(lane_rows)).min_by_key(cost).unwrap_or(1);
        if problem.block_mask().is_some() {
            // So that blocks are whole tiles.
            rows = 1 << rows.ilog2();
        }
        Some(Self::broadcast(lanes, rows))
    }

    /// A tile of the uniform family, if that is asked for and for this device and problem. Which devices it is best for is not
    /// measured yet.
    pub(crate) fn choose_uniform(problem: &Problem, caps: &DeviceCaps) -> Option<Tile> {
        let d4 = problem.shape().head_dim.div_ceil(4);
        let wanted = caps.only_family == Some(Family::Uniform);
        (wanted && d4 <= MAX_UNIFORM_D4 && UNIFORM.threads() <= caps.limits.max_invocations).then_some(UNIFORM)
    }

    /// The tile of the broadcast family with subgroups of `lanes` invocations that own `rows` rows each.
    pub const fn broadcast(lanes: u32, rows: u32) -> Tile {
        Tile {
            name: "broadcast",
            family: Family::Broadcast,
            tier: Tier::Extended,
            class: Some(DeviceClass::Cpu),
            max_seqlen_q: None,
            tile_q: lanes * rows,
            tx: 1,
            ty: lanes,
            d4_chunk: 1,
            share: 1,
            max_v_groups: MAX_BROADCAST_D4,
            query_resident: true,
            matrix: None,
            measured: "2026-11-30 llvmpipe 22.3.6: docs/KERNELS.md, Families",
        }
    }

    /// Invocations of a workgroup.
    pub fn threads(&self) -> u32 {
        match self.family {
            Family::Tile | Family::Matrix => self.tx * self.ty,
            Family::Broadcast | Family::Uniform | Family::Split => self.ty,
        }
    }

    /// Whether the lanes of a row reach each other by subgroup shuffles, which `shaders/tile/rows_shuffled.wgsl` has for eight.
    pub(crate) fn shuffles(&self, caps: &DeviceCaps) -> bool {
        let lanes = match self.family {
            Family::Split => self.share,
            _ => self.tx,
        };
        lanes == 8 && caps.tier > Tier::Portable && caps.lanes_in_order(lanes)
    }

    /// Query rows of an invocation.
    pub fn rows(&self) -> u32 {
        match self.family {
            Family::Split => self.tile_q,
            _ => self.tile_q / self.ty,
        }
    }

    /// Keys of a tile.
    pub fn tile_kv(&self) -> u32 {
        match self.family {
            Family::Broadcast => self.ty,
            Family::Uniform => self.tx,
            Family::Split => self.ty / self.share * self.tx,
            Family::Tile => 4 * self.tx,
            Family::Matrix => 4 * self.tx * self.d4_chunk,
        }
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
        match self.family {
            // As even as can be.
            Family::Broadcast | Family::Uniform | Family::Split => {
                let dv4 = head_dim_v.div_ceil(4);
                4 * dv4.div_ceil(dv4.div_ceil(self.max_v_groups))
            }
            Family::Matrix => self.v_squares(head_dim_v) * self.matrix_size(),
            Family::Tile => 4 * self.tx * self.v_groups(head_dim_v),
        }
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

    /// Vec4 of a chunk of the query tile that an invocation brings to workgroup memory, where that is streamed.
    pub fn query_stages(&self) -> u32 {
        self.tile_q * self.d4_chunk / self.threads()
    }

    /// Vec4 of a chunk of keys that an invocation brings to workgroup memory: all invocations together bring whole keys.
    pub fn key_stages(&self) -> u32 {
        self.tile_kv() * self.d4_chunk / self.threads()
    }

    /// Vec4 of a group of value channels that an invocation brings to workgroup memory: `tx` of them are a value row.
    pub fn value_stages(&self) -> u32 {
        self.tile_kv() / self.ty
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
        if self.matrix.is_some() {
            return self.matrix_bytes(shape, DType::F32);
        }
        if self.share > 1 {
            // Products, should they not be shuffled, and the state of each invocation.
            let products = self.threads() * ((self.rows() * self.tx).div_ceil(4) | 1);
            let states = self.threads() * self.own_dv4(shape.head_dim_v);
            return 16 * (products + states) + 8 * self.threads();
        }
        if self.family != Family::Tile {
            return 0;
        }
        let query = self.tile_q.saturating_mul(self.q_stride(shape.head_dim));
        let keys = self.tile_kv() * self.kv_stride();
        let weights = self.tile_q * self.p_stride();
        // What the lanes of a row share of their rows, and the guard's flag.
        let shared = self.threads() * self.rows().div_ceil(4) + 1;
        query.saturating_add(keys + weights + shared).saturating_mul(16)
    }

    /// The same for a problem: in how many parts weights are multiplied is a matter of out's storage.
    pub fn workgroup_bytes_for(&self, problem: &Problem) -> u32 {
        match self.matrix {
            Some(_) => self.matrix_bytes(&problem.shape(), problem.dtypes().out),
            None => self.workgroup_bytes(&problem.shape()),
        }
    }
}

/// Whether tiles that are wholly open have a loop of their own in the tile family: on GPUs, where it saves each of them the tests of
/// the others, and on what does not say that it is none, as in browsers. Software drivers compile the whole loop twice then, and
/// spend a tile's time on loads.
pub(crate) fn open_apart(caps: &DeviceCaps) -> bool {
    caps.class != DeviceClass::Cpu
}

/// Whether loads of values wait for the arithmetic before them in the broadcast family: where the driver would put all loads of a tile
/// first, as llvmpipe does from Mesa 25 on. What that costs and gains is in docs/KERNELS.md, Broadcast, loads in order.
pub(crate) fn in_order(caps: &DeviceCaps) -> bool {
    caps.compiles_slowly
}

/// Invocations of a subgroup, for kernels that count them in their text: the number must be known, and one of these.
fn lanes(caps: &DeviceCaps) -> Option<u32> {
    let (least, most) = caps.subgroup_sizes?;
    let fits = least == most && [4, 8, 16].contains(&least) && least <= caps.limits.max_invocations;
    fits.then_some(least)
}

/// Whether each score loads something of its own, or is dropped by a generator: then the scores of a row are finished in a loop in the
/// broadcast family, since drivers compile slowly by the load.
pub(crate) fn loads_per_score(problem: &Problem) -> bool {
    let operands = [
        Operand::Mask,
        Operand::Bias,
        Operand::KeyPadding,
        Operand::DropoutMask,
        Operand::BlockMask,
    ];
    let given = operands.into_iter().any(|operand| problem.has(operand));
    let generated = matches!(
        problem.dropout().map(|dropout| dropout.keep),
        Some(DropoutKeep::Philox { .. })
    );
    given || generated || !problem.mods().captures.is_empty()
}
