//! `attn bench`: how fast, and how near to what the device can do.

mod blocks;
pub mod cases;
mod first;
mod floors;
mod measure;
mod report;
pub mod stopwatch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::Problem;

use crate::device::{DeviceOptions, describe};
use crate::files;
use cases::{Case, flops};
use floors::Floors;
use measure::{Bench, Kernel};
use report::{Report, Skipped};
use stopwatch::Stopwatch;

/// Options of `attn bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only these cases (may be repeated), however long they take
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Only these sets: lesson, seqlen, models, memory (may be repeated)
    #[arg(long, value_name = "NAME")]
    set: Vec<String>,
    /// Cases of your own, in the columns of benches/cases.csv
    #[arg(long, value_name = "FILE.csv")]
    cases: Option<PathBuf>,
    /// Only these (may be repeated)
    #[arg(long, value_enum, value_name = "KERNEL")]
    kernel: Vec<KernelName>,
    /// Time for the repeated runs of each kernel on each case
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = positive)]
    seconds: f64,
    /// Leave out cases of which one run is expected to take longer
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS", value_parser = positive)]
    longest: f64,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead of cases: documents of equal length in a sequence of so many positions (a multiple of 128), whose other
    /// blocks a block mask closes
    #[arg(long, value_name = "SEQLEN", conflicts_with_all = ["case", "set", "cases", "csv"])]
    blocks: Option<u32>,
    /// Instead of times of repeated runs: the first call, in processes of its own, with the driver's cache of compiled kernels
    /// empty and filled (lesson-512, encoder-128, causal-1024 and decode-4096 unless --case or --set says otherwise)
    #[arg(long, conflicts_with_all = ["blocks", "csv"])]
    first: bool,
    /// What --first runs
    #[arg(long, hide = true)]
    first_in_this_process: bool,
    /// Write the results, a line each
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// What is measured, by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum KernelName {
    Fused,
    ThreeKernels,
    Cpu,
}

pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e6 => Ok(seconds),
        _ => Err("expected seconds, more than 0".into()),
    }
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.csv {
        files::check_writable(path)?;
    }
    if let Some(seqlen) = arguments.blocks {
        return measure_blocks(arguments, seqlen);
    }
    let cases = select(arguments)?;
    if arguments.first_in_this_process {
        return first::in_this_process(&cases, &arguments.device);
    }
    if arguments.first {
        return measure_first(arguments, &cases);
    }
    let kernels: Vec<Kernel> = match &arguments.kernel[..] {
        [] => Kernel::ALL.to_vec(),
        names => Kernel::ALL
            .into_iter()
            .filter(|&kernel| names.iter().any(|&name| Kernel::from(name) == kernel))
            .collect(),
    };
    let engine = arguments.device.engine()?;
    let progress = ProgressBar::new((cases.len() * kernels.len()) as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")?);
    progress.set_message("the device's own limits");
    progress.enable_steady_tick(Duration::from_millis(200));

    let stopwatch = Stopwatch::new(&engine)?;
    let floors = Floors::measure(&engine, &stopwatch)?;
    let bench = Bench {
        engine: &engine,
        stopwatch: &stopwatch,
        floors,
        kernels: &kernels,
        budget: Duration::from_secs_f64(arguments.seconds),
        seed: arguments.seed,
    };
    let mut report = Report {
        device: describe(&engine),
        floors,
        clock: stopwatch.clock(),
        overhead_ms: stopwatch.overhead_ms()?,
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    // How much slower than the floor the cases so far were: what the next one is expected to be.
    let mut slowest = 10.0;
    for case in &cases {
        let floor_ms = floors.floor_ms(flops(&Problem::new(&case.descriptor())?), 0.0);
        let expected_s = floor_ms * slowest * 1e-3;
        if arguments.case.is_empty() && expected_s > arguments.longest {
            report.skipped.push(Skipped {
                case: case.name.clone(),
                why: format!(
                    "one run would take about {expected_s:.0} s; --case {} runs it all the same",
                    case.name
                ),
            });
            progress.inc(kernels.len() as u64);
            continue;
        }
        let rows = bench.case(case, |kernel| {
            progress.set_message(format!("{}, {}", case.name, kernel.name()));
            progress.inc(1);
        })?;
        let shares = rows.iter().filter_map(|row| row.speed.as_ref()?.share_of_gflops);
        if case.sizes.seqlen_q >= 256 {
            slowest = shares.fold(f64::INFINITY, f64::min).recip().max(1.0);
        }
        report.rows.extend(rows);
    }
    progress.finish_and_clear();

    if let Some(path) = &arguments.csv {
        report.write_csv(path)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
        if let Some(path) = &arguments.csv {
            anstream::println!("wrote {}", path.display());
        }
    }
    if !report.is_right() {
        anstream::eprintln!("attn: some results are wrong; please report this adapter and driver");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a block mask saves, for documents of equal length.
fn measure_blocks(arguments: &Arguments, seqlen: u32) -> anyhow::Result<ExitCode> {
    let engine = arguments.device.engine()?;
    let stopwatch = Stopwatch::new(&engine)?;
    let budget = Duration::from_secs_f64(arguments.seconds);
    let rows = blocks::measure(&engine, &stopwatch, seqlen, budget)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        anstream::println!("{}\n", describe(&engine));
        blocks::print(&rows);
    }
    Ok(if rows.iter().all(|row| row.right) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What the first call takes.
fn measure_first(arguments: &Arguments, cases: &[Case]) -> anyhow::Result<ExitCode> {
    let usual = ["lesson-512", "encoder-128", "causal-1024", "decode-4096"];
    let all = arguments.cases.is_none() && arguments.case.is_empty() && arguments.set.is_empty();
    let wanted = cases.iter().filter(|case| !all || usual.contains(&case.name.as_str()));
    let progress = ProgressBar::new(0);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let rows = first::measure(wanted, arguments.cases.as_deref(), &arguments.device, &progress)?;
    progress.finish_and_clear();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        first::print(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn select(arguments: &Arguments) -> anyhow::Result<Vec<Case>> {
    let all = Case::read(arguments.cases.as_deref())?;
    let known = |what: &str, wanted: &[String], name: fn(&Case) -> &str| {
        for wanted in wanted {
            let mut names: Vec<_> = all.iter().map(name).collect();
            names.dedup();
            anyhow::ensure!(
                names.contains(&wanted.as_str()),
                "no {what} {wanted:?}; there are {}",
                names.join(", ")
            );
        }
        Ok(())
    };
    known("case", &arguments.case, |case| &case.name)?;
    known("set", &arguments.set, |case| &case.set)?;
    let everything = arguments.case.is_empty() && arguments.set.is_empty();
    let wanted = |case: &Case| everything || arguments.case.contains(&case.name) || arguments.set.contains(&case.set);
    Ok(all.iter().filter(|case| wanted(case)).cloned().collect())
}

impl From<KernelName> for Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Fused => Kernel::Fused,
            KernelName::ThreeKernels => Kernel::ThreeKernels,
            KernelName::Cpu => Kernel::Cpu,
        }
    }
}
