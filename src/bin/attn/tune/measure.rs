//! One class: every tile that fits, checked against the built-in one's results, then timed in turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    Attention, BoundAttention, DType, DeviceCaps, Engine, Family, HostInputs, Inputs, Operand, OutputBuffers, Plan,
    Problem, Tensor, TunedChoice, TunedTile, Tuning, TuningClass,
};

use super::classes::Example;
use crate::bench::stopwatch::{Lap, Stopwatch, Times, in_turn};
use crate::check::Check;
use crate::device::chosen;

/// What was measured of a class.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub class: TuningClass,
    pub sizes: String,
    /// The built-in choice first.
    pub rows: Vec<Row>,
    /// The row that is faster than the built-in choice, if one is.
    pub chosen: Option<usize>,
    /// Tiles for which the time did not suffice.
    pub untried: usize,
}

/// One tile.
#[derive(Debug, Serialize)]
pub struct Row {
    pub name: String,
    /// `None` for the built-in choice.
    pub tile: Option<TunedTile>,
    pub right: bool,
    pub max_difference: f64,
    pub allowed_difference: f64,
    /// From preparing the call to the end of its first run.
    pub first_call_ms: f64,
    /// The shortest of the first few runs after that.
    pub rough_ms: f64,
    /// Of several runs; missing for tiles that are wrong, or far behind.
    pub median_ms: Option<f64>,
}

/// Measures classes on one engine, whose plans go by the built-in rows.
pub struct Tuner<'a> {
    pub engine: &'a Engine,
    pub stopwatch: &'a Stopwatch<'a>,
    /// When to measure no further tile.
    pub deadline: Instant,
}

/// A class's operands, and what is known to be right.
struct Operands {
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    dtype: DType,
    /// What the built-in choice computed.
    want: Vec<f32>,
    allowed: f64,
}

/// A tile that is ready to be timed.
struct Job {
    row: usize,
    bound: BoundAttention,
    attention: Attention,
}

/// What is known of a class so far.
struct Trial<'a> {
    example: &'a Example,
    operands: Operands,
    rows: Vec<Row>,
    /// The rows that are right, the built-in choice first.
    jobs: Vec<Job>,
    /// Tiles for which the time did not suffice.
    untried: usize,
}

/// A tile has to be so much faster to be worth a choice: less is within what one run differs from the next.
const WORTH_IT: f64 = 0.97;

/// A tile so much slower than the best in its first few runs is not timed further.
const FAR_BEHIND: f64 = 1.5;

/// A family of which two tiles were so much slower than the best is not tried further.
const HOPELESS: f64 = 4.0;

/// Runs after the first, until the budget is spent.
const ROUGH_RUNS: usize = 5;

/// Time for the repeated runs of each tile.
const BUDGET: Duration = Duration::from_millis(60);

impl Outcome {
    /// Time of the built-in choice.
    pub fn default_ms(&self) -> Option<f64> {
        self.rows.first()?.median_ms
    }

    /// What is better.
    pub fn chosen(&self) -> Option<&Row> {
        self.rows.get(self.chosen?)
    }

    /// Whether a tile computed something else than the built-in choice.
    pub fn has_wrong_results(&self) -> bool {
        self.rows.iter().any(|row| !row.right)
    }
}

impl Tuner<'_> {
    /// Measures a class; `step` is told what comes next.
    pub fn class(&self, example: &Example, mut step: impl FnMut(String)) -> anyhow::Result<Outcome> {
        let problem = Problem::new(&example.descriptor())?;
        step(format!("{}, built-in", example.class));
        let (operands, first, built_in) = self.operands(example, &problem)?;
        let caps = self.engine.caps();
        let candidates = TunedTile::candidates(&problem, caps);
        let (usual, further): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|tile| is_typical(tile, caps));
        let mut trial = Trial {
            example,
            operands,
            rows: vec![first],
            jobs: vec![built_in],
            untried: 0,
        };
        self.try_all(&mut trial, usual, &mut step)?;
        // How many workgroups are enough is asked for the best rows and keys only.
        let best = fastest(&trial.rows).and_then(|row| row.tile.clone());
        let alike = |tile: &TunedTile| best.as_ref().is_some_and(|best| differ_in_workgroups(best, tile));
        let further = further.into_iter().filter(alike).collect();
        self.try_all(&mut trial, further, &mut step)?;

        step(format!("{}, the fastest in turn", example.class));
        let Trial {
            mut rows,
            mut jobs,
            untried,
            ..
        } = trial;
        let best_ms = fastest(&rows).map_or(f64::INFINITY, |row| row.rough_ms);
        jobs.retain(|job| job.row == 0 || rows[job.row].rough_ms <= FAR_BEHIND * best_ms);
        let laps: Vec<Vec<Lap>> = in_turn(BUDGET, jobs.len(), |index| self.stopwatch.attention(&jobs[index].bound))?;
        for (job, laps) in jobs.iter().zip(laps) {
            rows[job.row].median_ms = Some(Times::of(&laps).median_ms);
        }
        Ok(Outcome {
            class: example.class,
            sizes: example.sizes(),
            chosen: choose(&rows),
            rows,
            untried,
        })
    }

    /// The operands, and the built-in choice on them, compared with the reference.
    fn operands(&self, example: &Example, problem: &Problem) -> anyhow::Result<(Operands, Row, Job)> {
        let dtype = example.class.dtype;
        let mut random = StdRng::seed_from_u64(1);
        // Of variance 1, as the activations behind a normalisation layer.
        let spread = 3.0f32.sqrt();
        let mut numbers = |operand| -> anyhow::Result<(Vec<f32>, Tensor)> {
            let count = problem.span_bytes(operand).unwrap_or(0) / dtype.bytes();
            let exact: Vec<f32> = (0..count).map(|_| random.random_range(-spread..spread)).collect();
            let stored = dtype.narrow(&exact);
            Ok((dtype.widen(&stored), self.engine.upload_bytes(&stored)?))
        };
        let ((host_query, query), (host_key, key), (host_value, value)) = (
            numbers(Operand::Query)?,
            numbers(Operand::Key)?,
            numbers(Operand::Value)?,
        );
        let out = self.engine.allocate(problem.span_bytes(Operand::Out).unwrap_or(0))?;
        let mut operands = Operands {
            query,
            key,
            value,
            out,
            dtype,
            want: Vec::new(),
            allowed: 0.0,
        };
        let (job, first_call_ms, rough_ms) = self.run(self.engine, 0, example, &operands)?;
        operands.want = self.result(&operands)?;
        let host = HostInputs::new(&host_query, &host_key, &host_value);
        let check = check(example, &host, problem, &operands)?;
        // Each is allowed as much from the truth, so two may be twice that apart.
        operands.allowed = 2.0 * check.allowed_error;
        anyhow::ensure!(
            check.is_right(),
            "{}: the built-in kernel's results are wrong by {:.1e}, where {:.1e} is allowed; please report this adapter and driver",
            example.class,
            check.max_error,
            check.allowed_error
        );
        let row = Row {
            name: format!("built-in: {}", chosen(job.attention.plan())),
            tile: None,
            right: true,
            max_difference: 0.0,
            allowed_difference: operands.allowed,
            first_call_ms,
            rough_ms,
            median_ms: None,
        };
        Ok((operands, row, job))
    }

    /// Runs each of these tiles a few times and compares; the right ones become jobs.
    fn try_all(
        &self,
        trial: &mut Trial<'_>,
        tiles: Vec<TunedTile>,
        step: &mut impl FnMut(String),
    ) -> anyhow::Result<()> {
        let (example, operands) = (trial.example, &trial.operands);
        for tile in tiles {
            if is_hopeless(tile.family(), &trial.rows) {
                continue;
            }
            if Instant::now() > self.deadline {
                trial.untried += 1;
                continue;
            }
            step(format!("{}, {tile}", example.class));
            let choice = TunedChoice {
                date: String::new(),
                class: example.class,
                tile: tile.clone(),
                median_ms: 1.0,
                default_ms: 1.0,
            };
            let tuning = Tuning { choices: vec![choice] };
            let engine = self.engine.with_tuning(Some(Arc::new(tuning)));
            let plan = engine.plan(&example.descriptor())?;
            let is_known = trial.jobs.iter().any(|job| does_the_same(&plan, job.attention.plan()));
            if plan.tuned() != Some(&tile) || is_known {
                continue;
            }
            let (job, first_call_ms, rough_ms) = self.run(&engine, trial.rows.len(), example, operands)?;
            let got = self.result(operands)?;
            let max_difference = largest_difference(&got, &operands.want);
            let right = max_difference <= operands.allowed;
            trial.rows.push(Row {
                name: tile.to_string(),
                tile: Some(tile),
                right,
                max_difference,
                allowed_difference: operands.allowed,
                first_call_ms,
                rough_ms,
                median_ms: None,
            });
            if right {
                trial.jobs.push(job);
            }
        }
        Ok(())
    }

    /// A few runs into an `out` that was poisoned: the first compiles.
    fn run(
        &self,
        engine: &Engine,
        row: usize,
        example: &Example,
        operands: &Operands,
    ) -> anyhow::Result<(Job, f64, f64)> {
        let poison = vec![0xffu8; usize::try_from(operands.out.bytes())?];
        engine.queue().write_buffer(operands.out.buffer(), 0, &poison);
        let start = Instant::now();
        let attention = engine.prepare(&example.descriptor())?;
        let inputs = Inputs::new(&operands.query, &operands.key, &operands.value);
        let bound = attention.bind(&inputs, &OutputBuffers::new(&operands.out))?;
        self.stopwatch.attention(&bound)?;
        let first_call_ms = start.elapsed().as_secs_f64() * 1e3;
        // The shortest of a few, where they are short: one disturbance is no reason to give a tile up.
        let mut rough_ms = f64::INFINITY;
        let begin = Instant::now();
        for _ in 0..ROUGH_RUNS {
            let lap = self.stopwatch.attention(&bound)?;
            rough_ms = rough_ms.min(lap.gpu_ms.unwrap_or(lap.wall_ms));
            if begin.elapsed() > BUDGET {
                break;
            }
        }
        let job = Job { row, bound, attention };
        Ok((job, first_call_ms, rough_ms))
    }

    fn result(&self, operands: &Operands) -> anyhow::Result<Vec<f32>> {
        Ok(self.engine.read_as(&operands.out, operands.dtype)?)
    }
}

/// Whether a tile is measured in any case: of those of the split family, the ones with the usual number of workgroups.
fn is_typical(tile: &TunedTile, caps: &DeviceCaps) -> bool {
    match tile {
        TunedTile::Split { workgroups, .. } => *workgroups == TunedTile::usual_workgroups(caps),
        _ => true,
    }
}

fn differ_in_workgroups(one: &TunedTile, other: &TunedTile) -> bool {
    match (one, other) {
        (TunedTile::Split { rows, keys, .. }, TunedTile::Split { rows: r, keys: k, .. }) => (rows, keys) == (r, k),
        _ => false,
    }
}

/// Whether two plans are the same but for names and reasons.
fn does_the_same(one: &Plan, other: &Plan) -> bool {
    let kernels = |plan: &Plan| plan.passes().iter().map(|pass| plan.kernel(pass)).collect::<Vec<_>>();
    one.passes() == other.passes() && kernels(one) == kernels(other)
}

/// Whether the first two tiles of a family, and all others of it so far, were so far behind that no sizes will help.
fn is_hopeless(family: Family, rows: &[Row]) -> bool {
    let best_ms = fastest(rows).map_or(f64::INFINITY, |row| row.rough_ms);
    let of_family = rows
        .iter()
        .filter(|row| row.tile.as_ref().is_some_and(|tile| tile.family() == family));
    let mut behind = of_family.map(|row| row.rough_ms > HOPELESS * best_ms);
    behind.clone().count() >= 2 && behind.all(|behind| behind)
}

/// The row that was shortest in its first few runs.
fn fastest(rows: &[Row]) -> Option<&Row> {
    let right = rows.iter().filter(|row| row.right);
    right.min_by(|one, other| one.rough_ms.total_cmp(&other.rough_ms))
}

/// The row with the shortest time, if that is worth it.
fn choose(rows: &[Row]) -> Option<usize> {
    let default_ms = rows.first()?.median_ms?;
    let timed = rows.iter().enumerate().skip(1);
    let timed = timed.filter_map(|(index, row)| Some((index, row.median_ms.filter(|_| row.right)?)));
    let (index, best) = timed.min_by(|(_, one), (_, other)| one.total_cmp(other))?;
    (best <= WORTH_IT * default_ms).then_some(index)
}

/// A few rows of what the built-in kernel computed, against the reference.
fn check(example: &Example, host: &HostInputs<'_>, problem: &Problem, operands: &Operands) -> anyhow::Result<Check> {
    let shape = example.shape;
    let last = [0, shape.heads - 1, shape.seqlen_q - 1];
    let positions = [[0, 0, 0], [0, shape.heads / 2, shape.seqlen_q / 2], last];
    let wide = example.widened()?;
    let rows = |precision| -> anyhow::Result<Vec<f64>> {
        let rows = reference::rows_in(precision, &wide, host, &positions)?;
        Ok(rows.into_iter().flat_map(|row| row.out).collect())
    };
    let (want, naive) = (rows(Precision::F64)?, rows(Precision::F32)?);
    let mut got = Vec::new();
    for [batch, head, row] in positions {
        for channel in 0..shape.head_dim_v {
            let at = problem
                .extent(Operand::Out)
                .map_or(0, |extent| extent.offset([batch, head, row, channel]));
            got.push(operands.want.get(usize::try_from(at)?).copied().unwrap_or(f32::NAN));
        }
    }
    let check = Check::new(&got, &want, &naive);
    // Storing rounds to half a unit in the last place.
    let largest = want.iter().fold(0.0f64, |most, value| most.max(value.abs()));
    let half_unit = match operands.dtype {
        DType::F32 => 0.0,
        DType::F16 => 2.0f64.powi(-11),
        DType::Bf16 => 2.0f64.powi(-8),
    };
    Ok(Check {
        allowed_error: check.allowed_error + half_unit * largest,
        ..check
    })
}

/// Infinite if a number is NaN, or missing.
fn largest_difference(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    got.iter().zip(want).fold(0.0, |most: f64, (&got, &want)| {
        let difference = (f64::from(got) - f64::from(want)).abs();
        most.max(if difference.is_nan() { f64::INFINITY } else { difference })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(median_ms: Option<f64>, right: bool) -> Row {
        Row {
            name: String::new(),
            tile: None,
            right,
            max_difference: 0.0,
            allowed_difference: 0.0,
            first_call_ms: 0.0,
            rough_ms: 1.0,
            median_ms,
        }
    }

    #[test]
    fn only_what_is_right_and_faster_is_chosen() {
        let built_in = || row(Some(2.0), true);
        assert_eq!(choose(&[built_in()]), None);
        assert_eq!(choose(&[built_in(), row(Some(1.99), true)]), None);
        assert_eq!(
            choose(&[built_in(), row(Some(1.5), true), row(Some(1.0), true)]),
            Some(2)
        );
        assert_eq!(
            choose(&[built_in(), row(Some(1.5), true), row(Some(1.0), false)]),
            Some(1)
        );
        assert_eq!(choose(&[built_in(), row(None, true)]), None);
        assert_eq!(choose(&[row(None, true), row(Some(1.0), true)]), None);
    }

    #[test]
    fn a_family_far_behind_is_given_up() {
        let tile = |tile: TunedTile, rough_ms| Row {
            tile: Some(tile),
            rough_ms,
            ..row(None, true)
        };
        let broadcast = |rough_ms| tile(TunedTile::Broadcast { rows: 1 }, rough_ms);
        let one = || row(None, true);
        assert!(!is_hopeless(Family::Broadcast, &[one()]));
        assert!(!is_hopeless(Family::Broadcast, &[one(), broadcast(9.0)]));
        assert!(is_hopeless(Family::Broadcast, &[one(), broadcast(9.0), broadcast(5.0)]));
        assert!(!is_hopeless(Family::Tile, &[one(), broadcast(9.0), broadcast(5.0)]));
        assert!(!is_hopeless(
            Family::Broadcast,
            &[one(), broadcast(9.0), broadcast(3.0), broadcast(9.0)]
        ));
    }

    #[test]
    fn a_number_that_is_missing_or_nan_is_different() {
        assert_eq!(largest_difference(&[1.0, 2.0], &[1.0, 2.5]), 0.5);
        for got in [&[1.0, f32::NAN][..], &[1.0], &[f32::INFINITY, 2.0]] {
            assert_eq!(largest_difference(got, &[1.0, 2.0]), f64::INFINITY);
        }
    }
}
