//! `attn shaders`: the WGSL of all kernels, as files for other compilers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use wgpu_attention::kernel::catalog;
use wgpu_attention::kernel::source::{self, Dialect, Unroll};

use crate::files::write_whole;

/// Options of `attn shaders`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Write into this folder, one file a kernel; files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    dump: PathBuf,
    /// The text that browsers get, not the text for naga: they want other directives
    #[arg(long)]
    web: bool,
    /// Hooks, tiles and sizes meet in every combination of this many; 4 takes long
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    combinations: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was written.
#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    dialect: &'static str,
    /// In order, below the folder.
    files: Vec<String>,
    bytes: usize,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (dialect, dialect_name) = if arguments.web {
        (Dialect::Web, "web")
    } else {
        (Dialect::Native, "native")
    };
    let texts = texts(arguments.combinations.into(), dialect)?;
    let folder = &arguments.dump;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (name, text) in &texts {
        write_whole(&folder.join(name), text.as_bytes())?;
    }
    let report = Report {
        folder: folder.clone(),
        dialect: dialect_name,
        bytes: texts.values().map(String::len).sum(),
        files: texts.into_keys().collect(),
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        anstream::println!(
            "{} kernels for {dialect_name} compilers in {}, {} KiB",
            report.files.len(),
            folder.display(),
            report.bytes >> 10
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// File names and texts; of kernels with the same text, one.
fn texts(combinations: usize, dialect: Dialect) -> anyhow::Result<BTreeMap<String, String>> {
    let mut names_by_text = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for kernel in catalog::kernels(combinations) {
        if !kernel.is_in(dialect) {
            continue;
        }
        let text = source::compose(&kernel, Unroll::Expanded, dialect).map_err(anyhow::Error::msg)?;
        let skeleton = kernel.skeleton().name();
        names_by_text.entry(text).or_insert_with(|| {
            let count = counts.entry(skeleton).and_modify(|count| *count += 1).or_insert(1);
            format!("{skeleton}-{count:03}.wgsl")
        });
    }
    Ok(names_by_text.into_iter().map(|(text, name)| (name, text)).collect())
}
