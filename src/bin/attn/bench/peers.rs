//! Other engines beside ours: each in a process of its own, on the same cases, inputs and adapter, checked before its time
//! counts, and ours measured right before and right after.

mod engine;
mod line;
mod process;
pub mod record;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use anyhow::Context as _;

use super::cases::Case;
use super::measure::{Bench, Row};
use super::noise;
use super::stopwatch::{Lap, median};
pub use engine::{Engine, RunsOn};
use line::{Answer, Dtype, Outcome};
use record::{OURS, Record, Status, rounded};

/// Measures cases with several engines.
pub struct Comparison<'a> {
    pub bench: &'a Bench<'a>,
    pub device: String,
    /// Those that are at hand.
    pub peers: Vec<Peer>,
    /// The most that one process may take.
    pub limit: Duration,
    /// What the peers are told to use; None: what the environment says.
    pub adapter: Option<String>,
    scratch: Scratch,
}

/// An engine and how it is started.
pub struct Peer {
    pub engine: Engine,
    command: Command,
}

/// A folder for the references that peers compute and share, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("attn-peers-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in a folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The engines of a folder, or those of them that are named.
pub fn select(folder: &Path, names: &[String]) -> anyhow::Result<Vec<Engine>> {
    let mut engines = Engine::read_all(folder)?;
    for name in names {
        let known: Vec<_> = engines.iter().map(Engine::name).collect();
        anyhow::ensure!(
            known.contains(&name.as_str()),
            "no engine {name:?}; there are {}",
            known.join(", ")
        );
    }
    engines.retain(|engine| names.is_empty() || names.iter().any(|name| name == engine.name()));
    Ok(engines)
}

/// The peers that can run here, and why the others cannot.
pub fn at_hand(engines: Vec<Engine>) -> (Vec<Peer>, Vec<(Engine, String)>) {
    let mut peers = Vec::new();
    let mut others = Vec::new();
    for engine in engines {
        match engine.command() {
            Ok(command) => peers.push(Peer { engine, command }),
            Err(why) => others.push((engine, why)),
        }
    }
    (peers, others)
}

impl<'a> Comparison<'a> {
    pub fn new(bench: &'a Bench<'a>, device: String, peers: Vec<Peer>, limit: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            bench,
            device,
            peers,
            limit,
            adapter: None,
            scratch: Scratch::new()?,
        })
    }

    /// Ours and every peer on one case, ours first. `step` is told who is next.
    pub fn case(&mut self, case: &Case, mut step: impl FnMut(&str)) -> anyhow::Result<Vec<Record>> {
        step(OURS);
        let checked = self.bench.check(case, |_| {})?;
        let first = checked.rows().iter().position(|row| row.right);
        let allowed_error = checked.rows().iter().map(|row| row.allowed_error).fold(0.0, f64::max);
        let wall = |laps: &[Vec<Lap>]| -> Vec<f64> {
            first.map_or(Vec::new(), |row| laps[row].iter().map(|lap| lap.wall_ms).collect())
        };
        let mut all = self.bench.laps(&checked)?;
        let mut before = wall(&all);
        let mut records = Vec::new();
        for index in 0..self.peers.len() {
            step(self.peers[index].engine.name());
            let answers = self.ask(index, case);
            step(OURS);
            let laps = self.bench.laps(&checked)?;
            let after = wall(&laps);
            let ours_ms = Some(median(before.iter().chain(&after).copied())).filter(|ms| ms.is_finite());
            for answer in answers {
                records.push(self.record(case, &self.peers[index].engine, answer, ours_ms, allowed_error));
            }
            for (all, laps) in all.iter_mut().zip(laps) {
                all.extend(laps);
            }
            before = after;
        }
        let rows = self.bench.finish(checked, &all);
        let ours = rows
            .iter()
            .zip(&all)
            .map(|(row, laps)| self.our_record(case, row, laps));
        Ok(ours.chain(records).collect())
    }

    /// Runs a peer's process; what goes wrong is an answer, too.
    fn ask(&mut self, index: usize, case: &Case) -> Vec<Result<Answer, String>> {
        let seconds = self.bench.budget.as_secs_f64().to_string();
        let peer = &mut self.peers[index];
        peer.command
            .env("ATTN_CASE", case.line())
            .env("ATTN_SECONDS", seconds)
            .env("ATTN_REFERENCES", &self.scratch.0);
        if let Some(adapter) = &self.adapter {
            peer.command.env("WGPU_ADAPTER_NAME", adapter);
        }
        let finished = match process::run(&mut peer.command, self.limit) {
            Ok(finished) => finished,
            Err(error) => return vec![Err(error.to_string())],
        };
        let mut answers = line::parse(&finished.stdout, &case.name);
        // A process may fail after some answers, which count all the same.
        if let Some(why) = finished.failure() {
            answers.push(Err(why));
        } else if answers.is_empty() {
            let words = finished.last_words().or(finished.stdout.lines().next());
            answers.push(Err(format!(
                "no line of results: {}",
                words.unwrap_or("it printed nothing")
            )));
        }
        answers
    }

    fn record(
        &self,
        case: &Case,
        engine: &Engine,
        answer: Result<Answer, String>,
        ours_ms: Option<f64>,
        allowed_error: f64,
    ) -> Record {
        let mut record = self.blank(case);
        engine.name().clone_into(&mut record.engine);
        engine.version().clone_into(&mut record.version);
        record.runs_on = engine.runs_on();
        record.ours_ms = ours_ms.map(|ms| rounded(ms, 5));
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => {
                record.message = why;
                return record;
            }
        };
        record.variant = answer.variant;
        record.adapter = answer.adapter;
        answer.dtype.name().clone_into(&mut record.dtype);
        if !answer.version.is_empty() {
            record.version = answer.version;
        }
        match answer.outcome {
            Outcome::Failed(why) => record.message = why,
            Outcome::Skipped(why) => {
                record.status = Status::Skipped;
                record.message = why;
            }
            Outcome::Measured(measured) => {
                let allowed_error = allowed_to_peers(allowed_error, answer.dtype);
                let right = measured.max_abs_err <= allowed_error;
                record.status = if right { Status::Right } else { Status::Wrong };
                record.max_abs_err = Some(rounded(measured.max_abs_err, 3));
                record.allowed_error = Some(rounded(allowed_error, 3));
                record.runs = Some(measured.runs);
                record.median_ms = Some(rounded(measured.median_ms, 5));
                record.min_ms = Some(rounded(measured.min_ms, 5));
                record.first_ms = measured.first_ms.map(|ms| rounded(ms, 5));
                record.ours_over_this = ours_ms.filter(|_| right).map(|ms| rounded(ms / measured.median_ms, 4));
            }
        }
        record
    }

    fn our_record(&self, case: &Case, row: &Row, laps: &[Lap]) -> Record {
        let speed = row.speed.as_ref();
        let min_ms = laps.iter().map(|lap| lap.wall_ms).reduce(f64::min);
        let wall_ms = speed.map(|speed| rounded(speed.times.wall_ms, 5));
        let on_cpu = row.kernel.is_cpu();
        Record {
            engine: OURS.into(),
            variant: row.kernel.name().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            runs_on: if on_cpu { RunsOn::Cpu } else { RunsOn::Gpu },
            adapter: if on_cpu { "CPU".into() } else { self.device.clone() },
            status: if row.right { Status::Right } else { Status::Wrong },
            max_abs_err: Some(rounded(row.max_error, 3)),
            allowed_error: Some(rounded(row.allowed_error, 3)),
            runs: speed.map(|speed| speed.times.runs as u64),
            median_ms: wall_ms,
            min_ms: min_ms
                .or(speed.map(|speed| speed.times.min_ms))
                .map(|ms| rounded(ms, 5)),
            first_ms: speed.and_then(|speed| speed.first_call_ms).map(|ms| rounded(ms, 5)),
            ours_ms: wall_ms,
            ..self.blank(case)
        }
    }

    /// A record of nobody, which failed.
    fn blank(&self, case: &Case) -> Record {
        let sizes = case.sizes;
        Record {
            device: self.device.clone(),
            device_gflops: rounded(self.bench.floors.gflops, 5),
            device_gb_per_s: rounded(self.bench.floors.gb_per_s, 5),
            case: case.name.clone(),
            batch: sizes.batch,
            heads: sizes.heads,
            kv_heads: sizes.kv_heads,
            seqlen_q: sizes.seqlen_q,
            seqlen_k: sizes.seqlen_k,
            head_dim: sizes.head_dim,
            head_dim_v: sizes.head_dim_v,
            causal: sizes.causal,
            engine: String::new(),
            variant: String::new(),
            version: String::new(),
            runs_on: RunsOn::Gpu,
            adapter: String::new(),
            dtype: Dtype::F32.name().into(),
            status: Status::Failed,
            max_abs_err: None,
            allowed_error: None,
            runs: None,
            median_ms: None,
            min_ms: None,
            first_ms: None,
            ours_ms: None,
            ours_over_this: None,
            message: String::new(),
        }
    }
}

/// Sixteen times what ours is allowed, so that nobody is called wrong for a quicker `exp`; and where the storage is
/// narrower than `f32`, four units of it in the largest value, for weights and outputs that are rounded to it.
fn allowed_to_peers(ours: f64, dtype: Dtype) -> f64 {
    let storage = match dtype {
        Dtype::F32 => 0.0,
        narrow => 4.0 * narrow.epsilon() * noise::LARGEST,
    };
    16.0 * ours + storage
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_storage_is_allowed_its_rounding() {
        assert_eq!(allowed_to_peers(1e-6, Dtype::F32), 16e-6);
        let f16 = allowed_to_peers(1e-6, Dtype::F16);
        let bf16 = allowed_to_peers(1e-6, Dtype::Bf16);
        assert!(f16 > 0.005 && f16 < 0.02, "{f16}");
        assert!(bf16 > 7.0 * f16 && bf16 < 8.0 * f16, "{bf16}");
    }
}
