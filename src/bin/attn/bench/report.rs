//! The results as a table, as JSON and as CSV.

use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::floors::Floors;
use super::measure::{Kernel, Row, Speed};
use super::stopwatch::Clock;
use crate::files;

/// Everything measured.
#[derive(Serialize)]
pub struct Report {
    pub device: String,
    pub floors: Floors,
    /// Which clock the device's times are read from.
    pub clock: Clock,
    /// What submission and wait cost without work, by the wall clock.
    pub overhead_ms: f64,
    pub rows: Vec<Row>,
    /// Cases left out and why.
    pub skipped: Vec<Skipped>,
}

#[derive(Serialize)]
pub struct Skipped {
    pub case: String,
    pub why: String,
}

impl Report {
    /// Whether all that was computed was right.
    pub fn is_right(&self) -> bool {
        self.rows.iter().all(|row| row.right)
    }

    pub fn print(&self) {
        let clock = match self.clock {
            Clock::Gpu => "times are the GPU's own timestamps around the compute pass",
            Clock::Wall => "times are wall time and include submission and wait: the adapter has no timestamps",
        };
        anstream::println!(
            "{}\nits own limits, measured first: {:.1} GFLOP/s of multiply-adds, {:.1} GB/s read from memory",
            self.device,
            self.floors.gflops,
            self.floors.gb_per_s
        );
        anstream::println!(
            "{clock}; an empty submission and its wait take {:.3} ms\n",
            self.overhead_ms
        );
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "case",
            "sizes",
            "kernel",
            "ms",
            "GFLOP/s",
            "of FMA",
            "GB/s",
            "of memory",
            "extra MiB",
            "error",
        ]);
        let mut previous = "";
        for row in &self.rows {
            let (name, sizes) = if row.case == previous {
                (String::new(), String::new())
            } else {
                (row.case.clone(), row.sizes.describe())
            };
            previous = &row.case;
            let kernel = match &row.plan {
                Some(plan) => format!("{}: {plan}", row.kernel.name()),
                None => row.kernel.name().to_owned(),
            };
            let mut cells = vec![name, sizes, kernel];
            cells.extend(match &row.speed {
                None => [const { String::new() }; 5],
                Some(speed) => speed_cells(speed),
            });
            cells.push(row.extra_bytes.map_or(String::new(), |bytes| {
                format!("{:.1}", bytes as f64 / f64::from(1 << 20))
            }));
            let verdict = if row.right { "" } else { " WRONG" };
            cells.push(format!("{:.0e}{verdict}", row.max_error));
            table.add_row(cells);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        anstream::println!("{}", table.trim_fmt());
        anstream::println!(
            "\nsizes: batch x heads(/kv_heads) x seqlen_q x seqlen_k x head_dim; ~ scaled from a sample of rows;\n\
             * by the wall clock, the call being cut into several submissions; extra: memory besides the operands"
        );
        if let Some(line) = self.encoding() {
            anstream::println!("{line}");
        }
        if let Some(line) = self.comparison() {
            anstream::println!("{line}");
        }
        for Skipped { case, why } in &self.skipped {
            anstream::println!("skipped {case}: {why}");
        }
    }

    /// What recording costs: the line that costs most.
    fn encoding(&self) -> Option<String> {
        let speeds = self.rows.iter().filter_map(|row| row.speed.as_ref());
        let times = speeds.filter_map(|speed| speed.encode_us.zip(speed.finish_us));
        let (encode_us, finish_us) = times.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
        Some(format!(
            "encoding a call takes {encode_us:.1} µs of the CPU's time at most, and wgpu another {finish_us:.1} µs to finish the commands"
        ))
    }

    /// Fused against three kernels, over the cases that have both.
    fn comparison(&self) -> Option<String> {
        let time = |case: &str, kernel| {
            let row = self.rows.iter().find(|row| row.case == case && row.kernel == kernel)?;
            Some(row.speed.as_ref()?.times.median_ms)
        };
        let mut ratios = Vec::new();
        for row in self.rows.iter().filter(|row| row.kernel == Kernel::Fused) {
            let pair = time(&row.case, Kernel::ThreeKernels).zip(time(&row.case, Kernel::Fused));
            ratios.extend(pair.map(|(three, fused)| format!("{} {:.2}", row.case, three / fused)));
        }
        (!ratios.is_empty()).then(|| format!("fused is so many times as fast as three kernels: {}", ratios.join(", ")))
    }

    /// One line a row, for keeping.
    pub fn write_csv(&self, path: &Path) -> anyhow::Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in &self.rows {
            let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
            let bytes = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
            let speed = row.speed.as_ref();
            let kernel = serde_json::to_value(row.kernel)?;
            let sizes = row.sizes;
            let clock = speed.map_or(Ok(serde_json::Value::Null), |speed| {
                serde_json::to_value(speed.times.clock)
            })?;
            let fields: [(&str, String); 28] = [
                ("device", self.device.clone()),
                ("device_gflops", number(Some(self.floors.gflops))),
                ("device_gb_per_s", number(Some(self.floors.gb_per_s))),
                ("case", row.case.clone()),
                ("batch", sizes.batch.to_string()),
                ("heads", sizes.heads.to_string()),
                ("kv_heads", sizes.kv_heads.to_string()),
                ("seqlen_q", sizes.seqlen_q.to_string()),
                ("seqlen_k", sizes.seqlen_k.to_string()),
                ("head_dim", sizes.head_dim.to_string()),
                ("head_dim_v", sizes.head_dim_v.to_string()),
                ("causal", sizes.causal.to_string()),
                ("kernel", kernel.as_str().unwrap_or_default().to_owned()),
                ("right", row.right.to_string()),
                ("max_error", format!("{:.2e}", row.max_error)),
                ("allowed_error", format!("{:.2e}", row.allowed_error)),
                ("rows_checked", row.rows_checked.to_string()),
                ("clock", clock.as_str().unwrap_or_default().to_owned()),
                (
                    "runs",
                    speed.map_or(String::new(), |speed| speed.times.runs.to_string()),
                ),
                ("median_ms", number(speed.map(|speed| speed.times.median_ms))),
                ("min_ms", number(speed.map(|speed| speed.times.min_ms))),
                ("max_ms", number(speed.map(|speed| speed.times.max_ms))),
                ("wall_ms", number(speed.map(|speed| speed.times.wall_ms))),
                ("first_call_ms", number(speed.and_then(|speed| speed.first_call_ms))),
                ("gflops", number(speed.map(|speed| speed.gflops))),
                ("gb_per_s", number(speed.map(|speed| speed.gb_per_s))),
                ("extra_bytes", bytes(row.extra_bytes)),
                ("device_bytes", bytes(row.device_bytes)),
            ];
            if writer.get_ref().is_empty() && row.case == self.rows[0].case && row.kernel == self.rows[0].kernel {
                writer.write_record(fields.iter().map(|(name, _)| *name))?;
            }
            writer.write_record(fields.iter().map(|(_, value)| value))?;
        }
        files::write_whole(path, &writer.into_inner()?)
    }
}

fn speed_cells(speed: &Speed) -> [String; 5] {
    let percent = |share: Option<f64>| share.map_or(String::new(), |share| format!("{:.1} %", share * 100.0));
    let mark = match (speed.share_timed < 1.0, speed.times.clock, speed.share_of_gflops) {
        (true, ..) => "~",
        (false, Clock::Wall, Some(_)) => "*",
        _ => "",
    };
    [
        format!("{mark}{}", significant(speed.times.median_ms)),
        significant(speed.gflops),
        percent(speed.share_of_gflops),
        significant(speed.gb_per_s),
        percent(speed.share_of_gb_per_s),
    ]
}

/// Three digits that matter.
pub fn significant(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
