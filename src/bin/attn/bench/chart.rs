//! A chart with two logarithmic axes, as SVG inside of an HTML page.

use std::fmt::Write as _;

/// What is drawn.
pub struct Chart {
    /// What it shows, in a sentence.
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A line that nothing on the device can be above, with what it is called.
    pub roof: Option<(Vec<[f64; 2]>, String)>,
    /// Whether the points of a series are joined.
    pub joined: bool,
}

/// One axis.
pub struct Axis {
    pub label: String,
    /// Ascending, positive; the axis reaches from the first to the last.
    pub ticks: Vec<f64>,
}

/// Points of one colour.
pub struct Series {
    /// The colour: one of the page's classes.
    pub colour: usize,
    /// Squares instead of circles, where there are more series than colours.
    pub square: bool,
    /// Drawn hollow and dashed: what does not run on the device.
    pub hollow: bool,
    pub points: Vec<Point>,
}

/// One point.
pub struct Point {
    pub at: [f64; 2],
    /// Written above or below; may be empty.
    pub label: String,
    /// Shown when it is pointed at.
    pub tip: String,
}

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 58.0;

impl Axis {
    /// Ticks at 1, 2 and 5 of every power of ten, or at 1 where that would be many, so that they hold all values.
    pub fn around(label: &str, values: impl Iterator<Item = f64> + Clone) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let decades = (most / least).log10();
        let steps: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let (first, last) = (least.log10().floor() as i32, most.log10().floor() as i32 + 1);
        let all: Vec<f64> = (first..=last)
            .flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)))
            .collect();
        let begin = all.iter().rposition(|&tick| tick <= least).unwrap_or(0);
        let end = all
            .iter()
            .position(|&tick| tick >= most && tick > all[begin])
            .unwrap_or(all.len() - 1);
        Self {
            label: label.into(),
            ticks: all[begin..=end].to_vec(),
        }
    }

    /// Where a value lies, from 0 at the first tick to 1 at the last.
    fn share(&self, value: f64) -> f64 {
        let (first, last) = (self.ticks[0], self.ticks[self.ticks.len() - 1]);
        if last > first {
            (value / first).ln() / (last / first).ln()
        } else {
            0.5
        }
    }
}

impl Chart {
    /// The chart as an `svg` element.
    pub fn svg(&self) -> String {
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escape(&self.title)
        );
        self.axes(&mut svg);
        if let Some((line, name)) = &self.roof {
            let path = self.path(line.iter().copied());
            let _ = writeln!(
                svg,
                "<path class=\"roof\" d=\"{path}\"><title>{}</title></path>",
                escape(name)
            );
        }
        for series in &self.series {
            self.draw(&mut svg, series);
        }
        svg + "</svg>\n"
    }

    fn axes(&self, svg: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for &tick in &self.x.ticks {
            let [x, _] = self.place([tick, self.y.ticks[0]]);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                plain(tick)
            );
        }
        for &tick in &self.y.ticks {
            let [_, y] = self.place([self.x.ticks[0], tick]);
            let _ = writeln!(
                svg,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                plain(tick)
            );
        }
        let middle = (TOP + bottom) / 2.0;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(18 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 12.0,
            escape(&self.x.label),
            escape(&self.y.label)
        );
    }

    fn draw(&self, svg: &mut String, series: &Series) {
        let hollow = if series.hollow { " hollow" } else { "" };
        let _ = writeln!(svg, "<g class=\"c{}{hollow}\">", series.colour);
        if self.joined && series.points.len() > 1 {
            let path = self.path(series.points.iter().map(|point| point.at));
            let _ = writeln!(svg, "<path class=\"line\" d=\"{path}\"/>");
        }
        // Above and below in turn, so that neighbours do not cover each other.
        for (point, above) in series.points.iter().zip([true, false].into_iter().cycle()) {
            let [x, y] = self.place(point.at);
            let _ = writeln!(
                svg,
                "{}<title>{}</title></{}>",
                if series.square {
                    format!(
                        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\">",
                        x - 4.0,
                        y - 4.0
                    )
                } else {
                    format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\">")
                },
                escape(&point.tip),
                if series.square { "rect" } else { "circle" }
            );
            if !point.label.is_empty() {
                let _ = writeln!(
                    svg,
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    if above { y - 9.0 } else { y + 18.0 },
                    escape(&point.label)
                );
            }
        }
        svg.push_str("</g>\n");
    }

    fn path(&self, points: impl Iterator<Item = [f64; 2]>) -> String {
        let mut path = String::new();
        for (point, command) in points.zip(std::iter::once('M').chain(std::iter::repeat('L'))) {
            let [x, y] = self.place(point);
            let _ = write!(path, "{command}{x:.1} {y:.1}");
        }
        path
    }

    fn place(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            LEFT + self.x.share(x) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - self.y.share(y) * (HEIGHT - TOP - BOTTOM),
        ]
    }
}

/// Text for HTML, in elements and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A tick without the traces of its computation.
fn plain(tick: f64) -> String {
    let digits = usize::try_from(-(tick.log10().floor() as i32)).unwrap_or(0);
    format!("{tick:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_hold_all_values() {
        let ticks = |values: &[f64]| Axis::around("", values.iter().copied()).ticks;
        assert_eq!(ticks(&[3.0, 40.0]), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(ticks(&[0.03, 400.0]), [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(ticks(&[10.0]), [10.0, 20.0]);
        let close = ticks(&[9.0, 9.5]);
        assert!(close[0] <= 9.0 && close[close.len() - 1] >= 9.5, "{close:?}");
        assert_eq!(
            ["0.01", "0.5", "1", "200"],
            [0.01, 0.5, 1.0, 200.0].map(plain).map(|tick| tick.leak() as &str)
        );
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let axis = |ticks: &[f64]| Axis {
            label: "x < y".into(),
            ticks: ticks.to_vec(),
        };
        let chart = Chart {
            title: "\"a\" & b".into(),
            x: axis(&[1.0, 10.0, 100.0]),
            y: axis(&[1.0, 100.0]),
            series: vec![Series {
                colour: 3,
                square: false,
                hollow: true,
                points: [1.0, 10.0, 100.0]
                    .map(|at| Point {
                        at: [at, at],
                        label: "<l>".into(),
                        tip: "tip".into(),
                    })
                    .into(),
            }],
            roof: Some((vec![[1.0, 1.0], [100.0, 100.0]], "roof".into())),
            joined: true,
        };
        let bottom = HEIGHT - BOTTOM;
        assert_eq!(chart.place([1.0, 1.0]), [LEFT, bottom]);
        assert_eq!(chart.place([100.0, 100.0]), [WIDTH - RIGHT, TOP]);
        let [x, y] = chart.place([10.0, 10.0]);
        assert!((x - (LEFT + WIDTH - RIGHT) / 2.0).abs() < 1e-9 && (y - (TOP + bottom) / 2.0).abs() < 1e-9);
        let svg = chart.svg();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(
            svg.contains("class=\"c3 hollow\"") && svg.contains("class=\"roof\"") && svg.contains("class=\"line\"")
        );
        assert!(svg.contains("&quot;a&quot; &amp; b") && svg.contains("&lt;l&gt;") && svg.contains("x &lt; y"));
        assert!(!svg.contains("NaN"));
        let mut chart = chart;
        chart.series[0].square = true;
        assert_eq!(chart.svg().matches("<rect").count(), 3);
    }
}
