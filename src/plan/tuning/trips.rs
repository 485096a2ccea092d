//! How often the loops of an invocation go round: some drivers end them after so many trips, all counted together.

use super::matrix::MAX_MATRIX_PARTS;
use super::{Tile, loads_per_score};
use crate::caps::{DeviceCaps, Family};
use crate::problem::{DropoutKeep, Problem};

/// Rounds over the tiles in the broadcast family, at most, where keys may be closed: `broadcast/rounds_finite.wgsl`.
const ROUNDS: u32 = 4;

/// The most keys of a dispatch of the broadcast family with rounds, which count keys in `f32`.
const ROUND_KEYS: u32 = 1 << 22;

/// A rotary embedding may turn a vec4 by a loop over its channels.
const TURNING: u32 = 5;

/// Dropout's generator takes ten rounds and the loop's own trip for each of four keys.
const GENERATOR: u32 = 44;

impl Tile {
    /// Loop trips of one invocation for one tile of keys, at most, all its loops counted together.
    pub fn trips_per_tile(&self, problem: &Problem) -> u32 {
        let (generator, turning) = (generator_trips(problem), turning_trips(problem));
        let shape = problem.shape();
        match self.family {
            Family::Matrix => self.matrix_trips(problem),
            // A trip for each key, and for each row whose scores are finished in a loop.
            Family::Broadcast => {
                let rows = if loads_per_score(problem) { self.rows() + 1 } else { 0 };
                let calls = self.rows() * self.ty.div_ceil(4);
                let tile = self.ty + 1 + rows + generator * calls + turning * shape.head_dim.div_ceil(4) + 2;
                tile * self.rounds(problem)
            }
            Family::Uniform => {
                let calls = self.rows() * self.tx.div_ceil(4);
                generator * calls + turning * self.tx * shape.head_dim.div_ceil(4) + 2
            }
            // A lane's keys lie apart.
            Family::Split => {
                let calls = self.rows() * self.tx;
                generator * calls + turning * self.tx * shape.head_dim.div_ceil(4) + 2
            }
            Family::Tile => {
                let stage = |vec4s: u32| vec4s.div_ceil(self.threads()) + 1;
                let chunk = self.d4_chunk + 2 + turning * (self.key_stages() + self.query_stages());
                // The guarded products after the plain ones, since a driver may run both sides of a branch.
                let group = 2 * (self.tx + 1);
                let weights = stage(self.tile_q * self.tx);
                let rest = generator * self.rows() + 3 + self.v_groups(shape.head_dim_v) * group + weights;
                self.d_chunks(shape.head_dim).saturating_mul(chunk).saturating_add(rest)
            }
        }
    }

    /// The longest run of keys that one invocation may loop over.
    pub(crate) fn max_kv(&self, problem: &Problem, caps: &DeviceCaps) -> u32 {
        let shape = problem.shape();
        // Before and after the loop over tiles: staging the query tile, a lane's rows as they come, begin and go, and the odds and ends.
        let row = turning_trips(problem).saturating_mul(shape.head_dim.div_ceil(4)) + 2 + 2 * self.rounds(problem);
        let outside = shape
            .head_dim
            .saturating_add(self.rows().saturating_mul(row))
            .saturating_add(64);
        let by_trips = caps.max_loop_trips.map_or(u32::MAX, |most| {
            let tiles = most.saturating_sub(outside) / self.trips_per_tile(problem);
            tiles.max(1).saturating_mul(self.tile_kv())
        });
        match self.rounds(problem) {
            1 => by_trips,
            _ => by_trips.min(ROUND_KEYS),
        }
    }

    fn rounds(&self, problem: &Problem) -> u32 {
        match self.family {
            Family::Broadcast if problem.may_close() => ROUNDS,
            _ => 1,
        }
    }

    fn matrix_trips(&self, problem: &Problem) -> u32 {
        let shape = problem.shape();
        let stage = |vec4s: u32| vec4s.div_ceil(self.threads()) + 1;
        let size = self.matrix_size();
        let (squares, columns) = (self.v_squares(shape.head_dim_v), size * MAX_MATRIX_PARTS / 4);
        let products = shape.head_dim.div_ceil(size) + self.tile_kv() / size + 2;
        // Rescaling, and values that are not finite.
        let rare = squares * (columns + 2 + self.tx * (columns + 2));
        let turning = turning_trips(problem) * stage(self.tile_kv() * shape.head_dim.div_ceil(4));
        let dropout = generator_trips(problem) * self.d4_chunk;
        let staging = stage(self.tile_kv() * shape.head_dim.div_ceil(4)) + stage(self.tile_kv() * squares * size / 16);
        dropout + turning + staging + products + rare + 2
    }
}

fn generator_trips(problem: &Problem) -> u32 {
    let keep = problem.dropout().map(|dropout| dropout.keep);
    if matches!(keep, Some(DropoutKeep::Philox { .. })) {
        GENERATOR
    } else {
        0
    }
}

fn turning_trips(problem: &Problem) -> u32 {
    if problem.rope().is_some() { TURNING } else { 0 }
}
