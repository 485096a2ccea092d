//! `attn bench`: how fast, and how near to what the device can do.

mod blocks;
pub mod cases;
mod chart;
mod first;
mod floors;
mod html;
mod measure;
mod noise;
mod peers;
mod report;
pub mod stopwatch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use wgpu_attention::Problem;

use crate::device::{DeviceOptions, describe};
use crate::files;
use cases::{Case, flops};
use floors::Floors;
use html::Page;
use measure::{Bench, Kernel};
use peers::{Comparison, record};
use report::{Report, Skipped};
use stopwatch::Stopwatch;

/// Options of `attn bench`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Only these cases (may be repeated), however long they take
    #[arg(long, value_name = "NAME")]
    case: Vec<String>,
    /// Only these sets: lesson, seqlen, models, memory, peers (may be repeated)
    #[arg(long, value_name = "NAME")]
    set: Vec<String>,
    /// Cases of your own, in the columns of benches/cases.csv
    #[arg(long, value_name = "FILE.csv")]
    cases: Option<PathBuf>,
    /// Only these (may be repeated)
    #[arg(long, value_enum, value_name = "KERNEL")]
    kernel: Vec<KernelName>,
    /// Time for the repeated runs of each kernel on each case
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", value_parser = positive, allow_negative_numbers = true)]
    seconds: f64,
    /// Leave out cases of which one run is expected to take longer
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS", value_parser = positive, allow_negative_numbers = true)]
    longest: f64,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 1, conflicts_with = "peers")]
    seed: u64,
    /// Instead of cases: documents of equal length in a sequence of so many positions (a multiple of 128), whose other
    /// blocks a block mask closes
    #[arg(long, value_name = "SEQLEN", conflicts_with_all = ["case", "set", "cases", "csv"])]
    blocks: Option<u32>,
    /// Instead of times of repeated runs: the first call, in processes of its own, with the driver's cache of compiled kernels
    /// empty and filled (lesson-512, encoder-128, causal-1024 and decode-4096 unless --case or --set says otherwise)
    #[arg(long, conflicts_with_all = ["blocks", "csv", "peers", "record", "html"])]
    first: bool,
    /// What --first runs
    #[arg(long, hide = true)]
    first_in_this_process: bool,
    /// Measure other engines beside ours (the set `peers` unless others are named): those of the engines' folder that are
    /// at hand, each in a process of its own
    #[arg(long, conflicts_with = "blocks")]
    peers: bool,
    /// Of the other engines only these (may be repeated)
    #[arg(long, value_name = "ENGINE", requires = "peers")]
    peer: Vec<String>,
    /// Where the other engines' files are
    #[arg(long, value_name = "DIR", default_value = "benches/engines")]
    engines: PathBuf,
    /// The most that another engine may take for one case, compiling, tuning and checking included
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS", value_parser = positive, allow_negative_numbers = true)]
    peer_limit: f64,
    /// Instead of measuring: what `--peers --csv` wrote, as Markdown
    #[arg(long, value_name = "FILE.csv", conflicts_with_all = ["peers", "case", "set", "cases", "csv", "blocks", "json"])]
    record: Option<PathBuf>,
    /// Write a page with the roofline and the time against sequence length
    #[arg(long, value_name = "FILE", conflicts_with = "blocks")]
    html: Option<PathBuf>,
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
    Auto,
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
    for path in arguments.csv.iter().chain(&arguments.html) {
        files::check_writable(path)?;
    }
    if let Some(path) = &arguments.record {
        return show_record(arguments, path);
    }
    if let Some(seqlen) = arguments.blocks {
        return measure_blocks(arguments, seqlen);
    }
    if arguments.peers {
        return measure_peers(arguments);
    }
    let cases = select(arguments)?;
    if arguments.first_in_this_process {
        return first::in_this_process(&cases, &arguments.device);
    }
    if arguments.first {
        return measure_first(arguments, &cases);
    }
    let kernels = kernels(arguments, &Kernel::DISTINCT);
    let engine = arguments.device.engine()?;
    let progress = progress(cases.len() * kernels.len(), arguments.seconds)?;
    let stopwatch = Stopwatch::new(&engine)?;
    let bench = Bench {
        engine: &engine,
        stopwatch: &stopwatch,
        floors: Floors::measure(&engine, &stopwatch)?,
        kernels: &kernels,
        budget: Duration::from_secs_f64(arguments.seconds),
        seed: arguments.seed,
    };
    let mut report = Report {
        device: describe(&engine),
        floors: bench.floors,
        clock: stopwatch.clock(),
        overhead_ms: stopwatch.overhead_ms()?,
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    // How much slower than the floor the cases so far were: what the next one is expected to be.
    let mut slowest = 10.0;
    for case in &cases {
        let floor_ms = bench.floors.floor_ms(flops(&Problem::new(&case.descriptor())?), 0.0);
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
    if let Some(path) = &arguments.html {
        Page::of_report(&report).write(path)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
        say_what_was_written(arguments);
    }
    Ok(verdict(report.is_right()))
}

/// Other engines beside ours.
fn measure_peers(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cases = select(arguments)?;
    let (peers, others) = peers::at_hand(peers::select(&arguments.engines, &arguments.peer)?);
    let kernels = kernels(arguments, &[Kernel::Auto]);
    let engine = arguments.device.engine()?;
    let progress = progress(cases.len() * (peers.len() + 1), arguments.seconds)?;
    let stopwatch = Stopwatch::by_wall(&engine);
    let bench = Bench {
        engine: &engine,
        stopwatch: &stopwatch,
        floors: Floors::measure(&engine, &Stopwatch::new(&engine)?)?,
        kernels: &kernels,
        budget: Duration::from_secs_f64(arguments.seconds),
        seed: arguments.seed,
    };
    let limit = Duration::from_secs_f64(arguments.peer_limit);
    let mut comparison = Comparison::new(&bench, describe(&engine), peers, limit)?;
    comparison.adapter.clone_from(&arguments.device.adapter);
    let mut records = Vec::new();
    for case in &cases {
        records.extend(comparison.case(case, |name| {
            progress.set_message(format!("{}, {name}", case.name));
        })?);
        progress.inc(comparison.peers.len() as u64 + 1);
    }
    progress.finish_and_clear();

    if let Some(path) = &arguments.csv {
        files::write_whole(path, &record::to_csv(&records)?)?;
    }
    if let Some(path) = &arguments.html {
        Page::of_records(&records).write(path)?;
    }
    if arguments.json {
        let skipped: Vec<_> = others
            .iter()
            .map(|(engine, why)| serde_json::json!({ "engine": engine.name(), "why": why }))
            .collect();
        let report = serde_json::json!({ "records": records, "skipped": skipped });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        anstream::println!("{}\n\n{}\n", comparison.device, record::table(&records));
        anstream::println!(
            "ms: median by the wall clock, submission and wait included; ours then: our own right before and after; ours / this: \
             less than 1 where ours is faster;\n(ms): the result is wrong, so the time is worth nothing; on: GPU, the adapter above, \
             or CPU, without it"
        );
        for peer in &comparison.peers {
            anstream::println!("{}: {}", peer.engine.name(), peer.engine.known());
        }
        for (engine, why) in &others {
            anstream::println!("skipped {}: {why}", engine.name());
        }
        say_what_was_written(arguments);
    }
    // What others get wrong is no failure of this command.
    let ours = records.iter().filter(|record| record.engine == record::OURS);
    Ok(verdict(
        ours.clone().all(|record| record.status == record::Status::Right),
    ))
}

/// A record once more.
fn show_record(arguments: &Arguments, path: &Path) -> anyhow::Result<ExitCode> {
    let records = record::read_csv(path)?;
    print!("{}", record::markdown(&records));
    if let Some(path) = &arguments.html {
        Page::of_records(&records).write(path)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn kernels(arguments: &Arguments, otherwise: &[Kernel]) -> Vec<Kernel> {
    if arguments.kernel.is_empty() {
        return otherwise.to_vec();
    }
    let is_named = |kernel: &Kernel| arguments.kernel.iter().any(|&name| Kernel::from(name) == *kernel);
    Kernel::ALL.into_iter().filter(is_named).collect()
}

/// How far the measurements are; where that cannot be shown, how many there will be.
fn progress(steps: usize, seconds: f64) -> anyhow::Result<ProgressBar> {
    let progress = ProgressBar::new(steps as u64);
    if progress.is_hidden() {
        anstream::eprintln!(
            "{steps} measurements of about {seconds} s each, besides compiling and comparing; the table follows the last"
        );
    }
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")?);
    progress.set_message("the device's own limits");
    progress.enable_steady_tick(Duration::from_millis(200));
    Ok(progress)
}

fn say_what_was_written(arguments: &Arguments) {
    for path in arguments.csv.iter().chain(&arguments.html) {
        anstream::println!("wrote {}", path.display());
    }
}

fn verdict(right: bool) -> ExitCode {
    if right {
        return ExitCode::SUCCESS;
    }
    anstream::eprintln!("attn: some results are wrong; please report this adapter and driver");
    ExitCode::FAILURE
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
        anstream::println!("{}\n", describe(&arguments.device.engine()?));
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
    let nothing_named = arguments.case.is_empty() && arguments.set.is_empty();
    // A file of one's own is wanted whole; of the built-in cases, the peers' are sizes of other sets once more.
    let otherwise = |case: &Case| arguments.cases.is_some() || (case.set == cases::PEERS) == arguments.peers;
    let wanted = |case: &Case| {
        arguments.case.contains(&case.name) || arguments.set.contains(&case.set) || nothing_named && otherwise(case)
    };
    Ok(all.iter().filter(|case| wanted(case)).cloned().collect())
}

impl From<KernelName> for Kernel {
    fn from(name: KernelName) -> Self {
        match name {
            KernelName::Auto => Kernel::Auto,
            KernelName::Fused => Kernel::Fused,
            KernelName::ThreeKernels => Kernel::ThreeKernels,
            KernelName::Cpu => Kernel::Cpu,
        }
    }
}
