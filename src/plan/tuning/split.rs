//! Tiles of the split family, in its two forms: how many rows, how many keys at a time, and how many runs of keys.

use super::{MAX_BROADCAST_D4, Tile, lanes};
use crate::caps::{DeviceCaps, DeviceClass, Family, Tier};
use crate::problem::{AttentionShape, Problem};

/// The split family is for at most so many query rows; with more, the broadcast family shares each key among more of them.
const MAX_SPLIT_SEQLEN_Q: u32 = 8;

/// The most rows of an invocation of the split family, and of any that is tried.
pub(super) const MAX_LANE_ROWS: u32 = 8;

/// The most vec4 of query and out together that an invocation with whole keys holds.
const MAX_SPLIT_VEC4S: u32 = 512;

/// The same of problems of fewer operations: done before a longer text were compiled.
const MAX_SPLIT_VEC4S_OF_LITTLE: u32 = 64;
pub(super) const MIN_SPLIT_FLOPS: f64 = 2e6;

/// The most keys that such an invocation has at a time.
const MAX_LANE_KEYS: u32 = 4;

/// The fewest keys that are worth a run.
const MIN_RUN_KEYS: u64 = 128;

/// Invocations that share a key on GPUs: 128 bytes of `f32` at a time, and in reach of each other's shuffles.
const SPLIT_SHARE: u32 = 8;

/// The most vec4 of query and out together that such an invocation holds: 128 registers.
const MAX_SHARED_VEC4S: u32 = 32;

/// Keys that each of these groups has in flight: fewer where many rows hold registers for each.
const fn shared_keys(rows: u32) -> u32 {
    if rows > 4 { 2 } else { 4 }
}

/// How many workgroups of the split family keep a device busy.
pub(super) fn split_workgroups(caps: &DeviceCaps) -> u32 {
    match caps.class {
        DeviceClass::Cpu => 32,
        DeviceClass::Integrated | DeviceClass::Unknown => 128,
        DeviceClass::Discrete => 512,
    }
}

/// The family's two forms.
enum Form {
    /// An invocation has whole keys, and subgroups so many of these: software drivers, which run loads lane by lane.
    WholeKeys(u32),
    /// Neighbours share a key: GPUs, and whatever has no subgroups to count on.
    SharedKeys,
}

impl Form {
    fn of(caps: &DeviceCaps) -> Self {
        match lanes(caps) {
            Some(lanes) if caps.class == DeviceClass::Cpu => Form::WholeKeys(lanes),
            _ => Form::SharedKeys,
        }
    }
}

impl Tile {
    /// A tile of the split family, if that is for this device and problem.
    pub(crate) fn choose_split(problem: &Problem, caps: &DeviceCaps) -> Option<Tile> {
        let shape = problem.shape();
        let form = Form::of(caps);
        let wanted = match (caps.only_family, &form) {
            (Some(only), _) => only == Family::Split,
            (None, _) if shape.seqlen_q > MAX_SPLIT_SEQLEN_Q => false,
            (None, Form::WholeKeys(_)) => true,
            // These add up products in an order of their own, so that weights, made of the lse by scores that are summed otherwise,
            // would have the errors of both.
            (None, Form::SharedKeys) => caps.class != DeviceClass::Cpu && !problem.outputs().weights,
        };
        if !wanted || !can_be_split(problem) {
            return None;
        }
        let packed_rows = packed_rows(&shape);
        let Form::WholeKeys(lanes) = form else {
            let rows = packed_rows.min(most_shared_rows(&shape));
            return Self::split_shared(rows).fits_workgroup(&shape, caps);
        };
        let budget = match shape.flops() >= MIN_SPLIT_FLOPS {
            true => MAX_SPLIT_VEC4S,
            false => MAX_SPLIT_VEC4S_OF_LITTLE,
        } / slowness(caps);
        let row_vec4s = row_vec4s(&shape);
        let rows = packed_rows.min((budget / row_vec4s).clamp(1, MAX_LANE_ROWS));
        // More keys at a time share the rescaling of out, until the text takes too long to compile.
        let keys = (budget / (rows * row_vec4s)).clamp(1, MAX_LANE_KEYS);
        Some(Self::split(lanes, rows, keys))
    }

    /// The tile of the split family with these rows and keys, if that fits a problem and a device.
    pub(super) fn split_of(rows: u32, keys: u32, problem: &Problem, caps: &DeviceCaps) -> Option<Tile> {
        let shape = problem.shape();
        if !can_be_split(problem) {
            return None;
        }
        let Form::WholeKeys(lanes) = Form::of(caps) else {
            let fits = keys == shared_keys(rows) && rows <= most_shared_rows(&shape);
            return Self::split_shared(rows).fits_workgroup(&shape, caps).filter(|_| fits);
        };
        let fits = rows * keys == 1 || rows * keys * row_vec4s(&shape) <= MAX_SPLIT_VEC4S / slowness(caps);
        fits.then(|| Self::split(lanes, rows.min(packed_rows(&shape)), keys))
    }

    /// The tile of the split family: `rows` packed rows, and runs of keys that subgroups of `lanes` invocations visit, `keys` of
    /// them an invocation at a time.
    pub const fn split(lanes: u32, rows: u32, keys: u32) -> Tile {
        Tile {
            name: "split",
            family: Family::Split,
            tile_q: rows,
            tx: keys,
            ..Self::broadcast(lanes, 1)
        }
    }

    /// The same for GPUs: eight invocations share a key, so that they load neighbours and each holds few channels.
    pub const fn split_shared(rows: u32) -> Tile {
        Tile {
            name: "split shared",
            tier: Tier::Portable,
            class: None,
            share: SPLIT_SHARE,
            measured: "chosen by static figures alone: benches/static",
            ..Self::split(64, rows, shared_keys(rows))
        }
    }

    /// Vec4 of value channels that each of the invocations that share a key has.
    pub fn own_dv4(&self, head_dim_v: u32) -> u32 {
        head_dim_v.div_ceil(4).div_ceil(self.share)
    }

    /// Keys of a run: so many runs that there are `workgroups` of them, if each still has enough keys.
    pub(crate) fn run_keys(&self, shape: &AttentionShape, workgroups: u64) -> u32 {
        let kv_heads = u64::from(shape.batch) * u64::from(shape.kv_heads);
        let tiles = (u64::from(shape.seqlen_q) * u64::from(shape.group_size())).div_ceil(self.tile_q.into());
        let runs = workgroups.div_ceil((kv_heads * tiles).max(1)).max(1);
        let keys = u64::from(shape.seqlen_k).div_ceil(runs).max(MIN_RUN_KEYS);
        (keys as u32)
            .min(shape.seqlen_k.max(1))
            .next_multiple_of(self.tile_kv())
    }

    /// The tile, if a device has the workgroups for it.
    fn fits_workgroup(self, shape: &AttentionShape, caps: &DeviceCaps) -> Option<Tile> {
        let fits = self.threads() <= caps.limits.max_invocations
            && self.workgroup_bytes(shape) <= caps.limits.max_workgroup_bytes;
        fits.then_some(self)
    }
}

/// Whether either form has the text for a problem. (Each head of a group has blocks of its own.)
fn can_be_split(problem: &Problem) -> bool {
    let shape = problem.shape();
    let most = shape.head_dim.max(shape.head_dim_v).div_ceil(4);
    most <= MAX_BROADCAST_D4 && problem.block_mask().is_none()
}

/// Rows that share a key/value head.
fn packed_rows(shape: &AttentionShape) -> u32 {
    shape.seqlen_q.saturating_mul(shape.group_size()).max(1)
}

/// Vec4 of query and out together.
fn row_vec4s(shape: &AttentionShape) -> u32 {
    shape.head_dim.div_ceil(4) + shape.head_dim_v.div_ceil(4)
}

/// How many packed rows a workgroup of [`Tile::split_shared`] has at most: as many as its registers hold.
fn most_shared_rows(shape: &AttentionShape) -> u32 {
    let own = |dim: u32| dim.div_ceil(4).div_ceil(SPLIT_SHARE);
    (MAX_SHARED_VEC4S / (own(shape.head_dim) + own(shape.head_dim_v))).clamp(1, MAX_LANE_ROWS)
}

/// What the budgets are divided by where the driver is slow to compile.
fn slowness(caps: &DeviceCaps) -> u32 {
    if caps.compiles_slowly { 2 } else { 1 }
}
