//! Static figures of kernels from a driver's offline compiler, without its GPU: registers, spills, workgroup memory, waves, the
//! share of multiply-adds, the size of the code. `tools/gpu-static.sh` runs this with RADV; docs in `benches/static/README.md`.
//!
//! Each GPU is compiled for in a process of its own, since RADV takes its name from the environment and a compiler may crash.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod digest;
mod figures;
mod isa;
mod vulkan;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Parser;
use digest::digest;
use figures::{Row, Table};
use vulkan::{Compiled, Device};

/// Prints the static figures of kernels, or compares them with tables.
#[derive(Parser)]
struct Arguments {
    /// Compile for these, by Mesa's names
    #[arg(long, value_delimiter = ',', default_value = "navi31,navi21,vega10")]
    gpus: Vec<String>,
    /// Compare with the tables DIR/GPU.csv, and write those that differ unless a figure is worse
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// Write no table; fail where a figure is worse
    #[arg(long, requires = "tables")]
    check: bool,
    /// Write tables although figures are worse
    #[arg(long, requires = "tables", conflicts_with = "check")]
    accept: bool,
    /// Today, for tables that are written
    #[arg(long, default_value = "unknown")]
    date: String,
    /// Write the machine code of each kernel to DIR/GPU/KERNEL.txt
    #[arg(long, value_name = "DIR")]
    listings: Option<PathBuf>,
    /// Of the process for one GPU
    #[arg(long, hide = true)]
    child: bool,
    /// SPIR-V, each with its WGSL beside it
    #[arg(required = true, value_name = "FILE.spv")]
    files: Vec<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = Arguments::parse();
    // Whatever order the shell has.
    arguments.files.sort();
    if arguments.child {
        return compile_all(&arguments.files, arguments.listings.as_deref()).map(|()| ExitCode::SUCCESS);
    }
    let mut is_worse = false;
    for gpu in &arguments.gpus {
        let table = table(&arguments, gpu)?;
        match &arguments.tables {
            Some(folder) => is_worse |= compare(&arguments, &table, gpu, &folder.join(format!("{gpu}.csv")))?,
            None => print!("{}", table.text(gpu, &arguments.date)),
        }
    }
    Ok(if is_worse { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Compiles for one GPU, in another process.
fn table(arguments: &Arguments, gpu: &str) -> anyhow::Result<Table> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--child").args(&arguments.files);
    if let Some(folder) = &arguments.listings {
        command.arg("--listings").arg(folder.join(gpu));
    }
    command
        .env("RADV_FORCE_FAMILY", gpu)
        .env("MESA_SHADER_CACHE_DISABLE", "true");
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let table = Table {
        driver: lines.next().unwrap_or_default().to_owned(),
        rows: lines.filter_map(Row::parse).collect(),
    };
    if !output.status.success() || table.rows.len() != arguments.files.len() {
        let message = String::from_utf8_lossy(&output.stderr);
        let next = arguments
            .files
            .get(table.rows.len())
            .map(|file| file.display().to_string());
        anyhow::bail!(
            "{gpu}: {} at {}: {}",
            output.status,
            next.unwrap_or_default(),
            message.trim()
        );
    }
    Ok(table)
}

/// Says what is worse than in the file, and whether anything is; writes the file where that is wanted.
fn compare(arguments: &Arguments, table: &Table, gpu: &str, path: &Path) -> anyhow::Result<bool> {
    let before = match fs::read_to_string(path) {
        Ok(text) => Table::parse(&text).map_err(|why| anyhow::anyhow!("{}: {why}", path.display()))?,
        Err(_) if !arguments.check => Table::default(),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let other_driver = !before.driver.is_empty() && before.driver != table.driver;
    if other_driver && arguments.check {
        println!(
            "{gpu}: skipped: the table is of {}, this is {}",
            before.driver, table.driver
        );
        return Ok(false);
    }
    let mut worse = Vec::new();
    for row in &table.rows {
        match before.row(&row.kernel) {
            Some(was) if !other_driver => worse.extend(row.worse_than(was)),
            Some(_) => {}
            None if arguments.check => worse.push(format!("{}: has no row; tools/gpu-static.sh adds it", row.kernel)),
            None => println!("{gpu}: {}: new", row.kernel),
        }
    }
    for sentence in &worse {
        println!("{gpu}: {sentence}");
    }
    if arguments.check {
        println!("{gpu}: {} kernels, {} figures worse", table.rows.len(), worse.len());
    } else if !worse.is_empty() && !arguments.accept {
        println!("{gpu}: {} is left as it was; --accept writes it", path.display());
    } else if before != *table {
        fs::write(path, table.text(gpu, &arguments.date)).with_context(|| path.display().to_string())?;
        println!("{gpu}: wrote {}", path.display());
    } else {
        println!("{gpu}: nothing changed");
    }
    Ok(!worse.is_empty() && !arguments.accept)
}

/// Prints the driver, then a row for each file; writes the machine code into `listings`, where that is wanted.
fn compile_all(files: &[PathBuf], listings: Option<&Path>) -> anyhow::Result<()> {
    if let Some(folder) = listings {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let device = Device::open()?;
    eprintln!("{}", device.name);
    println!("{}", device.driver);
    for file in files {
        let at = || file.display().to_string();
        let bytes = fs::read(file).with_context(at)?;
        let words: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect();
        let wgsl = file.with_extension("wgsl");
        let text = fs::read_to_string(&wgsl).with_context(|| wgsl.display().to_string())?;
        let kernel = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let compiled = device.compile(&words).with_context(at)?;
        if let Some(folder) = listings {
            let path = folder.join(format!("{kernel}.txt"));
            fs::write(&path, &compiled.listing).with_context(|| path.display().to_string())?;
        }
        let row = Row {
            kernel,
            text: digest(&text),
            figures: figures_of(&compiled).with_context(at)?,
        };
        println!("{}", row.line());
    }
    Ok(())
}

fn figures_of(compiled: &Compiled) -> anyhow::Result<[f64; figures::FIGURES.len()]> {
    let statistic = |name: &str| {
        let value = compiled
            .statistics
            .get(name)
            .with_context(|| format!("the driver says no {name:?}"))?;
        anyhow::Ok(*value as f64)
    };
    let mix = isa::main_loop(&compiled.listing);
    anyhow::ensure!(mix.instructions > 0, "the driver hands out no machine code");
    let share = |of: u32| (f64::from(mix.multiply_adds) / f64::from(of.max(1)) * 1e3).round() / 1e3;
    Ok([
        compiled.subgroup_size.into(),
        statistic("VGPRs")?,
        statistic("SGPRs")?,
        statistic("Spilled VGPRs")?,
        statistic("Spilled SGPRs")?,
        statistic("Scratch size")?,
        statistic("LDS size")?,
        statistic("Subgroups per SIMD")?,
        statistic("Code size")?,
        mix.instructions.into(),
        share(mix.vector),
        share(mix.instructions),
        mix.lds_loads.into(),
        mix.narrow_lds_loads.into(),
    ])
}
