//! Tiles that were chosen by measuring: which there are, and whether one fits a problem and a device. The rules are those of the
//! built-in rows, since what a file says is no better than a guess until it was checked.

use super::split::{MAX_LANE_ROWS, MIN_SPLIT_FLOPS, split_workgroups};
use super::{BROADCAST_ROWS, MAX_BROADCAST_D4, MAX_UNIFORM_D4, TILES, Tile, UNIFORM, lanes, loads_per_score};
use crate::caps::{DeviceCaps, Family};
use crate::problem::{Algorithm, AttentionShape, Problem};
use crate::tune::{QueryRows, TunedChoice, TunedTile, TuningClass};

/// Sizes that the families may be measured with. A file may say no other.
const TILE_ROWS: [u32; 4] = [8, 16, 32, 64];
const LANE_ROWS: [u32; 6] = [1, 2, 3, 4, 6, MAX_LANE_ROWS];
const SPLIT_KEYS: [u32; 3] = [1, 2, 4];
const Q_SQUARES: [u32; 3] = [1, 2, 4];
const KV_SQUARES: [u32; 2] = [2, 4];
const WORKGROUPS: [u32; 7] = [8, 16, 32, 64, 128, 256, 512];

/// Problems of fewer operations are done before a longer text were compiled, so the built-in rows keep theirs short. (The split
/// family's have their own bound.)
const MIN_TUNED_FLOPS: f64 = 2e7;

/// The tiles of the fused kernels for a problem.
pub(crate) struct FusedTiles<'a> {
    /// The split family's, if that is for this problem, and how many workgroups keep the device busy.
    pub(crate) split: Option<(Tile, u64)>,
    /// Where it is not, or does not fit.
    pub(crate) unsplit: Tile,
    /// The measurement that says so.
    pub(crate) tuned: Option<&'a TunedChoice>,
}

impl<'a> FusedTiles<'a> {
    /// By the built-in rows; `tile` is the tile family's.
    pub(crate) fn built_in(problem: &Problem, caps: &DeviceCaps, tile: &Tile) -> Self {
        Self {
            split: Tile::choose_split(problem, caps).map(|tile| (tile, split_workgroups(caps).into())),
            unsplit: Tile::choose_matrix(problem, caps)
                .or_else(|| Tile::choose_broadcast(problem, caps))
                .or_else(|| Tile::choose_uniform(problem, caps))
                .unwrap_or_else(|| tile.clone()),
            tuned: None,
        }
    }

    /// As measured on this device, if there is a measurement for such problems, and its tile fits this one.
    pub(crate) fn tuned(problem: &Problem, caps: &'a DeviceCaps) -> Option<Self> {
        let choice = caps.tuning.as_ref()?.choice(&TuningClass::of(problem))?;
        // The measured problems load nothing for each score, and are worth the compilation of a long text.
        let least_flops = match choice.tile.family() {
            Family::Split => MIN_SPLIT_FLOPS,
            _ => MIN_TUNED_FLOPS,
        };
        if problem.shape().flops() < least_flops
            || problem.algorithm() == Algorithm::ThreeKernels
            || loads_per_score(problem)
        {
            return None;
        }
        let tile = choice.tile.tile(problem, caps)?;
        let (split, unsplit) = match choice.tile {
            TunedTile::Split { workgroups, .. } => (Some((tile.clone(), workgroups.into())), tile),
            _ => (None, tile),
        };
        Some(Self {
            split,
            unsplit,
            tuned: Some(choice),
        })
    }
}

impl TunedTile {
    /// All that fit a problem and a device: what there is to measure.
    ///
    /// ```
    /// use wgpu_attention::{AttentionDescriptor, AttentionShape, DeviceCaps, Problem, TunedTile};
    ///
    /// let shape = AttentionShape::new(1, 8, 512, 512, 64);
    /// let problem = Problem::new(&AttentionDescriptor { shape, ..Default::default() })?;
    /// let candidates = TunedTile::candidates(&problem, &DeviceCaps::default());
    /// assert!(candidates.contains(&TunedTile::Tile { row: "32x32 streamed".into(), tile_q: 32 }));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn candidates(problem: &Problem, caps: &DeviceCaps) -> Vec<TunedTile> {
        let few = TuningClass::of(problem).query_rows == QueryRows::Few;
        let splits = LANE_ROWS.into_iter().flat_map(|rows| {
            SPLIT_KEYS.into_iter().flat_map(move |keys| {
                let split = move |workgroups| TunedTile::Split { rows, keys, workgroups };
                WORKGROUPS.into_iter().map(split)
            })
        });
        let broadcasts = LANE_ROWS.into_iter().map(|rows| TunedTile::Broadcast { rows });
        let tiles = TILES.iter().flat_map(|row| {
            let tile = |tile_q| TunedTile::Tile {
                row: row.name.into(),
                tile_q,
            };
            TILE_ROWS.into_iter().map(tile)
        });
        let uniform = std::iter::once(TunedTile::Uniform);
        let matrices = Q_SQUARES.into_iter().flat_map(|q_squares| {
            KV_SQUARES.into_iter().flat_map(move |kv_squares| {
                [true, false].map(|query_resident| TunedTile::Matrix {
                    q_squares,
                    kv_squares,
                    query_resident,
                })
            })
        });
        let all = splits
            .filter(|_| few)
            .chain(matrices)
            .chain(broadcasts)
            .chain(uniform)
            .chain(tiles);
        let mut seen = Vec::new();
        all.filter(|candidate| {
            let Some(tile) = candidate.tile(problem, caps) else {
                return false;
            };
            // Rows of different names may be the same but for their names, and of more rows than there are none is more.
            let key = (candidate.workgroups(), Tile { name: "", ..tile });
            let new = !seen.contains(&key);
            seen.push(key);
            new
        })
        .collect()
    }

    /// How many workgroups of the split family keep a device busy, where nothing was measured.
    pub fn usual_workgroups(caps: &DeviceCaps) -> u32 {
        split_workgroups(caps)
    }

    /// The tile, if it fits a problem and a device.
    pub(crate) fn tile(&self, problem: &Problem, caps: &DeviceCaps) -> Option<Tile> {
        let shape = problem.shape();
        if caps.only_family.is_some_and(|only| only != self.family()) {
            return None;
        }
        match *self {
            TunedTile::Tile { ref row, tile_q } if TILE_ROWS.contains(&tile_q) => tile(row, tile_q, &shape, caps),
            TunedTile::Broadcast { rows } if LANE_ROWS.contains(&rows) => broadcast(rows, &shape, caps),
            TunedTile::Split { rows, keys, workgroups }
                if LANE_ROWS.contains(&rows) && SPLIT_KEYS.contains(&keys) && WORKGROUPS.contains(&workgroups) =>
            {
                Tile::split_of(rows, keys, problem, caps)
            }
            TunedTile::Uniform => uniform(&shape, caps),
            TunedTile::Matrix {
                q_squares,
                kv_squares,
                query_resident,
            } if Q_SQUARES.contains(&q_squares) && KV_SQUARES.contains(&kv_squares) => {
                Tile::matrix_of(q_squares, kv_squares, query_resident, problem, caps)
            }
            _ => None,
        }
    }

    /// Which kernels it is for.
    pub fn family(&self) -> Family {
        match self {
            TunedTile::Tile { .. } => Family::Tile,
            TunedTile::Broadcast { .. } => Family::Broadcast,
            TunedTile::Uniform => Family::Uniform,
            TunedTile::Split { .. } => Family::Split,
            TunedTile::Matrix { .. } => Family::Matrix,
        }
    }

    fn workgroups(&self) -> u32 {
        match self {
            TunedTile::Split { workgroups, .. } => *workgroups,
            _ => 0,
        }
    }
}

/// A built-in row with other query rows.
fn tile(row: &str, tile_q: u32, shape: &AttentionShape, caps: &DeviceCaps) -> Option<Tile> {
    let row = TILES.iter().find(|tile| tile.name == row)?;
    let tile = Tile {
        name: if row.tile_q == tile_q { row.name } else { "tuned" },
        tile_q,
        ..row.clone()
    };
    let known = row.family == Family::Tile && tile_q.is_multiple_of(row.ty);
    let fits = row.tier <= caps.tier
        && row.class.is_none_or(|only| only == caps.class)
        && tile.threads() <= caps.limits.max_invocations
        && tile.workgroup_bytes(shape) <= caps.limits.max_workgroup_bytes;
    (known && fits).then_some(tile)
}

fn broadcast(rows: u32, shape: &AttentionShape, caps: &DeviceCaps) -> Option<Tile> {
    let lanes = lanes(caps)?;
    let d4 = shape.head_dim.div_ceil(4);
    let dv4 = shape.head_dim_v.div_ceil(4).min(MAX_BROADCAST_D4);
    let most = BROADCAST_ROWS.iter().map(|row| row.max_vec4s_of(lanes)).max()?;
    let fits = d4 <= MAX_BROADCAST_D4 && (rows == 1 || rows * (d4 + dv4) <= most);
    fits.then(|| Tile::broadcast(lanes, rows.min(shape.seqlen_q.div_ceil(lanes)).max(1)))
}

fn uniform(shape: &AttentionShape, caps: &DeviceCaps) -> Option<Tile> {
    let fits = UNIFORM.tier <= caps.tier
        && shape.head_dim.div_ceil(4) <= MAX_UNIFORM_D4
        && UNIFORM.threads() <= caps.limits.max_invocations;
    fits.then_some(UNIFORM)
}
