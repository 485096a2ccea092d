//! `attn fuzz`: random requests, right and wrong; each must give a right answer or the error that it deserves.

mod case;
mod compare;
mod data;
mod draw;
mod fault;
mod judge;
mod mods;
mod mould;
mod report;
mod request;
mod rope;
mod run;
#[cfg(test)]
mod tests;
mod wild;

use std::panic::{self, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::Engine;

use crate::device::{DeviceOptions, describe};
use case::Case;
use judge::Ending;
use mould::BLOCK;
use report::{Failure, Report};

/// Options of `attn fuzz`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many cases (default 2000, or as many as --seconds allows)
    #[arg(long, value_name = "N")]
    cases: Option<u64>,
    /// Seed of all cases: each is drawn from it and its number alone
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin no case after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// Number of the first case
    #[arg(long, value_name = "I", default_value_t = 0)]
    first: u64,
    /// Say of each case what it asks for and how it ends
    #[arg(long, short)]
    verbose: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let engine = arguments.device.engine()?;
    let mut fuzzer = Fuzzer::new(engine, arguments.seed);
    let cases = match (arguments.cases, arguments.seconds) {
        (Some(cases), _) => cases,
        (None, Some(_)) => u64::MAX,
        (None, None) => 2000,
    };
    let end = arguments.first.saturating_add(cases);
    let start = Instant::now();
    let progress = progress(arguments, cases)?;
    let mut report = Report {
        device: describe(&fuzzer.engine),
        seed: arguments.seed,
        first: arguments.first,
        ..Report::default()
    };
    for number in arguments.first..end {
        if arguments
            .seconds
            .is_some_and(|seconds| start.elapsed().as_secs_f64() >= seconds)
        {
            break;
        }
        let begun = Instant::now();
        let result = fuzzer.case(number, arguments.verbose);
        report.add(number, begun.elapsed().as_secs_f64() * 1e3, result);
        progress.set_message(format!("{} failed", report.failed));
        match cases {
            u64::MAX => progress.set_position(start.elapsed().as_millis() as u64),
            _ => progress.inc(1),
        }
    }
    progress.finish_and_clear();
    report.seconds = start.elapsed().as_secs_f64();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(match report.failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Counts cases, or milliseconds where only time ends the run.
fn progress(arguments: &Arguments, cases: u64) -> anyhow::Result<ProgressBar> {
    let (len, template) = match arguments.seconds {
        Some(seconds) if cases == u64::MAX => ((seconds * 1e3) as u64, "{bar:30} {elapsed} {msg}"),
        _ => (cases, "{bar:30} {pos}/{len} {elapsed} {msg}"),
    };
    let progress = ProgressBar::new(len);
    progress.set_style(ProgressStyle::with_template(template)?);
    progress.enable_steady_tick(Duration::from_millis(200));
    Ok(progress)
}

/// What goes wrong beside what a call returns: panics, and errors of wgpu that no scope caught.
type Noise = Arc<Mutex<Vec<String>>>;

/// Runs cases one after another.
struct Fuzzer {
    engine: Engine,
    seed: u64,
    /// The engine of a block of cases, with the capabilities that these have: an engine keeps all that it ever compiled.
    of_block: Option<(u64, Engine)>,
    noise: Noise,
}

impl Fuzzer {
    fn new(engine: Engine, seed: u64) -> Self {
        let noise = Noise::default();
        let panics = Arc::clone(&noise);
        panic::set_hook(Box::new(move |info| note(&panics, format!("panic: {info}"))));
        let errors = Arc::clone(&noise);
        engine.device().on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            note(&errors, format!("uncaptured: {error}"))
        }));
        Self {
            engine,
            seed,
            of_block: None,
            noise,
        }
    }

    fn case(&mut self, number: u64, verbose: bool) -> Result<Ending, Failure> {
        let block = number / BLOCK;
        self.of_block.take_if(|(held, _)| *held != block);
        let mut drawn = None;
        let judged = panic::catch_unwind(AssertUnwindSafe(|| {
            let case = drawn.insert(Case::draw(self.seed, number, self.engine.caps()));
            let (_, engine) = (self.of_block).get_or_insert_with(|| (block, self.engine.with_caps(case.caps.clone())));
            if verbose {
                anstream::println!("case {number}: {}", case.describe());
            }
            judge::judge(engine, case)
        }));
        let noise = std::mem::take(&mut *self.noise.lock().unwrap_or_else(PoisonError::into_inner));
        let result = match judged {
            Ok(Ok(ending)) if noise.is_empty() => Ok(ending),
            Ok(Ok(_)) | Err(_) => Err(noise.join("; ")),
            Ok(Err(what)) => Err(std::iter::once(what).chain(noise).collect::<Vec<_>>().join("; ")),
        };
        if verbose {
            anstream::println!("  {result:?}\n");
        }
        result.map_err(|what| Failure {
            case: number,
            what,
            request: drawn.map_or_else(String::new, |case| case.describe()),
        })
    }
}

fn note(noise: &Noise, what: String) {
    noise.lock().unwrap_or_else(PoisonError::into_inner).push(what);
}
