//! What a comparison found: a line for each case and engine, as CSV, as a table, as Markdown.

use std::path::Path;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use super::engine::RunsOn;
use crate::bench::cases::Sizes;
use crate::bench::report::significant;

/// One line. Times are in ms, by the wall clock.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// Our adapter, and what it can do at most.
    pub device: String,
    pub device_gflops: f64,
    pub device_gb_per_s: f64,
    pub case: String,
    pub batch: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub seqlen_q: u32,
    pub seqlen_k: u32,
    pub head_dim: u32,
    pub head_dim_v: u32,
    pub causal: bool,
    pub engine: String,
    pub variant: String,
    pub version: String,
    pub runs_on: RunsOn,
    /// As the engine says.
    pub adapter: String,
    pub dtype: String,
    pub status: Status,
    pub max_abs_err: Option<f64>,
    pub allowed_error: Option<f64>,
    pub runs: Option<u64>,
    pub median_ms: Option<f64>,
    pub min_ms: Option<f64>,
    /// The first run, with what is compiled and tuned in it.
    pub first_ms: Option<f64>,
    /// Our own time, measured right before and right after.
    pub ours_ms: Option<f64>,
    /// Below 1 where ours is faster; only of right results.
    pub ours_over_this: Option<f64>,
    pub message: String,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Right,
    /// Its time stands for nothing.
    Wrong,
    /// It cannot express the case.
    Skipped,
    Failed,
}

/// How our own engine is called among the others.
pub const OURS: &str = "wgpu-attention";

impl Record {
    pub fn sizes(&self) -> Sizes {
        Sizes {
            batch: self.batch,
            heads: self.heads,
            kv_heads: self.kv_heads,
            seqlen_q: self.seqlen_q,
            seqlen_k: self.seqlen_k,
            head_dim: self.head_dim,
            head_dim_v: self.head_dim_v,
            causal: self.causal,
        }
    }

    /// Engine, its way, and the storage where it is not `f32`.
    pub fn name(&self) -> String {
        let dtype = if self.dtype == "f32" { "" } else { &self.dtype };
        [self.engine.as_str(), &self.variant, dtype]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Reads what [`to_csv`] wrote.
pub fn read_csv(path: &Path) -> anyhow::Result<Vec<Record>> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = csv::Reader::from_reader(&text[..]);
    let is_record = reader
        .headers()
        .is_ok_and(|names| names.iter().any(|name| name == "engine"));
    anyhow::ensure!(
        is_record,
        "{} was not written by `attn bench --peers --csv`: its first line names no column \"engine\"",
        path.display()
    );
    let records: Vec<Record> = reader
        .deserialize()
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} is not as `attn bench --peers --csv` wrote it", path.display()))?;
    anyhow::ensure!(!records.is_empty(), "{} holds no results", path.display());
    Ok(records)
}

/// The records with a header.
pub fn to_csv(records: &[Record]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.serialize(record)?;
    }
    Ok(writer.into_inner()?)
}

/// A table for the terminal.
pub fn table(records: &[Record]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "case",
        "sizes",
        "engine",
        "on",
        "ms",
        "ours then",
        "ours / this",
        "error",
        "first ms",
        "",
    ]);
    let mut previous = "";
    for record in records {
        let (case, sizes) = if record.case == previous {
            (String::new(), String::new())
        } else {
            (record.case.clone(), record.sizes().describe())
        };
        previous = &record.case;
        let time = record.median_ms.map(significant).unwrap_or_default();
        let message = record.message.split_whitespace().collect::<Vec<_>>().join(" ");
        let (time, remark) = match record.status {
            Status::Right => (time, String::new()),
            Status::Wrong => (format!("({time})"), "WRONG".to_owned()),
            Status::Skipped => (String::new(), format!("skipped: {message}")),
            Status::Failed => (String::new(), format!("failed: {message}")),
        };
        table.add_row([
            case,
            sizes,
            record.name(),
            match record.runs_on {
                RunsOn::Gpu => "GPU".to_owned(),
                RunsOn::Cpu => "CPU".to_owned(),
            },
            time,
            match record.status {
                Status::Right | Status::Wrong if record.engine != OURS => {
                    record.ours_ms.map(significant).unwrap_or_default()
                }
                _ => String::new(),
            },
            record.ours_over_this.map(significant).unwrap_or_default(),
            record
                .max_abs_err
                .map(|error| format!("{error:.0e}"))
                .unwrap_or_default(),
            record.first_ms.map(significant).unwrap_or_default(),
            remark,
        ]);
    }
    for column in table.column_iter_mut().skip(4).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A table for a README: engines down, cases across, times in ms.
pub fn markdown(records: &[Record]) -> String {
    let mut cases: Vec<&Record> = Vec::new();
    let mut engines: Vec<&Record> = Vec::new();
    for record in records {
        if !cases.iter().any(|case| case.case == record.case) {
            cases.push(record);
        }
        if !engines.iter().any(|engine| engine.name() == record.name()) {
            engines.push(record);
        }
    }
    // Ours first, then the other GPU engines, then what needs no GPU interface.
    engines.sort_by_key(|engine| (engine.engine != OURS, engine.runs_on == RunsOn::Cpu));
    let heads: Vec<_> = cases
        .iter()
        .map(|case| format!("{}<br>{}", cell(&case.case), case.sizes().describe()))
        .collect();
    let mut text = format!("| ms | {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(cases.len()));
    for engine in engines {
        let version = if engine.version.is_empty() { "" } else { " " };
        let name = format!("{}{version}{}", cell(&engine.name()), cell(&engine.version));
        let name = match (engine.engine == OURS, engine.runs_on) {
            (true, _) => format!("**{name}**"),
            (false, RunsOn::Gpu) => name,
            (false, RunsOn::Cpu) => format!("*{name}, on the CPU*"),
        };
        let cells: Vec<_> = cases
            .iter()
            .map(|case| {
                let record = records
                    .iter()
                    .find(|record| record.case == case.case && record.name() == engine.name());
                record.map_or("–".to_owned(), markdown_cell)
            })
            .collect();
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    let device = &records[0];
    text + &format!(
        "\nMedians by the wall clock on {}, which reaches {:.0} GFLOP/s of multiply-adds. Sizes: batch x heads(/kv_heads) x \
         seqlen_q x seqlen_k x head_dim.\n",
        cell(&device.device),
        device.device_gflops
    ) + match records.iter().any(|record| record.status == Status::Wrong) {
        true => "Wrong: the result is off by more than rounding, so there is no time to show.\n",
        false => "",
    }
}

fn markdown_cell(record: &Record) -> String {
    let time = record.median_ms.map_or("–".to_owned(), significant);
    match record.status {
        Status::Right if record.engine == OURS => format!("**{time}**"),
        Status::Right => time,
        Status::Wrong => "wrong".to_owned(),
        Status::Skipped => "–".to_owned(),
        Status::Failed => "failed".to_owned(),
    }
}

/// Text that ends no cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// So many digits that matter: what a CSV file needs of a time or an error.
pub fn rounded(value: f64, digits: usize) -> f64 {
    format!("{value:.*e}", digits - 1).parse().unwrap_or(value)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Ours and three others on two cases.
    pub fn records() -> Vec<Record> {
        let record = |case: &str, seqlen, engine: &str, status, median_ms: Option<f64>| Record {
            device: "a device, \"quoted\" | tier extended".into(),
            device_gflops: 119.16,
            device_gb_per_s: 11.99,
            case: case.into(),
            batch: 1,
            heads: 8,
            kv_heads: 8,
            seqlen_q: seqlen,
            seqlen_k: seqlen,
            head_dim: 64,
            head_dim_v: 64,
            causal: false,
            engine: engine.into(),
            variant: if engine == OURS { "as planned" } else { "" }.into(),
            version: "1.0".into(),
            runs_on: if engine == "slow" { RunsOn::Cpu } else { RunsOn::Gpu },
            adapter: "<a>".into(),
            dtype: "f32".into(),
            status,
            max_abs_err: median_ms.map(|_| 3.4e-7),
            allowed_error: median_ms.map(|_| 2.5e-5),
            runs: median_ms.map(|_| 5),
            median_ms,
            min_ms: median_ms.map(|ms| ms * 0.875),
            first_ms: median_ms.map(|ms| ms + 1000.0),
            ours_ms: Some(12.5),
            ours_over_this: median_ms.filter(|_| status == Status::Right).map(|ms| 12.5 / ms),
            message: if status == Status::Failed {
                "lost,\n\"the device\""
            } else {
                ""
            }
            .into(),
        };
        vec![
            record("B", 512, "fast", Status::Right, Some(6.25)),
            record("B", 512, "slow", Status::Right, Some(25.0)),
            record("B", 512, "broken", Status::Wrong, Some(1.0)),
            record("B", 512, OURS, Status::Right, Some(12.5)),
            record("G", 4096, OURS, Status::Right, Some(800.0)),
            record("G", 4096, "fast", Status::Failed, None),
        ]
    }

    #[test]
    fn csv_comes_back_as_it_was() {
        let records = records();
        let path = std::env::temp_dir().join(format!("attn-record-{}.csv", std::process::id()));
        std::fs::write(&path, to_csv(&records).unwrap()).unwrap();
        assert_eq!(read_csv(&path).unwrap(), records);
        std::fs::write(&path, "case,ms\nB,1\n").unwrap();
        assert!(format!("{:#}", read_csv(&path).unwrap_err()).contains("--peers --csv"));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn ratios_are_of_right_results_only() {
        let table = table(&records());
        let line = |word: &str| table.lines().find(|line| line.contains(word)).unwrap().to_owned();
        // 12.5 / 6.25 and 12.5 / 25.
        assert!(
            line(" fast ").contains("6.25") && line(" fast ").contains("2.00"),
            "{table}"
        );
        assert!(
            line(" slow ").contains("CPU") && line(" slow ").contains("0.500"),
            "{table}"
        );
        assert!(
            line(" broken ").contains("(1.00)") && line(" broken ").contains("WRONG"),
            "{table}"
        );
        // Our time beside it, and no ratio.
        assert_eq!(line(" broken ").matches("12.5").count(), 1, "{table}");
        assert!(table.contains("failed: lost, \"the device\""), "{table}");
    }

    #[test]
    fn a_readme_gets_a_line_an_engine() {
        let text = markdown(&records());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "| ms | B<br>1x8x512x512x64 | G<br>1x8x4096x4096x64 |");
        assert_eq!(lines[1], "|---|---:|---:|");
        assert_eq!(lines[2], "| **wgpu-attention as planned 1.0** | **12.5** | **800** |");
        assert_eq!(lines[3], "| fast 1.0 | 6.25 | failed |");
        assert_eq!(lines[4], "| broken 1.0 | wrong | – |");
        assert_eq!(lines[5], "| *slow 1.0, on the CPU* | 25.0 | – |");
        assert!(text.contains("\"quoted\" \\| tier"), "{text}");
    }

    #[test]
    fn digits_that_matter_are_kept() {
        assert_eq!(rounded(12.345_678, 5), 12.346);
        assert_eq!(rounded(3.384_9e-7, 3), 3.38e-7);
        assert!(rounded(f64::NAN, 3).is_nan());
        assert_eq!(rounded(f64::INFINITY, 3), f64::INFINITY);
    }
}
