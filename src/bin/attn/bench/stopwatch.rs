//! Time of work on the GPU.

use std::time::{Duration, Instant};

use serde::Serialize;
use wgpu_attention::{BoundAttention, Engine, GpuTimer};

/// Which clock a time was read from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Timestamps around the compute pass.
    Gpu,
    /// From recording the commands until the wait for them ends.
    Wall,
}

/// Times of one run, in ms.
#[derive(Clone, Copy, Debug)]
pub struct Lap {
    pub gpu_ms: Option<f64>,
    pub wall_ms: f64,
}

/// Times of several runs.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    pub clock: Clock,
    pub runs: usize,
    /// By `clock`, as the next two.
    pub median_ms: f64,
    pub min_ms: f64,
    pub max_ms: f64,
    /// Median by the wall clock, submission and wait included.
    pub wall_ms: f64,
}

/// Runs and times work, one piece at a time.
pub struct Stopwatch<'a> {
    engine: &'a Engine,
    timer: Option<GpuTimer>,
}

impl<'a> Stopwatch<'a> {
    pub fn new(engine: &'a Engine) -> anyhow::Result<Self> {
        Ok(Self {
            engine,
            timer: GpuTimer::new(engine)?,
        })
    }

    /// One that reads the wall clock alone: timestamps are work, too, which others who are timed by that clock do not have.
    pub fn by_wall(engine: &'a Engine) -> Self {
        Self { engine, timer: None }
    }

    /// Whether times come from the GPU.
    pub fn clock(&self) -> Clock {
        if self.timer.is_some() { Clock::Gpu } else { Clock::Wall }
    }

    /// One compute pass that `record` puts together, around whose dispatches the timestamps go.
    pub fn lap(
        &self,
        record: impl FnOnce(&mut wgpu::CommandEncoder, Option<wgpu::ComputePassTimestampWrites<'_>>),
    ) -> anyhow::Result<Lap> {
        let start = Instant::now();
        let mut encoder = self.engine.device().create_command_encoder(&Default::default());
        record(&mut encoder, self.timer.as_ref().map(GpuTimer::writes));
        if let Some(timer) = &self.timer {
            timer.resolve(&mut encoder);
        }
        self.engine.queue().submit([encoder.finish()]);
        self.engine.wait()?;
        let wall_ms = start.elapsed().as_secs_f64() * 1e3;
        let gpu_ms = match &self.timer {
            None => None,
            Some(timer) => Some(timer.elapsed_ns()? * 1e-6),
        };
        Ok(Lap { gpu_ms, wall_ms })
    }

    /// One run of a bound call. A call of several submissions is timed by the wall clock.
    pub fn attention(&self, bound: &BoundAttention) -> anyhow::Result<Lap> {
        if bound.submissions() > 1 {
            let start = Instant::now();
            self.engine.run(bound)?;
            let wall_ms = start.elapsed().as_secs_f64() * 1e3;
            return Ok(Lap { gpu_ms: None, wall_ms });
        }
        self.lap(|encoder, writes| match writes {
            None => bound.encode(encoder),
            Some(writes) => bound.encode_timed(encoder, writes),
        })
    }

    /// What a call costs on the CPU, in µs: recording it, and what wgpu takes to finish the commands. Medians of several, each in an
    /// encoder of its own.
    pub fn encode_us(&self, bound: &BoundAttention) -> [f64; 2] {
        let laps: Vec<[f64; 2]> = (0..101)
            .map(|_| {
                let mut encoder = self.engine.device().create_command_encoder(&Default::default());
                let start = Instant::now();
                bound.encode(&mut encoder);
                let encoded = start.elapsed();
                let _commands = encoder.finish();
                [encoded, start.elapsed() - encoded].map(|time| time.as_secs_f64() * 1e6)
            })
            .collect();
        [0, 1].map(|part| median(laps.iter().map(|lap| lap[part])))
    }

    /// What submission and wait cost without any work: the median of several empty passes, by the wall clock.
    pub fn overhead_ms(&self) -> anyhow::Result<f64> {
        let laps = (0..21)
            .map(|_| {
                self.lap(|encoder, timestamp_writes| {
                    encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: Some("nothing"),
                        timestamp_writes,
                    });
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(median(laps.iter().map(|lap| lap.wall_ms)))
    }
}

impl Times {
    /// Of one lap at least.
    pub fn of(laps: &[Lap]) -> Self {
        let gpu: Option<Vec<f64>> = laps.iter().map(|lap| lap.gpu_ms).collect();
        let wall = laps.iter().map(|lap| lap.wall_ms);
        let wall_ms = median(wall.clone());
        let (clock, times) = match gpu {
            Some(times) => (Clock::Gpu, times),
            None => (Clock::Wall, wall.collect()),
        };
        Self {
            clock,
            runs: laps.len(),
            median_ms: median(times.iter().copied()),
            min_ms: times.iter().copied().fold(f64::INFINITY, f64::min),
            max_ms: times.iter().copied().fold(0.0, f64::max),
            wall_ms,
        }
    }
}

/// Runs each of several jobs in turn, so that all meet the same disturbances, until `budget` is spent for each: at least
/// five times, unless one run takes longer than the whole budget by far.
pub fn in_turn(
    budget: Duration,
    jobs: usize,
    mut run: impl FnMut(usize) -> anyhow::Result<Lap>,
) -> anyhow::Result<Vec<Vec<Lap>>> {
    const LEAST: usize = 5;
    const MOST: usize = 200;
    let mut laps = vec![Vec::new(); jobs];
    let start = Instant::now();
    for round in 0..MOST {
        let spent = start.elapsed();
        let all = budget * u32::try_from(jobs)?;
        if (round >= LEAST && spent > all) || (round > 0 && spent > all * 10) {
            break;
        }
        for (job, laps) in laps.iter_mut().enumerate() {
            laps.push(run(job)?);
        }
    }
    Ok(laps)
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_clocks() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
        let lap = |gpu_ms, wall_ms| Lap { gpu_ms, wall_ms };
        let times = Times::of(&[lap(Some(1.0), 5.0), lap(Some(2.0), 6.0), lap(Some(9.0), 7.0)]);
        assert_eq!((times.clock, times.median_ms, times.wall_ms), (Clock::Gpu, 2.0, 6.0));
        assert_eq!((times.min_ms, times.max_ms), (1.0, 9.0));
        // A time that one run lacks is not made up.
        assert_eq!(Times::of(&[lap(Some(1.0), 5.0), lap(None, 6.0)]).clock, Clock::Wall);
    }

    #[test]
    fn jobs_take_turns() {
        let mut order = Vec::new();
        let laps = in_turn(Duration::ZERO, 2, |job| {
            order.push(job);
            Ok(Lap {
                gpu_ms: None,
                wall_ms: 1.0,
            })
        })
        .unwrap();
        assert_eq!(laps.len(), 2);
        assert_eq!(order[..2], [0, 1]);
    }
}
