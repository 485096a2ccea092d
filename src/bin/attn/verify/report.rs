//! What `attn verify` found, as a table and as JSON.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::Outcome;

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
    pub unreadable: usize,
    pub unsupported: usize,
    pub needs_weights: usize,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed(_) => &mut self.failed,
            Outcome::Unreadable(_) => &mut self.unreadable,
            Outcome::Unsupported(_) => &mut self.unsupported,
            Outcome::NeedsWeights => &mut self.needs_weights,
        } += 1;
    }

    /// Whether every case that could be tried was right.
    pub fn is_good(&self) -> bool {
        self.failed == 0 && self.unreadable == 0
    }
}

/// One case's end.
#[derive(Debug, Serialize)]
pub struct CaseReport {
    pub name: String,
    pub set: String,
    pub optional: bool,
    pub outcome: Outcome,
    /// Largest error of each output compared, as a share of what is allowed.
    pub share_of_tolerance: BTreeMap<String, f64>,
    /// Expected outputs that are not computed yet, gradients above all.
    pub outputs_unsupported: Vec<String>,
    #[serde(skip)]
    pub features: Vec<String>,
}

/// Everything found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub device: String,
    pub total: Counts,
    /// Cases that are stricter than the peers, apart.
    pub optional: Counts,
    pub sets: BTreeMap<String, Counts>,
    pub features: BTreeMap<String, Counts>,
    pub outputs_unsupported: usize,
    pub cases: Vec<CaseReport>,
}

impl Report {
    pub fn add(&mut self, case: CaseReport) {
        if case.optional {
            self.optional.add(&case.outcome);
        } else {
            self.total.add(&case.outcome);
            self.sets.entry(case.set.clone()).or_default().add(&case.outcome);
            for feature in &case.features {
                self.features.entry(feature.clone()).or_default().add(&case.outcome);
            }
        }
        self.outputs_unsupported += case.outputs_unsupported.len();
        self.cases.push(case);
    }

    pub fn print(&self) {
        anstream::println!("{}\n", self.device);
        anstream::println!("{}\n", table("set", &self.sets));
        anstream::println!("{}\n", table("feature", &self.features));
        self.print_reasons();
        let Counts {
            passed,
            failed,
            unreadable,
            unsupported,
            needs_weights,
        } = self.total;
        if needs_weights > 0 {
            anstream::println!("{needs_weights} need a whole model's weights, which the folder does not hold");
        }
        if self.outputs_unsupported > 0 {
            anstream::println!(
                "{} outputs of cases that ran are not computed (gradients)",
                self.outputs_unsupported
            );
        }
        if self.optional.passed + self.optional.failed + self.optional.unsupported > 0 {
            let Counts {
                passed,
                failed,
                unsupported,
                ..
            } = self.optional;
            anstream::println!("optional cases, apart: {passed} passed, {failed} failed, {unsupported} unsupported");
        }
        let worst = self
            .cases
            .iter()
            .flat_map(|case| case.share_of_tolerance.values())
            .fold(0.0f64, |a, &b| a.max(b));
        anstream::println!("largest error: {:.0} % of what is allowed", worst * 100.0);
        anstream::println!("{passed} passed, {failed} failed, {unreadable} unreadable, {unsupported} unsupported");
    }

    fn print_reasons(&self) {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for case in &self.cases {
            match &case.outcome {
                Outcome::Failed(why) => anstream::println!("FAILED {}: {why}", case.name),
                Outcome::Unreadable(why) => anstream::println!("UNREADABLE {}: {why}", case.name),
                Outcome::Unsupported(why) => *reasons.entry(why).or_default() += 1,
                Outcome::Passed | Outcome::NeedsWeights => {}
            }
        }
        for (reason, cases) in reasons {
            anstream::println!("unsupported: {reason} ({cases} cases)");
        }
    }
}

fn table(first: &str, rows: &BTreeMap<String, Counts>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([first, "passed", "failed", "unreadable", "unsupported", "needs weights"]);
    for (name, counts) in rows {
        let Counts {
            passed,
            failed,
            unreadable,
            unsupported,
            needs_weights,
        } = counts;
        let counts = [passed, failed, unreadable, unsupported, needs_weights];
        let dash = |count: &usize| if *count == 0 { "-".to_owned() } else { count.to_string() };
        table.add_row(std::iter::once(name.clone()).chain(counts.into_iter().map(dash)));
    }
    table
}
