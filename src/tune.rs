//! Tiles chosen by measuring on one device, as plain data: what a plan tries before the built-in rows.
//!
//! `attn tune` makes a [`Tuning`] and writes it to a file; [`Engine::new`](crate::Engine::new) reads it. Nothing is measured unless
//! somebody asks for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::problem::{DType, Problem};

/// What was found best on a device, for classes of problems. A class that is not listed is planned by the built-in rows, and so are
/// problems that a measurement does not speak for: small ones (below 2e7 operations, in the split family 2e6), and those that load
/// a mask, a bias or the like for each score.
///
/// ```
/// use std::sync::Arc;
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, DeviceCaps, Plan, Problem};
/// use wgpu_attention::{TunedChoice, TunedTile, Tuning, TuningClass};
///
/// let shape = AttentionShape::new(1, 8, 512, 512, 64);
/// let problem = Problem::new(&AttentionDescriptor { shape, ..Default::default() })?;
/// let choice = TunedChoice {
///     date: "2026-11-25".into(),
///     class: TuningClass::of(&problem),
///     tile: TunedTile::Tile { row: "32x32 streamed".into(), tile_q: 16 },
///     median_ms: 1.0,
///     default_ms: 1.25,
/// };
/// let tuning = Tuning { choices: vec![choice] };
/// let caps = DeviceCaps { tuning: Some(Arc::new(tuning)), ..Default::default() };
/// let plan = Plan::new(&problem, &caps)?;
/// assert_eq!(plan.tile().tile_q, 16);
/// assert!(plan.to_string().contains("tuned on 2026-11-25"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// One of a class; of several the first counts.
    pub choices: Vec<TunedChoice>,
}

/// The best tile of a class, and the times that say so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TunedChoice {
    /// The day of the measurement: `2026-11-25`.
    pub date: String,
    /// For which problems.
    pub class: TuningClass,
    /// What they are computed with.
    pub tile: TunedTile,
    /// Median time of the class's example with this tile, in ms.
    pub median_ms: f64,
    /// The same with what the built-in rows choose.
    pub default_ms: f64,
}

/// Problems that one measurement speaks for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct TuningClass {
    /// How many query rows there are.
    pub query_rows: QueryRows,
    /// The larger of `head_dim` and `head_dim_v`, rounded up: to 32, 64, 96, 128, 192, or a multiple of 256.
    pub head_dim: u32,
    /// Whether there is a causal rule, which leaves half of the tiles.
    pub causal: bool,
    /// The storage type of the keys.
    pub dtype: DType,
}

/// How many query rows a sequence has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueryRows {
    /// At most 8: decoding.
    Few,
    /// At most 256.
    Some,
    /// More.
    Many,
}

/// A family of kernels with its sizes.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TunedTile {
    /// Tiles in workgroup memory.
    Tile {
        /// The built-in row that gives all other sizes, by its name.
        row: String,
        /// Query rows of a workgroup.
        tile_q: u32,
    },
    /// Rows in registers.
    Broadcast {
        /// Query rows of an invocation.
        rows: u32,
    },
    /// Rows in registers, keys and values at addresses that all lanes share.
    Uniform,
    /// Runs of keys side by side.
    Split {
        /// Rows that share a key/value head and are visited together, at most.
        rows: u32,
        /// Keys of an invocation at a time.
        keys: u32,
        /// Workgroups that keep the device busy: the keys are cut into as many runs as that takes.
        workgroups: u32,
    },
    /// Products of matrices, for operands stored as `f16`.
    Matrix {
        /// Matrices of query rows of a workgroup.
        q_squares: u32,
        /// Matrices of keys of a tile.
        kv_squares: u32,
        /// Whether query stays in workgroup memory; where not, subgroups hold it in registers.
        query_resident: bool,
    },
}

impl Tuning {
    /// What was found for a class.
    pub fn choice(&self, class: &TuningClass) -> Option<&TunedChoice> {
        self.choices.iter().find(|choice| choice.class == *class)
    }
}

impl TuningClass {
    /// The class of a problem.
    pub fn of(problem: &Problem) -> Self {
        let shape = problem.shape();
        let head_dim = shape.head_dim.max(shape.head_dim_v);
        let steps = [32, 64, 96, 128, 192];
        Self {
            query_rows: match shape.seqlen_q {
                0..=8 => QueryRows::Few,
                9..=256 => QueryRows::Some,
                _ => QueryRows::Many,
            },
            head_dim: steps
                .into_iter()
                .find(|&step| head_dim <= step)
                .unwrap_or_else(|| head_dim.checked_next_multiple_of(256).unwrap_or(u32::MAX)),
            causal: problem.causal().is_some(),
            dtype: problem.dtypes().key,
        }
    }
}

impl fmt::Display for TuningClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = match self.query_rows {
            QueryRows::Few => "few",
            QueryRows::Some => "some",
            QueryRows::Many => "many",
        };
        let causal = if self.causal { "-causal" } else { "" };
        write!(f, "{rows}-{}{causal}-{}", self.head_dim, self.dtype)
    }
}

impl fmt::Display for TunedTile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TunedTile::Tile { row, tile_q } => write!(f, "tile {row}, {tile_q} rows"),
            TunedTile::Broadcast { rows } => write!(f, "broadcast, {rows} rows a lane"),
            TunedTile::Uniform => f.write_str("uniform"),
            TunedTile::Split { rows, keys, workgroups } => {
                write!(f, "split, {rows} rows x {keys} keys a lane, {workgroups} workgroups")
            }
            TunedTile::Matrix {
                q_squares,
                kv_squares,
                query_resident,
            } => {
                let place = if *query_resident {
                    "workgroup memory"
                } else {
                    "registers"
                };
                write!(f, "matrix, {q_squares} x {kv_squares} matrices, query in {place}")
            }
        }
    }
}
