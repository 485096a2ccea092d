//! Compositions of `shaders/rope.wgsl`.

use super::{THREADS, storage_type};
use crate::kernel::KernelConfig;
use crate::problem::DType;

/// What a rotation's kernel depends on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RopeKernel {
    /// Storage type of x; `None` rotates in place.
    pub x: Option<DType>,
    /// Storage type of out.
    pub out: DType,
    /// How out is written.
    pub store: RopeStore,
    /// Pairs are neighbours instead of halves.
    pub interleaved: bool,
    /// Where cos and sin come from.
    pub angles: RopeAngleSource,
}

/// How an invocation writes what it owns.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RopeStore {
    /// One pair, element by element: `f32`.
    Each,
    /// One interleaved pair of a half type, as a word.
    Adjacent,
    /// Two neighbouring pairs of the half split of a half type, as two words.
    Columns,
    /// One pair of a half type, anywhere, by atomics.
    Halves,
}

/// Where cos and sin come from; `ids` says that positions are an operand.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RopeAngleSource {
    /// From frequencies and positions.
    Frequencies {
        /// Positions are an operand.
        ids: bool,
    },
    /// From tables by position.
    CacheByPosition {
        /// Storage type of the tables.
        dtype: DType,
        /// Positions are an operand.
        ids: bool,
    },
    /// From tables by row.
    CacheByRow {
        /// Storage type of the tables.
        dtype: DType,
    },
}

impl RopeStore {
    /// Neighbouring pairs that an invocation owns.
    pub fn pairs(self) -> u32 {
        match self {
            RopeStore::Columns => 2,
            RopeStore::Each | RopeStore::Adjacent | RopeStore::Halves => 1,
        }
    }
}

/// `shaders/rope.wgsl` with its hooks.
pub fn rope(kernel: &RopeKernel) -> KernelConfig {
    let (angle, ids, cache) = match kernel.angles {
        RopeAngleSource::Frequencies { ids } => ("rope/angle_frequency.wgsl", Some(ids), None),
        RopeAngleSource::CacheByPosition { dtype, ids } => ("rope/angle_by_position.wgsl", Some(ids), Some(dtype)),
        RopeAngleSource::CacheByRow { dtype } => ("rope/angle_by_row.wgsl", None, Some(dtype)),
    };
    let position = ids.map(|ids| match ids {
        true => "rope/position_ids.wgsl",
        false => "rope/position_offset.wgsl",
    });
    let pairing = match kernel.interleaved {
        true => "rope/interleaved.wgsl",
        false => "rope/half_split.wgsl",
    };
    let x = match kernel.x {
        Some(_) => "rope/x_operand.wgsl",
        None => "rope/x_in_place.wgsl",
    };
    let store = match kernel.store {
        RopeStore::Each => "rope/out_each.wgsl",
        RopeStore::Adjacent => "rope/out_adjacent.wgsl",
        RopeStore::Columns => "rope/out_columns.wgsl",
        RopeStore::Halves => "rope/out_halves.wgsl",
    };
    let mut parts = vec!["storage.wgsl", pairing, x, store];
    parts.extend(position);
    if angle == "rope/angle_frequency.wgsl" {
        parts.push("rope/turn.wgsl");
    }
    parts.extend([angle, "rope.wgsl"]);
    let mut constants = vec![
        ("THREADS", THREADS),
        ("PAIRS", kernel.store.pairs()),
        ("X_DTYPE", storage_type(kernel.x.unwrap_or(kernel.out))),
        ("OUT_DTYPE", storage_type(kernel.out)),
    ];
    constants.extend(cache.map(|dtype| ("CACHE_DTYPE", storage_type(dtype))));
    KernelConfig::operation("rope", parts, constants)
}
