//! `attn shaders`: the text of kernels, and what naga makes of it, as files for other compilers.

mod translate;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;
use wgpu_attention::kernel::KernelConfig;
use wgpu_attention::kernel::catalog::{self, Named};
use wgpu_attention::kernel::source::{self, Dialect, Unroll};

use crate::bench::cases::Case;
use crate::files::write_whole;

/// Options of `attn shaders`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Write into this folder, one file a kernel and format; files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    dump: PathBuf,
    /// Only these formats (may be repeated)
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Vec<Format>,
    /// The text that browsers get, not the text for naga: they want other directives
    #[arg(long, conflicts_with = "format")]
    web: bool,
    /// Hooks, tiles and sizes meet in every combination of this many; 4 takes long
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
    combinations: u8,
    /// Only the kernels of the tuning rows, with heads of 64 and 128 channels, causal and not
    #[arg(long, conflicts_with_all = ["combinations", "case"])]
    tuned: bool,
    /// Only those of the matrix family, on a GPU that multiplies 16 x 16 halves
    #[arg(long, conflicts_with_all = ["combinations", "case", "tuned"])]
    tuned_matrices: bool,
    /// Only the kernels that plans for this case of `attn bench` take, on devices of each tier and class (may be repeated)
    #[arg(long, value_name = "NAME", conflicts_with = "combinations")]
    case: Vec<String>,
    /// Cases of your own, in the columns of benches/cases.csv
    #[arg(long, value_name = "FILE.csv", requires = "case")]
    cases: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a kernel is written as.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// What it is made of
    Wgsl,
    /// For Vulkan
    Spirv,
    /// For Metal
    Msl,
    /// For DX12
    Hlsl,
}

impl Format {
    const ALL: [Format; 4] = [Format::Wgsl, Format::Spirv, Format::Msl, Format::Hlsl];

    fn extension(self) -> &'static str {
        match self {
            Format::Wgsl => "wgsl",
            Format::Spirv => "spv",
            Format::Msl => "metal",
            Format::Hlsl => "hlsl",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Wgsl => "WGSL",
            Format::Spirv => "SPIR-V",
            Format::Msl => "MSL",
            Format::Hlsl => "HLSL",
        }
    }
}

/// What was written.
#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    dialect: &'static str,
    kernels: usize,
    /// In order, below the folder.
    files: Vec<String>,
    bytes: usize,
    /// What a format cannot say.
    refused: Vec<Refused>,
}

/// A kernel that naga does not write in a format.
#[derive(Serialize)]
struct Refused {
    kernel: String,
    format: Format,
    why: String,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (dialect, dialect_name, formats) = if arguments.web {
        (Dialect::Web, "web", &[Format::Wgsl][..])
    } else if arguments.format.is_empty() {
        (Dialect::Native, "native", &Format::ALL[..])
    } else {
        (Dialect::Native, "native", &arguments.format[..])
    };
    let texts = texts(kernels(arguments)?, dialect)?;
    let folder = &arguments.dump;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut report = Report {
        folder: folder.clone(),
        dialect: dialect_name,
        kernels: texts.len(),
        files: Vec::new(),
        bytes: 0,
        refused: Vec::new(),
    };
    for (name, (text, bindings)) in &texts {
        report.write(name, text, bindings, formats)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(ExitCode::SUCCESS)
}

impl Report {
    /// Writes a kernel in each format, or notes why not.
    fn write(&mut self, kernel: &str, text: &str, bindings: &Bindings, formats: &[Format]) -> anyhow::Result<()> {
        // naga is asked only for what WGSL is not.
        let valid = if formats.iter().any(|&format| format != Format::Wgsl) {
            Some(translate::validate(text).with_context(|| format!("{kernel}: naga refuses its WGSL"))?)
        } else {
            None
        };
        for &format in formats {
            let written = match (format, &valid) {
                (Format::Wgsl, _) | (_, None) => Ok(text.as_bytes().to_vec()),
                (Format::Spirv, Some(valid)) => translate::spirv(valid, bindings),
                (Format::Msl, Some(valid)) => translate::msl(valid, bindings),
                (Format::Hlsl, Some(valid)) => translate::hlsl(valid, bindings),
            };
            match written {
                Ok(contents) => {
                    let file = format!("{kernel}.{}", format.extension());
                    write_whole(&self.folder.join(&file), &contents)?;
                    self.bytes += contents.len();
                    self.files.push(file);
                }
                Err(why) => self.refused.push(Refused {
                    kernel: kernel.to_owned(),
                    format,
                    why: format!("{why:#}"),
                }),
            }
        }
        Ok(())
    }

    fn print(&self) {
        anstream::println!(
            "{} kernels for {} compilers in {}: {} files, {} KiB",
            self.kernels,
            self.dialect,
            self.folder.display(),
            self.files.len(),
            self.bytes >> 10
        );
        for Refused { kernel, format, why } in &self.refused {
            anstream::println!("no {} of {kernel}: {why}", format.name());
        }
    }
}

/// The kernels asked for, with names.
fn kernels(arguments: &Arguments) -> anyhow::Result<Vec<Named>> {
    if arguments.tuned {
        return Ok(catalog::tuned()?);
    }
    if arguments.tuned_matrices {
        return Ok(catalog::tuned_matrices()?);
    }
    if arguments.case.is_empty() {
        return Ok(numbered(arguments.combinations.into()));
    }
    let cases = Case::read(arguments.cases.as_deref())?;
    let mut kernels = Vec::new();
    for wanted in &arguments.case {
        let case = cases.iter().find(|case| case.name == *wanted).with_context(|| {
            let names: Vec<_> = cases.iter().map(|case| case.name.as_str()).collect();
            format!("no case {wanted:?}; there are {}", names.join(", "))
        })?;
        let of_case = catalog::planned(&case.descriptor()).with_context(|| wanted.clone())?;
        kernels.extend(of_case.into_iter().map(|Named { name, kernel }| Named {
            name: format!("{wanted}-{name}"),
            kernel,
        }));
    }
    Ok(kernels)
}

/// Every kernel, named by its skeleton and a number.
fn numbered(combinations: usize) -> Vec<Named> {
    let mut counts = BTreeMap::new();
    let number = |kernel: KernelConfig| {
        let skeleton = kernel.skeleton().name();
        let count = counts.entry(skeleton).and_modify(|count| *count += 1).or_insert(1);
        Named {
            name: format!("{skeleton}-{count:03}"),
            kernel,
        }
    };
    catalog::kernels(combinations).into_iter().map(number).collect()
}

/// Binding numbers in ascending order, and how they are used.
type Bindings = Vec<(u32, source::Access)>;

/// Texts and bindings by name; of kernels with the same text, the first.
fn texts(kernels: Vec<Named>, dialect: Dialect) -> anyhow::Result<BTreeMap<String, (String, Bindings)>> {
    let mut by_text = BTreeMap::new();
    for Named { name, kernel } in kernels.into_iter().filter(|named| named.kernel.is_in(dialect)) {
        let text = source::compose(&kernel, Unroll::Expanded, dialect).map_err(anyhow::Error::msg)?;
        by_text.entry(text).or_insert_with(|| (name, kernel.bindings()));
    }
    Ok(by_text
        .into_iter()
        .map(|(text, (name, bindings))| (name, (text, bindings)))
        .collect())
}
