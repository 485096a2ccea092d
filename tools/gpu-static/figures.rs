//! A kernel's figures, as a line of a table; and which are worse than others.

/// What a table says of one kernel on one GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The kernel's name.
    pub kernel: String,
    /// What `digest` makes of its WGSL.
    pub text: String,
    /// In the order of [`FIGURES`].
    pub figures: [f64; FIGURES.len()],
}

/// One column.
pub struct Figure {
    /// Its name.
    pub name: &'static str,
    /// When it is worse than it was.
    pub worse: Worse,
}

/// When a figure is worse.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Worse {
    /// It only describes.
    Never,
    /// When it is greater by more than this share of what it was.
    Greater(f64),
    /// When it is less by more than this.
    Less(f64),
}

const fn figure(name: &'static str, worse: Worse) -> Figure {
    Figure { name, worse }
}

/// The columns besides kernel and text. Shares and what is in the loop are of the main loop.
pub const FIGURES: [Figure; 14] = [
    figure("subgroup_size", Worse::Never),
    figure("vgprs", Worse::Greater(0.0)),
    figure("sgprs", Worse::Never),
    figure("spilled_vgprs", Worse::Greater(0.0)),
    figure("spilled_sgprs", Worse::Greater(0.0)),
    figure("scratch_bytes", Worse::Greater(0.0)),
    figure("workgroup_bytes", Worse::Greater(0.0)),
    figure("waves_per_simd", Worse::Less(0.0)),
    figure("code_bytes", Worse::Greater(0.02)),
    figure("loop_instructions", Worse::Greater(0.02)),
    figure("multiply_adds_of_vector", Worse::Less(0.005)),
    figure("multiply_adds_of_all", Worse::Less(0.005)),
    figure("loop_lds_loads", Worse::Greater(0.0)),
    figure("loop_lds_loads_of_4_bytes", Worse::Greater(0.0)),
];

/// The first line of a table below its comments.
pub fn header() -> String {
    let names: Vec<_> = FIGURES.iter().map(|figure| figure.name).collect();
    format!("kernel,text,{}", names.join(","))
}

impl Row {
    /// The line of a table.
    pub fn line(&self) -> String {
        let figures: Vec<_> = self.figures.iter().map(f64::to_string).collect();
        format!("{},{},{}", self.kernel, self.text, figures.join(","))
    }

    /// Reads a line of a table.
    pub fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(',');
        let (kernel, text) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        let figures: Vec<f64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self {
            kernel,
            text,
            figures: figures.try_into().ok()?,
        })
    }

    /// A sentence for each figure that is worse than it was in `row`.
    pub fn worse_than(&self, row: &Row) -> Vec<String> {
        let pairs = FIGURES.iter().zip(self.figures.iter().zip(row.figures));
        pairs
            .filter(|&(figure, (&is, was))| match figure.worse {
                Worse::Never => false,
                Worse::Greater(share) => is > was * (1.0 + share),
                Worse::Less(margin) => is < was - margin,
            })
            .map(|(figure, (is, was))| format!("{}: {} is {is}, was {was}", self.kernel, figure.name))
            .collect()
    }
}

/// A table: comments, the header, and a line a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// The driver that the figures are from.
    pub driver: String,
    /// In order.
    pub rows: Vec<Row>,
}

const DRIVER: &str = "# driver: ";

impl Table {
    /// Reads a table, and says which line is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let driver = text.lines().find_map(|line| line.strip_prefix(DRIVER));
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        if lines.next().is_none_or(|(_, first)| first != header()) {
            return Err(format!("expected the columns {}", header()));
        }
        let row =
            |(at, line)| Row::parse(line).ok_or(format!("line {}: expected {} fields", at + 1, 2 + FIGURES.len()));
        Ok(Self {
            driver: driver.unwrap_or_default().to_owned(),
            rows: lines.map(row).collect::<Result<_, _>>()?,
        })
    }

    /// The table as it is written.
    pub fn text(&self, gpu: &str, date: &str) -> String {
        let mut text = format!(
            "# Static figures of the tuned kernels on {gpu}, from the driver's compiler: nothing ran. See README.md.\n\
             {DRIVER}{}\n# date: {date}\n# command: tools/gpu-static.sh\n{}\n",
            self.driver,
            header()
        );
        for row in &self.rows {
            text.push_str(&row.line());
            text.push('\n');
        }
        text
    }

    /// The row of a kernel.
    pub fn row(&self, kernel: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.kernel == kernel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figures: [f64; FIGURES.len()]) -> Row {
        Row {
            kernel: "fused".into(),
            text: "0123".into(),
            figures,
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let table = Table {
            driver: "radv Mesa 25.0.7".into(),
            rows: vec![row([0.5; FIGURES.len()])],
        };
        let text = table.text("navi31", "2026-11-25");
        assert_eq!(Table::parse(&text), Ok(table));
        assert!(Table::parse(&text.replace("vgprs", "registers")).is_err());
        assert!(
            Table::parse(&text.replace("0.5\n", "0.5,1\n"))
                .unwrap_err()
                .contains("line 6")
        );
    }

    /// Each figure alone, made worse and better by a tenth and more.
    #[test]
    fn what_is_worse_is_said() {
        let was = row([10.0; FIGURES.len()]);
        assert_eq!(was.worse_than(&was), [""; 0]);
        for (index, figure) in FIGURES.iter().enumerate() {
            let [greater, less] = [12.0, 8.0].map(|value| {
                let mut is = was.clone();
                is.figures[index] = value;
                is.worse_than(&was)
            });
            let (worse, better) = match figure.worse {
                Worse::Never => (vec![], [greater, less].concat()),
                Worse::Greater(_) => (greater, less),
                Worse::Less(_) => (less, greater),
            };
            assert_eq!(better, [""; 0], "{}", figure.name);
            assert_eq!(worse.len(), usize::from(figure.worse != Worse::Never));
            assert!(worse.iter().all(|sentence| sentence.contains(figure.name)));
        }
        // A spill where there was none.
        let mut none = was.clone();
        none.figures[3] = 0.0;
        assert_eq!(was.worse_than(&none).len(), 1);
    }
}
