//! `attn tune`: which kernels are fastest on this device, measured, checked and saved.

mod classes;
mod measure;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wgpu_attention::{Engine, TunedChoice, Tuning};

use crate::bench::stopwatch::Stopwatch;
use crate::device::{DeviceOptions, describe};
use crate::files;
use classes::Example;
use measure::{Outcome, Tuner};

/// Options of `attn tune`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Time for all of it; what is being compiled or measured when it is up is finished, and the classes that it does not suffice
    /// for keep what they have
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS", value_parser = crate::bench::positive)]
    seconds: f64,
    /// Only these classes of problems (may be repeated): ROWS-HEAD_DIM[-causal]-TYPE, as in many-64-causal-f16, where ROWS is few
    /// (at most 8 query rows), some (at most 256) or many
    #[arg(long, value_name = "CLASS")]
    case: Vec<String>,
    /// Measure, but save nothing
    #[arg(long)]
    dry_run: bool,
    /// Where to save (else the file of ATTN_TUNING, else one in the user's cache folder)
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

/// Everything measured.
#[derive(Serialize)]
struct Report {
    device: String,
    seconds: f64,
    classes: Vec<Outcome>,
    /// Those for which the time did not suffice.
    left_out: Vec<String>,
    /// Where it was saved.
    file: Option<PathBuf>,
    /// What it takes for engines to read that.
    unread: Option<String>,
}

/// Runs the command. The file is written at the very end, whole: who interrupts it keeps the old one.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let examples = Example::select(&arguments.case)?;
    let engine = arguments.device.engine_without_tuning()?;
    let path = match arguments.dry_run {
        true => None,
        false => Some(path(arguments, &engine)?),
    };
    let stopwatch = Stopwatch::new(&engine)?;
    let progress = ProgressBar::new(examples.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")?);
    progress.enable_steady_tick(Duration::from_millis(200));
    let start = Instant::now();
    let tuner = Tuner {
        engine: &engine,
        stopwatch: &stopwatch,
        deadline: start + Duration::from_secs_f64(arguments.seconds),
    };
    let mut report = Report {
        device: describe(&engine),
        seconds: 0.0,
        classes: Vec::new(),
        left_out: Vec::new(),
        file: None,
        unread: None,
    };
    let mut longest = Duration::ZERO;
    for example in &examples {
        // A class of which only some tiles were measured would be no choice.
        if !report.classes.is_empty() && Instant::now() + longest > tuner.deadline {
            report.left_out.push(example.class.to_string());
            continue;
        }
        let begin = Instant::now();
        report
            .classes
            .push(tuner.class(example, |what| progress.set_message(what))?);
        progress.inc(1);
        longest = longest.max(begin.elapsed());
    }
    progress.finish_and_clear();
    report.seconds = start.elapsed().as_secs_f64();

    if let Some(path) = path {
        merged(&report.classes, &path, &engine).save(&path, engine.caps())?;
        report.unread = unread(&path, &engine);
        report.file = Some(path);
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    if report.classes.iter().any(Outcome::has_wrong_results) {
        anstream::eprintln!("attn: some results are wrong; please report this adapter and driver");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where to save, known to be writable before anything is measured.
fn path(arguments: &Arguments, engine: &Engine) -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("ATTN_TUNING").filter(|value| !value.is_empty() && value != "off");
    let path = (arguments.file.clone())
        .or_else(|| named.map(PathBuf::from))
        .or_else(|| Tuning::user_path(engine.caps()))
        .context("there is no cache folder, nor a home; --file says where to save")?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    files::check_writable(&path)?;
    Ok(path)
}

/// What is new, and what the file has of other classes.
fn merged(outcomes: &[Outcome], path: &Path, engine: &Engine) -> Tuning {
    // A file that is stale or corrupt is replaced.
    let mut tuning = Tuning::load(path, engine.caps()).unwrap_or_default();
    let measured = |choice: &TunedChoice| outcomes.iter().any(|outcome| outcome.class == choice.class);
    tuning.choices.retain(|choice| !measured(choice));
    let date = date(SystemTime::now());
    let new = outcomes.iter().filter_map(|outcome| {
        let chosen = outcome.chosen()?;
        Some(TunedChoice {
            date: date.clone(),
            class: outcome.class,
            tile: chosen.tile.clone()?,
            median_ms: chosen.median_ms?,
            default_ms: outcome.default_ms()?,
        })
    });
    tuning.choices.extend(new);
    tuning
}

/// Which file engines read, if it is not this one.
fn unread(path: &Path, engine: &Engine) -> Option<String> {
    match std::env::var_os("ATTN_TUNING").filter(|value| !value.is_empty()) {
        Some(value) if value == "off" => Some("engines do not read it while ATTN_TUNING is off".into()),
        Some(value) if Path::new(&value) == path => None,
        None if Tuning::user_path(engine.caps()).is_some_and(|own| own == path) => None,
        _ => Some(format!("engines read it where ATTN_TUNING={}", path.display())),
    }
}

fn print(report: &Report) {
    anstream::println!("{}\n", report.device);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "class",
        "sizes",
        "kernel",
        "ms",
        "first call, ms",
        "of the built-in",
        "",
    ]);
    for outcome in &report.classes {
        for (index, row) in outcome.rows.iter().enumerate() {
            let heading = |text: &str| if index == 0 { text.to_owned() } else { String::new() };
            let share = row
                .median_ms
                .zip(outcome.default_ms())
                .map(|(ms, default)| ms / default);
            table.add_row([
                heading(&outcome.class.to_string()),
                heading(&outcome.sizes),
                row.name.clone(),
                row.median_ms
                    .map_or_else(|| format!("> {:.3}", row.rough_ms), |ms| format!("{ms:.3}")),
                format!("{:.0}", row.first_call_ms),
                share.map_or(String::new(), |share| format!("{share:.2}")),
                match (row.right, outcome.chosen == Some(index)) {
                    (false, _) => "WRONG",
                    (true, true) => "chosen",
                    (true, false) => "",
                }
                .to_owned(),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(3).take(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    anstream::println!("{}", table.trim_fmt());
    anstream::println!(
        "\n> the shortest of a few runs, too far behind for more; a class of which no row says chosen keeps its built-in kernel"
    );
    for outcome in report.classes.iter().filter(|outcome| outcome.untried > 0) {
        let Outcome { class, untried, .. } = outcome;
        anstream::println!("{class}: {untried} further tiles were not tried for want of time (--seconds)");
    }
    if !report.left_out.is_empty() {
        anstream::println!(
            "not measured for want of time (--seconds gives more, --case picks some): {}",
            report.left_out.join(", ")
        );
    }
    match &report.file {
        Some(path) => anstream::println!("saved to {}", path.display()),
        None => anstream::println!("nothing saved (--dry-run)"),
    }
    if let Some(unread) = &report.unread {
        anstream::println!("{unread}");
    }
}

/// The day in UTC, as `2026-11-25`.
fn date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut days = seconds / 86_400;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        let day = |days: u64| date(UNIX_EPOCH + Duration::from_secs(86_400 * days + 86_399));
        // As `date -u -d @SECONDS` has them.
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(31 + 28), "1970-03-01");
        assert_eq!(day(11_016), "2000-02-29");
        assert_eq!(day(11_017), "2000-03-01");
        assert_eq!(day(20_782), "2026-11-25");
        assert_eq!(day(20_818), "2026-12-31");
        assert_eq!(day(20_819), "2027-01-01");
    }
}
