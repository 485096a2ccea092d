//! What the first call takes, from preparing it to its end: in a process of its own, since a process compiles a kernel only once,
//! with the driver's cache of compiled kernels in a folder of ours: empty, then as the run before left it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use wgpu_attention::{Engine, Inputs, Operand, OutputBuffers, Problem, Tuning};

use super::cases::Case;
use super::stopwatch::median;
use crate::device::DeviceOptions;

/// Medians of some pairs of processes.
#[derive(Debug, Serialize)]
pub struct Row {
    case: String,
    sizes: String,
    processes: usize,
    /// With nothing compiled before.
    cold: First,
    /// With what the cold process left.
    warm: First,
}

/// Times of one process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct First {
    /// Finding the adapter and opening the device.
    device_ms: f64,
    /// Planning, compiling and binding.
    prepare_ms: f64,
    /// All of that and the first run, to its end.
    first_call_ms: f64,
}

/// Pairs of processes for each case.
const PAIRS: usize = 3;

/// Measures the first call of each case.
pub fn measure<'a>(
    cases: impl Iterator<Item = &'a Case>,
    file: Option<&Path>,
    device: &DeviceOptions,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Row>> {
    let cases: Vec<_> = cases.collect();
    progress.set_length((cases.len() * PAIRS * 2) as u64);
    // Other folders for caches hide the user's tuning, so it is named.
    let tuning = match std::env::var_os("ATTN_TUNING") {
        Some(set) => Some(PathBuf::from(set)),
        None => Tuning::user_path(device.engine()?.caps()).filter(|path| path.exists()),
    };
    let mut rows = Vec::new();
    for case in cases {
        let mut times = [Vec::new(), Vec::new()];
        for pair in 0..PAIRS {
            let folder = Scratch::new(pair)?;
            for (times, state) in times.iter_mut().zip(["cold", "warm"]) {
                progress.set_message(format!("{}, {state}", case.name));
                times.push(in_another_process(case, file, device, &folder.0, tuning.as_deref())?);
                progress.inc(1);
            }
        }
        let [cold, warm] = times.map(|times| middle(&times));
        rows.push(Row {
            case: case.name.clone(),
            sizes: case.sizes.describe(),
            processes: PAIRS,
            cold,
            warm,
        });
    }
    Ok(rows)
}

/// A folder that goes when it is no longer needed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(number: usize) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("attn-first-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn in_another_process(
    case: &Case,
    file: Option<&Path>,
    device: &DeviceOptions,
    folder: &Path,
    tuning: Option<&Path>,
) -> anyhow::Result<First> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(["bench", "--first-in-this-process", "--case", &case.name]);
    command.args(device.arguments());
    if let Some(file) = file {
        command.arg("--cases").arg(file);
    }
    // Mesa's, in its newer and its older name; NVIDIA's; and what goes by the user's cache folder, as other drivers do.
    for variable in [
        "MESA_SHADER_CACHE_DIR",
        "MESA_GLSL_CACHE_DIR",
        "__GL_SHADER_DISK_CACHE_PATH",
        "XDG_CACHE_HOME",
    ] {
        command.env(variable, folder);
    }
    command.env("ATTN_PIPELINE_CACHE", folder.join("pipelines"));
    if let Some(tuning) = tuning {
        command.env("ATTN_TUNING", tuning);
    }
    let output = command.output().context("cannot start this program again")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        case.name,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("another process printed something unexpected")
}

/// Times the first call of one case here, and prints them.
pub fn in_this_process(cases: &[Case], device: &DeviceOptions) -> anyhow::Result<ExitCode> {
    let [case] = cases else {
        anyhow::bail!("one --case is expected");
    };
    let start = Instant::now();
    let engine = device.engine()?;
    let device_ms = start.elapsed().as_secs_f64() * 1e3;
    let times = first_call(&engine, case)?;
    println!("{}", serde_json::to_string(&First { device_ms, ..times })?);
    Ok(ExitCode::SUCCESS)
}

fn first_call(engine: &Engine, case: &Case) -> anyhow::Result<First> {
    let problem = Problem::new(&case.descriptor())?;
    let tensor = |operand| engine.allocate(problem.span_bytes(operand).unwrap_or(0));
    let (query, key, value) = (tensor(Operand::Query)?, tensor(Operand::Key)?, tensor(Operand::Value)?);
    let out = tensor(Operand::Out)?;
    engine.wait()?;
    let start = Instant::now();
    let attention = engine.prepare(&case.descriptor())?;
    let bound = attention.bind(&Inputs::new(&query, &key, &value), &OutputBuffers::new(&out))?;
    let prepare_ms = start.elapsed().as_secs_f64() * 1e3;
    engine.run(&bound)?;
    Ok(First {
        device_ms: 0.0,
        prepare_ms,
        first_call_ms: start.elapsed().as_secs_f64() * 1e3,
    })
}

fn middle(times: &[First]) -> First {
    let of = |time: fn(&First) -> f64| median(times.iter().map(time));
    First {
        device_ms: of(|first| first.device_ms),
        prepare_ms: of(|first| first.prepare_ms),
        first_call_ms: of(|first| first.first_call_ms),
    }
}

/// Prints the rows as a table.
pub fn print(rows: &[Row]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "case",
        "sizes",
        "first call, cold, ms",
        "first call, warm, ms",
        "of it preparing, cold, ms",
        "of it preparing, warm, ms",
        "opening the device, ms",
    ]);
    for row in rows {
        let mut cells = vec![row.case.clone(), row.sizes.clone()];
        let times = [
            row.cold.first_call_ms,
            row.warm.first_call_ms,
            row.cold.prepare_ms,
            row.warm.prepare_ms,
            row.warm.device_ms,
        ];
        cells.extend(times.map(|ms| format!("{ms:.0}")));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    anstream::println!("{}", table.trim_fmt());
    anstream::println!(
        "\nmedians of {PAIRS} pairs of processes; cold: the driver has compiled nothing before; warm: it has what the process before left"
    );
}
