//! What a run of cases found, in words and as JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::Ending;

/// At most so many failures are shown.
const MOST_SHOWN: usize = 20;

/// Everything found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub device: String,
    pub seed: u64,
    pub first: u64,
    pub cases: u64,
    /// Answers that were compared and right.
    pub answers: u64,
    /// Answers that nothing could be compared with: beyond the range of singles.
    pub unchecked: u64,
    /// Plans of what would take too much time or memory to run.
    pub planned: u64,
    /// Deserved errors, by variant.
    pub errors: BTreeMap<String, u64>,
    /// The largest error of an answer, as a share of what is allowed, and its case.
    pub largest_error: f64,
    pub largest_error_case: u64,
    /// The slowest case and its milliseconds.
    pub slowest_ms: f64,
    pub slowest_case: u64,
    pub seconds: f64,
    pub failed: u64,
    pub failures: Vec<Failure>,
}

/// A case that did not end as it should.
#[derive(Debug, Serialize)]
pub struct Failure {
    pub case: u64,
    pub what: String,
    pub request: String,
}

impl Report {
    /// Counts a case that took so many milliseconds.
    pub fn add(&mut self, case: u64, milliseconds: f64, result: Result<Ending, Failure>) {
        self.cases += 1;
        if milliseconds > self.slowest_ms {
            (self.slowest_ms, self.slowest_case) = (milliseconds, case);
        }
        match result {
            Ok(Ending::Answer(share)) => {
                self.answers += 1;
                if share > self.largest_error {
                    (self.largest_error, self.largest_error_case) = (share, case);
                }
            }
            Ok(Ending::Unchecked) => self.unchecked += 1,
            Ok(Ending::Planned) => self.planned += 1,
            Ok(Ending::Refused(variant)) => *self.errors.entry(variant).or_default() += 1,
            Err(failure) => {
                self.failed += 1;
                if self.failures.len() < MOST_SHOWN {
                    self.failures.push(failure);
                }
            }
        }
    }

    pub fn print(&self) {
        let Self {
            device,
            seed,
            first,
            cases,
            answers,
            unchecked,
            planned,
            failed,
            ..
        } = self;
        for Failure { case, what, request } in &self.failures {
            anstream::println!(
                "FAILED case {case}: {what}\n{request}\n  attn fuzz --seed {seed} --first {case} --cases 1\n"
            );
        }
        anstream::println!("{device}\n");
        anstream::println!(
            "{cases} cases from number {first} of seed {seed}, in {:.1} s",
            self.seconds
        );
        anstream::println!("{answers} right answers, {unchecked} beyond what can be compared, {planned} planned only");
        let errors: u64 = self.errors.values().sum();
        let variants: Vec<_> = self
            .errors
            .iter()
            .map(|(variant, count)| format!("{variant} {count}"))
            .collect();
        anstream::println!("{errors} deserved errors: {}", variants.join(", "));
        anstream::println!(
            "largest error: {:.0} % of what is allowed (case {}); slowest: {:.0} ms (case {})",
            100.0 * self.largest_error,
            self.largest_error_case,
            self.slowest_ms,
            self.slowest_case
        );
        anstream::println!("{failed} failed");
    }
}
