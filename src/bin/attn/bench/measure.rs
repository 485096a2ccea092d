//! One case: checked first, then timed.

use std::time::{Duration, Instant};

use serde::Serialize;
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    Algorithm, Attention, AttentionDescriptor, BoundAttention, Engine, HostInputs, Inputs, Operand, OutputBuffers,
    Problem, Tensor,
};

use super::cases::{Case, Sizes, flops};
use super::floors::Floors;
use super::noise::noise;
use super::stopwatch::{Clock, Lap, Stopwatch, Times, in_turn, median};
use crate::check::Check;
use crate::device::chosen;

/// What computes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kernel {
    /// What the plan chooses.
    Auto,
    Fused,
    ThreeKernels,
    /// The reference's formulas in `f32`, on one thread.
    Cpu,
}

/// One line of the results.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub case: String,
    pub set: String,
    #[serde(flatten)]
    pub sizes: Sizes,
    pub kernel: Kernel,
    /// What the plan chose, in a few words; missing for the CPU.
    pub plan: Option<String>,
    pub max_error: f64,
    pub allowed_error: f64,
    /// Query rows that were compared with the reference.
    pub rows_checked: usize,
    pub right: bool,
    /// Missing where the results are wrong.
    #[serde(flatten)]
    pub speed: Option<Speed>,
    /// Bytes of query, key, value and out.
    pub operand_bytes: u64,
    /// The most bytes of buffers besides the operands, from preparing the call to its end.
    pub extra_bytes: Option<u64>,
    /// Bytes that the device had allocated for all of that, as wgpu's allocator counts them, where it does.
    pub device_bytes: Option<u64>,
}

/// How fast it was.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    #[serde(flatten)]
    pub times: Times,
    /// From preparing the call to the end of its first run: compiling, above all.
    pub first_call_ms: Option<f64>,
    /// Recording the call into an encoder, on the CPU; and what wgpu takes to finish the commands.
    pub encode_us: Option<f64>,
    pub finish_us: Option<f64>,
    pub gflops: f64,
    pub gb_per_s: f64,
    /// Of the device's multiply-add rate; missing for the CPU.
    pub share_of_gflops: Option<f64>,
    /// Of the device's memory bandwidth.
    pub share_of_gb_per_s: Option<f64>,
    /// For the CPU: the share of all rows that was timed. The time is scaled from it.
    pub share_timed: f64,
}

/// Measures cases on one engine.
pub struct Bench<'a> {
    pub engine: &'a Engine,
    pub stopwatch: &'a Stopwatch<'a>,
    pub floors: Floors,
    pub kernels: &'a [Kernel],
    pub budget: Duration,
    pub seed: u64,
}

/// A case's operands, on both sides.
struct Operands {
    problem: Problem,
    host: [Vec<f32>; 3],
    gpu: [Tensor; 3],
    out: Tensor,
    bytes: u64,
}

impl Operands {
    fn host(&self) -> HostInputs<'_> {
        HostInputs::new(&self.host[0], &self.host[1], &self.host[2])
    }
}

/// A kernel that was found right.
struct Ready {
    /// Its place among the rows.
    row: usize,
    bound: BoundAttention,
    first_call_ms: f64,
}

/// A case whose kernels were checked, and that can be timed.
pub struct Checked {
    operands: Operands,
    rows: Vec<Row>,
    ready: Vec<Ready>,
}

impl Checked {
    /// What was measured so far: without times before [`Bench::finish`], but for the CPU's.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

impl Bench<'_> {
    /// Every kernel on one case.
    pub fn case(&self, case: &Case, step: impl FnMut(Kernel)) -> anyhow::Result<Vec<Row>> {
        let checked = self.check(case, step)?;
        let laps = self.laps(&checked)?;
        Ok(self.finish(checked, &laps))
    }

    /// Runs every kernel once and compares with the reference.
    pub fn check(&self, case: &Case, mut step: impl FnMut(Kernel)) -> anyhow::Result<Checked> {
        let memory_before = self.engine.memory().current_bytes;
        let device_before = self.device_bytes();
        let operands = self.operands(case)?;
        let positions = positions(case);
        let want = reference::rows(&operands.problem, &operands.host(), &positions)?;
        let naive = reference::rows_in(Precision::F32, &operands.problem, &operands.host(), &positions)?;
        let flat =
            |rows: &[reference::ReferenceRow]| -> Vec<f64> { rows.iter().flat_map(|row| row.out.clone()).collect() };
        let (want, naive) = (flat(&want), flat(&naive));

        let mut rows = Vec::new();
        let mut ready = Vec::new();
        for &kernel in self.kernels {
            step(kernel);
            let mut row = Row {
                case: case.name.clone(),
                set: case.set.clone(),
                sizes: case.sizes,
                kernel,
                plan: None,
                max_error: 0.0,
                allowed_error: 0.0,
                rows_checked: positions.len(),
                right: true,
                speed: None,
                operand_bytes: operands.bytes,
                extra_bytes: None,
                device_bytes: None,
            };
            let Some(algorithm) = kernel.algorithm() else {
                row.speed = Some(self.cpu(&operands, case)?);
                let check = Check::new(
                    &naive.iter().map(|&value| value as f32).collect::<Vec<_>>(),
                    &want,
                    &naive,
                );
                (row.max_error, row.allowed_error, row.right) =
                    (check.max_error, check.allowed_error, check.is_right());
                rows.push(row);
                continue;
            };
            let operand_memory = memory_before + operands.bytes;
            self.engine.reset_memory_peak();
            let start = Instant::now();
            let (attention, bound) = self.bind(case, algorithm, &operands)?;
            row.plan = Some(chosen(attention.plan()));
            // It warms up: drivers may compile at the first run.
            self.stopwatch.attention(&bound)?;
            let first_call_ms = start.elapsed().as_secs_f64() * 1e3;
            row.extra_bytes = Some(self.engine.memory().peak_bytes.saturating_sub(operand_memory));
            row.device_bytes = self
                .device_bytes()
                .zip(device_before)
                .map(|(now, before)| now.saturating_sub(before));
            let check = Check::new(&self.rows_of_out(&operands, &positions)?, &want, &naive);
            (row.max_error, row.allowed_error, row.right) = (check.max_error, check.allowed_error, check.is_right());
            if row.right {
                ready.push(Ready {
                    row: rows.len(),
                    bound,
                    first_call_ms,
                });
            }
            rows.push(row);
            // The workspace of the call goes with the bound call.
            drop(attention);
        }
        Ok(Checked { operands, rows, ready })
    }

    /// Runs what was found right, the kernels in turn: the laps of each row, none where it is wrong or the CPU's.
    pub fn laps(&self, checked: &Checked) -> anyhow::Result<Vec<Vec<Lap>>> {
        let ready = &checked.ready;
        let mut laps = vec![Vec::new(); checked.rows.len()];
        if ready.is_empty() {
            return Ok(laps);
        }
        let of_ready = in_turn(self.budget, ready.len(), |job| {
            self.stopwatch.attention(&ready[job].bound)
        })?;
        for (ready, of_ready) in ready.iter().zip(of_ready) {
            laps[ready.row] = of_ready;
        }
        Ok(laps)
    }

    /// The rows, with the times of these laps.
    pub fn finish(&self, checked: Checked, laps: &[Vec<Lap>]) -> Vec<Row> {
        let Checked {
            operands,
            mut rows,
            ready,
        } = checked;
        let flops = flops(&operands.problem);
        for ready in &ready {
            let times = Times::of(&laps[ready.row]);
            let gflops = flops / times.median_ms * 1e-6;
            let gb_per_s = operands.bytes as f64 / times.median_ms * 1e-6;
            let [encode_us, finish_us] = self.stopwatch.encode_us(&ready.bound);
            rows[ready.row].speed = Some(Speed {
                times,
                first_call_ms: Some(ready.first_call_ms),
                encode_us: Some(encode_us),
                finish_us: Some(finish_us),
                gflops,
                gb_per_s,
                share_of_gflops: Some(gflops / self.floors.gflops),
                share_of_gb_per_s: Some(gb_per_s / self.floors.gb_per_s),
                share_timed: 1.0,
            });
        }
        rows
    }

    fn operands(&self, case: &Case) -> anyhow::Result<Operands> {
        let problem = Problem::new(&case.descriptor())?;
        // The streams 1, 2, 3 of seed 1 are what peers draw.
        let stream = self.seed.wrapping_mul(3).wrapping_sub(2);
        let numbers = |operand, index| -> anyhow::Result<Vec<f32>> {
            let bytes = problem.span_bytes(operand).unwrap_or(0);
            Ok(noise(stream.wrapping_add(index), usize::try_from(bytes / 4)?))
        };
        let host = [
            numbers(Operand::Query, 0)?,
            numbers(Operand::Key, 1)?,
            numbers(Operand::Value, 2)?,
        ];
        let gpu = [
            self.engine.upload(&host[0])?,
            self.engine.upload(&host[1])?,
            self.engine.upload(&host[2])?,
        ];
        let out = self.engine.allocate(problem.span_bytes(Operand::Out).unwrap_or(0))?;
        let bytes = gpu.iter().map(Tensor::bytes).sum::<u64>() + out.bytes();
        Ok(Operands {
            problem,
            host,
            gpu,
            out,
            bytes,
        })
    }

    fn bind(
        &self,
        case: &Case,
        algorithm: Algorithm,
        operands: &Operands,
    ) -> anyhow::Result<(Attention, BoundAttention)> {
        let attention = self.engine.prepare(&AttentionDescriptor {
            algorithm,
            ..case.descriptor()
        })?;
        let [query, key, value] = &operands.gpu;
        let bound = attention.bind(&Inputs::new(query, key, value), &OutputBuffers::new(&operands.out))?;
        Ok((attention, bound))
    }

    /// The computed rows, and NaN into `out` for the next kernel to overwrite.
    fn rows_of_out(&self, operands: &Operands, positions: &[[u32; 3]]) -> anyhow::Result<Vec<f32>> {
        let out = self.engine.read(&operands.out)?;
        let poison = vec![0xffu8; usize::try_from(operands.out.bytes())?];
        self.engine.queue().write_buffer(operands.out.buffer(), 0, &poison);
        let extent = operands.problem.extent(Operand::Out);
        let channels = operands.problem.shape().head_dim_v;
        let mut rows = Vec::new();
        for &[batch, head, row] in positions {
            for channel in 0..channels {
                let at = extent.map_or(0, |extent| extent.offset([batch, head, row, channel]));
                rows.push(out[usize::try_from(at)?]);
            }
        }
        Ok(rows)
    }

    /// Times the CPU, on a sample of rows where all would take too long.
    fn cpu(&self, operands: &Operands, case: &Case) -> anyhow::Result<Speed> {
        let sizes = case.sizes;
        let all = u64::from(sizes.batch) * u64::from(sizes.heads) * u64::from(sizes.seqlen_q);
        // Rows that lie evenly over the problem, since with a causal rule they differ.
        let position = |index: u64| {
            let row = index % u64::from(sizes.seqlen_q);
            let head = index / u64::from(sizes.seqlen_q) % u64::from(sizes.heads);
            let batch = index / u64::from(sizes.seqlen_q) / u64::from(sizes.heads);
            [batch as u32, head as u32, row as u32]
        };
        let (inputs, problem) = (operands.host(), &operands.problem);
        let mut rate = Vec::new();
        let start = Instant::now();
        let sample = all.min(64);
        let positions: Vec<_> = (0..sample).map(|index| position(index * all / sample)).collect();
        let whole = loop {
            let lap = Instant::now();
            std::hint::black_box(reference::rows_in(Precision::F32, problem, &inputs, &positions)?);
            rate.push(lap.elapsed().as_secs_f64() * 1e3 * all as f64 / sample as f64);
            if rate.len() >= 5 && start.elapsed() > self.budget / 4 || start.elapsed() > self.budget * 4 {
                break median(rate.iter().copied());
            }
        };
        let flops = flops(problem);
        Ok(Speed {
            times: Times {
                clock: Clock::Wall,
                runs: rate.len(),
                median_ms: whole,
                min_ms: rate.iter().copied().fold(f64::INFINITY, f64::min),
                max_ms: rate.iter().copied().fold(0.0, f64::max),
                wall_ms: whole,
            },
            first_call_ms: None,
            encode_us: None,
            finish_us: None,
            gflops: flops / whole * 1e-6,
            gb_per_s: operands.bytes as f64 / whole * 1e-6,
            share_of_gflops: None,
            share_of_gb_per_s: None,
            share_timed: sample as f64 / all as f64,
        })
    }

    /// What wgpu's allocator has given out on this device.
    fn device_bytes(&self) -> Option<u64> {
        // Frees what only waits to be freed.
        self.engine.wait().ok()?;
        Some(self.engine.device().generate_allocator_report()?.total_allocated_bytes)
    }
}

impl Kernel {
    /// All, in the order of the table.
    pub const ALL: [Kernel; 4] = [Kernel::Auto, Kernel::Fused, Kernel::ThreeKernels, Kernel::Cpu];
    /// Those that differ from each other.
    pub const DISTINCT: [Kernel; 3] = [Kernel::Fused, Kernel::ThreeKernels, Kernel::Cpu];

    fn algorithm(self) -> Option<Algorithm> {
        match self {
            Kernel::Auto => Some(Algorithm::Auto),
            Kernel::Fused => Some(Algorithm::Fused),
            Kernel::ThreeKernels => Some(Algorithm::ThreeKernels),
            Kernel::Cpu => None,
        }
    }

    /// Whether it computes without the device.
    pub fn is_cpu(self) -> bool {
        self.algorithm().is_none()
    }

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Auto => "as planned",
            Kernel::Fused => "fused",
            Kernel::ThreeKernels => "three kernels",
            Kernel::Cpu => "CPU, 1 thread",
        }
    }
}

/// The rows to compare: all of a small problem; of a large one the first, the last, and some between, in every head.
fn positions(case: &Case) -> Vec<[u32; 3]> {
    const MOST: f64 = 3e7;
    let Sizes {
        batch,
        heads,
        seqlen_q,
        seqlen_k,
        head_dim,
        head_dim_v,
        ..
    } = case.sizes;
    let row = f64::from(seqlen_k) * f64::from(head_dim + head_dim_v);
    let rows_a_head = (MOST / row / f64::from(batch * heads)).clamp(8.0, f64::from(seqlen_q.max(8))) as u32;
    let rows_a_head = rows_a_head.min(seqlen_q);
    let mut positions = Vec::new();
    for (index, head) in (0..).zip((0..batch * heads).map(|index| [index / heads, index % heads])) {
        for sample in 0..rows_a_head {
            // From the first to the last, each head's others shifted a little so that all places of a tile are met.
            let last = seqlen_q - 1;
            let even = u64::from(sample) * u64::from(last) / u64::from(rows_a_head.max(2) - 1);
            let inner = sample > 0 && sample + 1 < rows_a_head && rows_a_head < seqlen_q;
            let row = (even as u32 + if inner { index % 7 } else { 0 }).min(last);
            positions.push([head[0], head[1], row]);
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_to_compare_meet_every_head_and_both_ends() {
        for case in Case::read(None).unwrap() {
            let positions = positions(&case);
            let sizes = case.sizes;
            for head in 0..sizes.heads {
                assert!(positions.contains(&[0, head, 0]));
                assert!(positions.contains(&[0, head, sizes.seqlen_q - 1]));
            }
            if sizes.seqlen_q <= 128 {
                assert_eq!(
                    positions.len() as u32,
                    sizes.batch * sizes.heads * sizes.seqlen_q,
                    "{}",
                    case.name
                );
            }
        }
    }
}
