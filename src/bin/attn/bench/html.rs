//! The results as one page that needs nothing else: the roofline, and the time against the length of the sequence.

use std::fmt::Write as _;
use std::path::Path;

use wgpu_attention::Problem;

use super::cases::{Case, Sizes, flops};
use super::chart::{Axis, Chart, Point, Series, escape};
use super::floors::Floors;
use super::peers::RunsOn;
use super::peers::record::{OURS, Record, Status};
use super::report::{Report, significant};
use crate::files;

/// What the page shows.
pub struct Page {
    pub device: String,
    pub floors: Floors,
    pub entries: Vec<Entry>,
}

/// One case in one way.
#[derive(Clone, Debug)]
pub struct Entry {
    pub case: String,
    pub sizes: Sizes,
    pub engine: String,
    pub hollow: bool,
    /// None where there is no right result.
    pub ms: Option<f64>,
    pub note: String,
}

/// As many as the page has.
const COLOURS: usize = 8;

impl Page {
    /// Our own kernels.
    pub fn of_report(report: &Report) -> Self {
        let entries = report.rows.iter().map(|row| Entry {
            case: row.case.clone(),
            sizes: row.sizes,
            engine: row.kernel.name().to_owned(),
            hollow: row.kernel.is_cpu(),
            ms: row.speed.as_ref().map(|speed| speed.times.median_ms),
            note: if row.right { "" } else { "wrong" }.to_owned(),
        });
        Self {
            device: report.device.clone(),
            floors: report.floors,
            entries: entries.collect(),
        }
    }

    /// Ours and other engines. There is one record at least.
    pub fn of_records(records: &[Record]) -> Self {
        let entries = records.iter().map(|record| Entry {
            case: record.case.clone(),
            sizes: record.sizes(),
            engine: record.name(),
            hollow: record.runs_on == RunsOn::Cpu,
            ms: record.median_ms.filter(|_| record.status == Status::Right),
            note: match record.status {
                Status::Right => String::new(),
                Status::Wrong => "wrong".to_owned(),
                Status::Skipped => format!("skipped: {}", record.message),
                Status::Failed => format!("failed: {}", record.message),
            },
        });
        Self {
            device: records.first().map(|record| record.device.clone()).unwrap_or_default(),
            floors: Floors {
                gflops: records.first().map_or(f64::NAN, |record| record.device_gflops),
                gb_per_s: records.first().map_or(f64::NAN, |record| record.device_gb_per_s),
            },
            entries: entries.collect(),
        }
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        files::write_whole(path, self.html()?.as_bytes())
    }

    /// The whole page.
    pub fn html(&self) -> anyhow::Result<String> {
        let mut points = Vec::new();
        for entry in &self.entries {
            points.push((entry, Work::of(entry)?));
        }
        let mut page = include_str!("page.html").to_owned();
        let _ = writeln!(
            page,
            "<h1>Attention on {}</h1>\n<p>Its own limits, measured first: {:.1} GFLOP/s of multiply-adds, {:.1} GB/s read \
             from memory. Results were compared with a reference in f64; what is wrong or failed has no point.</p>",
            escape(&self.device),
            self.floors.gflops,
            self.floors.gb_per_s
        );
        page += &self.section(
            "Roofline",
            "Each point is a case: its operations against the bytes that it must move at least. No kernel on the device can \
             be above the line; hollow points are not computed on it.",
            self.roofline(&points),
        );
        for chart in self.lengths() {
            page += &self.section("Time against sequence length", &chart.title.clone(), Some(chart));
        }
        page += &table(&points);
        Ok(page + "</body>\n</html>\n")
    }

    fn section(&self, heading: &str, text: &str, chart: Option<Chart>) -> String {
        let Some(chart) = chart else { return String::new() };
        let drawn = |index: usize| {
            let mark = |series: &Series| series.colour + if series.square { COLOURS } else { 0 };
            chart.series.iter().any(|series| mark(series) == index % (2 * COLOURS))
        };
        let mut legend = String::new();
        for (index, engine) in self
            .engines()
            .into_iter()
            .enumerate()
            .filter(|(index, _)| drawn(*index))
        {
            let square = if index / COLOURS % 2 == 1 { " square" } else { "" };
            let hollow = if engine.hollow { " hollow" } else { "" };
            let _ = write!(
                legend,
                "<li class=\"c{}{square}{hollow}\">{}</li>",
                index % COLOURS,
                escape(&engine.engine)
            );
        }
        format!(
            "<h2>{}</h2>\n<p>{}</p>\n<figure>\n{}<ul>{legend}</ul>\n</figure>\n",
            escape(heading),
            escape(text),
            chart.svg()
        )
    }

    /// One entry of each engine, in the order of colours: ours first.
    fn engines(&self) -> Vec<&Entry> {
        let mut engines: Vec<&Entry> = Vec::new();
        for entry in &self.entries {
            if !engines.iter().any(|engine| engine.engine == entry.engine) {
                engines.push(entry);
            }
        }
        engines.sort_by_key(|engine| !engine.engine.starts_with(OURS));
        engines
    }

    fn roofline(&self, points: &[(&Entry, Work)]) -> Option<Chart> {
        let right = |(entry, work): &(&Entry, Work)| Some((work.intensity(), work.gflops(entry.ms?)));
        let measured: Vec<(f64, f64)> = points.iter().filter_map(right).collect();
        if measured.is_empty() {
            return None;
        }
        let Floors { gflops, gb_per_s } = self.floors;
        let ridge = gflops / gb_per_s;
        let x = Axis::around("FLOP a byte", measured.iter().map(|(x, _)| *x).chain([ridge]));
        let y = Axis::around("GFLOP/s", measured.iter().map(|(_, y)| *y).chain([gflops]));
        let (left, right) = (x.ticks[0], x.ticks[x.ticks.len() - 1]);
        // The slope begins where it enters the chart.
        let begin = left.max(y.ticks[0] / gb_per_s).min(ridge);
        let roof = vec![[begin, begin * gb_per_s], [ridge, gflops], [right, gflops]];
        // The first engine's points carry the names of the cases.
        let named = self.engines().first().map_or("", |engine| &engine.engine);
        let series = self.series(|entry| {
            let work = points.iter().find(|(other, _)| std::ptr::eq(*other, entry))?.1;
            let ms = entry.ms?;
            Some(Point {
                at: [work.intensity(), work.gflops(ms)],
                label: if entry.engine == named {
                    entry.case.clone()
                } else {
                    String::new()
                },
                tip: format!(
                    "{}, {}: {} ms, {} GFLOP/s",
                    entry.case,
                    entry.engine,
                    significant(ms),
                    significant(work.gflops(ms))
                ),
            })
        });
        Some(Chart {
            title: format!("Roofline of {}", self.device),
            x,
            y,
            series,
            roof: Some((roof, format!("{gflops:.1} GFLOP/s, {gb_per_s:.1} GB/s"))),
            joined: false,
        })
    }

    /// A chart for each kind of case that has several lengths.
    fn lengths(&self) -> Vec<Chart> {
        let mut kinds: Vec<Sizes> = Vec::new();
        for entry in &self.entries {
            let sizes = entry.sizes;
            if sizes.seqlen_q == sizes.seqlen_k && !kinds.iter().any(|kind| is_kind(kind, &sizes)) {
                kinds.push(sizes);
            }
        }
        kinds.iter().filter_map(|kind| self.length_chart(kind)).collect()
    }

    fn length_chart(&self, kind: &Sizes) -> Option<Chart> {
        let of_kind = |entry: &&Entry| is_kind(kind, &entry.sizes) && entry.sizes.seqlen_q == entry.sizes.seqlen_k;
        let measured: Vec<&Entry> = self
            .entries
            .iter()
            .filter(of_kind)
            .filter(|entry| entry.ms.is_some())
            .collect();
        let mut lengths: Vec<f64> = measured.iter().map(|entry| f64::from(entry.sizes.seqlen_k)).collect();
        lengths.sort_by(f64::total_cmp);
        lengths.dedup();
        if lengths.len() < 2 {
            return None;
        }
        let mut series = self.series(|entry| {
            Some(Point {
                at: [f64::from(entry.sizes.seqlen_k), entry.ms.filter(|_| of_kind(&entry))?],
                label: String::new(),
                tip: format!("{}, {}: {} ms", entry.case, entry.engine, significant(entry.ms?)),
            })
        });
        for series in &mut series {
            series.points.sort_by(|a, b| a.at[0].total_cmp(&b.at[0]));
        }
        let causal = if kind.causal { "causal" } else { "not causal" };
        Some(Chart {
            title: format!(
                "Batch {}, {} query heads, {} key heads of {} channels, {causal}",
                kind.batch, kind.heads, kind.kv_heads, kind.head_dim
            ),
            x: Axis {
                label: "positions".into(),
                ticks: lengths,
            },
            y: Axis::around("ms", measured.iter().filter_map(|entry| entry.ms)),
            series,
            roof: None,
            joined: true,
        })
    }

    /// The points of each engine that has any.
    fn series(&self, point: impl Fn(&Entry) -> Option<Point>) -> Vec<Series> {
        let engines = self.engines().into_iter().enumerate();
        let series = engines.map(|(index, engine)| {
            let of_engine = self.entries.iter().filter(|entry| entry.engine == engine.engine);
            Series {
                colour: index % COLOURS,
                square: index / COLOURS % 2 == 1,
                hollow: engine.hollow,
                points: of_engine.filter_map(&point).collect(),
            }
        });
        series.filter(|series| !series.points.is_empty()).collect()
    }
}

/// What a case asks for.
#[derive(Clone, Copy)]
struct Work {
    flops: f64,
    /// Of query, key, value and out, in `f32`.
    bytes: f64,
}

impl Work {
    fn of(entry: &Entry) -> anyhow::Result<Self> {
        let case = Case {
            name: entry.case.clone(),
            set: String::new(),
            sizes: entry.sizes,
        };
        let sizes = entry.sizes;
        let channels = f64::from(sizes.head_dim + sizes.head_dim_v);
        let rows =
            f64::from(sizes.heads) * f64::from(sizes.seqlen_q) + f64::from(sizes.kv_heads) * f64::from(sizes.seqlen_k);
        Ok(Self {
            flops: flops(&Problem::new(&case.descriptor())?),
            bytes: 4.0 * f64::from(sizes.batch) * rows * channels,
        })
    }

    fn intensity(self) -> f64 {
        self.flops / self.bytes
    }

    fn gflops(self, ms: f64) -> f64 {
        self.flops / ms * 1e-6
    }
}

/// Whether two cases differ in nothing but their length.
fn is_kind(a: &Sizes, b: &Sizes) -> bool {
    let of = |sizes: &Sizes| {
        let heads = [sizes.batch, sizes.heads, sizes.kv_heads];
        (heads, sizes.head_dim, sizes.head_dim_v, sizes.causal)
    };
    of(a) == of(b)
}

fn table(points: &[(&Entry, Work)]) -> String {
    let mut text =
        "<h2>All numbers</h2>\n<div class=\"scroll\"><table>\n<tr><th>case</th><th>sizes</th><th>engine</th>\
                    <th>ms</th><th>GFLOP/s</th><th></th></tr>\n"
            .to_owned();
    for (entry, work) in points {
        let number = |value: Option<f64>| value.map(significant).unwrap_or_default();
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            escape(&entry.case),
            escape(&entry.sizes.describe()),
            escape(&entry.engine),
            number(entry.ms),
            number(entry.ms.map(|ms| work.gflops(ms))),
            escape(&entry.note)
        );
    }
    text + "</table></div>\n<p>Sizes: batch x heads(/kv_heads) x seqlen_q x seqlen_k x head_dim.</p>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::peers::record::tests::records;

    #[test]
    fn the_page_needs_nothing_else_and_shows_all_that_is_right() {
        let page = Page::of_records(&records()).html().unwrap();
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        // The roofline, and the one kind of two lengths.
        assert_eq!(page.matches("<svg").count(), 2);
        assert_eq!(page.matches("class=\"roof\"").count(), 1);
        // Four right results on the roofline and as many over the lengths.
        assert_eq!(page.matches("<circle").count(), 8);
        for tag in ["svg", "g", "table", "figure", "ul", "div", "html", "body"] {
            let count = |what: String| page.matches(&what).count();
            assert_eq!(
                count(format!("<{tag}>")) + count(format!("<{tag} ")),
                count(format!("</{tag}>")),
                "{tag}"
            );
        }
        assert!(page.contains("&quot;quoted&quot;") && !page.contains("\"quoted\""));
        assert!(page.contains("wrong") && page.contains("failed: lost"));
        // The two cases of ours are named on the roofline.
        assert_eq!(page.matches(">B</text>").count(), 1);
        assert_eq!(page.matches(">G</text>").count(), 1);
        // B: 4 x 8 x 512 x 512 x 64 operations in 12.5 ms.
        assert!(
            page.contains("B, wgpu-attention as planned: 12.5 ms, 42.9 GFLOP/s"),
            "{page}"
        );
        assert!(!page.contains("NaN") && !page.contains("inf "));
    }

    #[test]
    fn bytes_are_those_of_the_operands() {
        let page = Page::of_records(&records());
        let work = Work::of(&page.entries[0]).unwrap();
        assert_eq!(work.bytes, 4.0 * 4.0 * 8.0 * 512.0 * 64.0);
        assert_eq!(work.flops, 4.0 * 8.0 * 512.0 * 512.0 * 64.0);
    }

    #[test]
    fn a_page_without_results_is_a_page() {
        let mut records = records();
        records.retain(|record| record.status != Status::Right);
        let page = Page::of_records(&records).html().unwrap();
        assert_eq!(page.matches("<svg").count(), 0);
        assert!(page.contains("failed: lost"));
    }
}
