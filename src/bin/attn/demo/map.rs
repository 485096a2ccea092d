//! A matrix of weights with words on both axes, and its colours.

use anstyle::{Color, RgbColor, Style};

/// `[rows, rows]` weights that sum to 1 along each row.
pub struct Map<'a> {
    pub title: String,
    pub tokens: &'a [String],
    pub weights: Vec<f32>,
}

/// Columns of a cell in the large map: three digits' room and a space either side.
const WIDE_CELL: usize = 6;
/// Columns of a cell in the small maps.
const NARROW_CELL: usize = 2;

impl Map<'_> {
    pub fn weight(&self, row: usize, column: usize) -> f32 {
        self.weights
            .get(row * self.tokens.len() + column)
            .copied()
            .unwrap_or(0.0)
    }

    /// The largest weight, which gets the brightest colour.
    pub fn largest(&self) -> f32 {
        self.weights.iter().copied().fold(f32::MIN_POSITIVE, f32::max)
    }

    /// The words that a row looks at most, most first.
    pub fn top(&self, row: usize, count: usize) -> Vec<(usize, f32)> {
        let mut columns: Vec<_> = (0..self.tokens.len())
            .map(|column| (column, self.weight(row, column)))
            .collect();
        columns.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        columns.truncate(count);
        columns
    }

    /// Lines of a large map: percentages on colour.
    pub fn wide_lines(&self) -> Vec<String> {
        let label = self.label_width();
        let header: String = self
            .tokens
            .iter()
            .map(|token| format!("{:^WIDE_CELL$}", shortened(token, WIDE_CELL - 1)))
            .collect();
        let mut lines = vec![format!("{:label$} {header}", "")];
        for (row, token) in self.tokens.iter().enumerate() {
            let cells: String = (0..self.tokens.len())
                .map(|column| {
                    let percent = (self.weight(row, column) * 100.0).round();
                    self.cell(row, column, &format!("{percent:^WIDE_CELL$}"))
                })
                .collect();
            lines.push(format!("{token:>label$} {cells}"));
        }
        lines
    }

    /// Lines of a small map: colour, with a shade for where there is none.
    pub fn narrow_lines(&self) -> Vec<String> {
        let label = self.label_width();
        let width = label + 1 + NARROW_CELL * self.tokens.len();
        let mut lines = vec![format!("{:width$}", self.title)];
        for (row, token) in self.tokens.iter().enumerate() {
            let cells: String = (0..self.tokens.len())
                .map(|column| {
                    let share = self.weight(row, column) / self.largest();
                    let shade = [' ', '.', ':', '+', '#'][((share * 4.0).round() as usize).min(4)];
                    self.cell(row, column, &shade.to_string().repeat(NARROW_CELL))
                })
                .collect();
            lines.push(format!("{token:>label$} {cells}"));
        }
        lines
    }

    /// Columns that a small map takes.
    pub fn narrow_width(&self) -> usize {
        self.label_width() + 1 + NARROW_CELL * self.tokens.len()
    }

    fn label_width(&self) -> usize {
        self.tokens.iter().map(|token| token.chars().count()).max().unwrap_or(0)
    }

    fn cell(&self, row: usize, column: usize, text: &str) -> String {
        let [red, green, blue] = colour(self.weight(row, column) / self.largest());
        let light = 0.3 * f32::from(red) + 0.6 * f32::from(green) + 0.1 * f32::from(blue) > 130.0;
        let ink = if light {
            RgbColor(0, 0, 0)
        } else {
            RgbColor(255, 255, 255)
        };
        let style = Style::new()
            .bg_color(Some(Color::Rgb(RgbColor(red, green, blue))))
            .fg_color(Some(Color::Rgb(ink)));
        format!("{style}{text}{style:#}")
    }
}

/// A share from 0 to 1 as a colour of matplotlib's viridis (CC0), which reads the same in grey and to the colour-blind.
pub fn colour(share: f32) -> [u8; 3] {
    const VIRIDIS: [[u8; 3]; 9] = [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ];
    let share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    let at = share * (VIRIDIS.len() - 1) as f32;
    let below = (at as usize).min(VIRIDIS.len() - 2);
    let part = at - below as f32;
    std::array::from_fn(|channel| {
        let (from, to) = (
            f32::from(VIRIDIS[below][channel]),
            f32::from(VIRIDIS[below + 1][channel]),
        );
        (from + (to - from) * part).round() as u8
    })
}

fn shortened(token: &str, width: usize) -> String {
    token.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<String> {
        ["a", "bee"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_map_shows_every_weight_and_word() {
        let tokens = tokens();
        let map = Map {
            title: "head 1".into(),
            tokens: &tokens,
            weights: vec![0.25, 0.75, 1.0, 0.0],
        };
        let text = anstream::adapter::strip_str(&map.wide_lines().join("\n")).to_string();
        assert_eq!(text, "      a    bee  \n  a   25    75  \nbee  100    0   ");
        assert_eq!(map.top(0, 1), [(1, 0.75)]);
        assert_eq!(map.narrow_lines().len(), 3);
    }

    #[test]
    fn colours_span_the_scale() {
        assert_eq!(colour(0.0), [68, 1, 84]);
        assert_eq!(colour(1.0), [253, 231, 37]);
        assert_eq!(colour(f32::NAN), colour(0.0));
    }
}
