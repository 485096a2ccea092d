//! What a peer's process prints: one line of JSON for each way in which it computed the case.

use serde::Deserialize;

/// One answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Which of its ways it took; may be empty.
    pub variant: String,
    /// Empty where it does not say.
    pub version: String,
    pub adapter: String,
    pub dtype: Dtype,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Measured(Measured),
    /// It cannot express this case.
    Skipped(String),
    /// It tried and failed.
    Failed(String),
}

/// Times in ms, and the largest difference from a reference in `f64`, which may be NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    pub median_ms: f64,
    pub min_ms: f64,
    pub runs: u64,
    pub first_ms: Option<f64>,
    pub max_abs_err: f64,
}

/// Storage of query, key and value.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    #[default]
    F32,
    F16,
    Bf16,
}

impl Dtype {
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::F16 => "f16",
            Dtype::Bf16 => "bf16",
        }
    }

    /// Between 1 and the next larger number.
    pub fn epsilon(self) -> f64 {
        match self {
            Dtype::F32 => f64::from(f32::EPSILON),
            Dtype::F16 => 2f64.powi(-10),
            Dtype::Bf16 => 2f64.powi(-7),
        }
    }
}

/// The line as it is printed. Other members are left alone.
#[derive(Deserialize)]
struct Line {
    case: String,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    adapter: String,
    #[serde(default)]
    dtype: Dtype,
    median_ms: Option<f64>,
    min_ms: Option<f64>,
    runs: Option<u64>,
    first_ms: Option<f64>,
    max_abs_err: Option<Number>,
    error: Option<String>,
    skip: Option<String>,
}

/// JSON has no NaN, which is an error worth telling: as text it is one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(f64),
    Text(String),
}

/// The answers about a case, or what is wrong with a line. Lines that do not begin with a brace are libraries' chatter.
pub fn parse(stdout: &str, case: &str) -> Vec<Result<Answer, String>> {
    stdout
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('{'))
        .map(|line| parse_line(line, case))
        .collect()
}

fn parse_line(text: &str, case: &str) -> Result<Answer, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| format!("not a line of results: {error}"))?;
    if line.case != case {
        return Err(format!("asked for case {case}, answered about {:?}", line.case));
    }
    let outcome = match (&line.error, &line.skip) {
        (Some(error), _) => Outcome::Failed(error.clone()),
        (None, Some(why)) => Outcome::Skipped(why.clone()),
        (None, None) => Outcome::Measured(measured(&line)?),
    };
    Ok(Answer {
        variant: line.variant,
        version: line.version,
        adapter: line.adapter,
        dtype: line.dtype,
        outcome,
    })
}

fn measured(line: &Line) -> Result<Measured, String> {
    let max_abs_err = match &line.max_abs_err {
        None => return Err("max_abs_err is missing: its result was not checked".into()),
        Some(Number::Plain(error)) => *error,
        Some(Number::Text(text)) => text
            .parse()
            .map_err(|_| format!("max_abs_err is {text:?}, and no number"))?,
    };
    let time = |name: &str, value: Option<f64>| match value {
        Some(ms) if ms > 0.0 && ms.is_finite() => Ok(ms),
        Some(ms) => Err(format!("{name} is {ms}, and no time")),
        None => Err(format!("{name} is missing")),
    };
    let median_ms = time("median_ms", line.median_ms)?;
    let min_ms = line.min_ms.map_or(Ok(median_ms), |ms| time("min_ms", Some(ms)))?;
    Ok(Measured {
        median_ms,
        min_ms,
        runs: line.runs.unwrap_or(1),
        first_ms: line.first_ms.filter(|ms| *ms >= 0.0),
        max_abs_err,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = r#"{"peer":"burn","version":"0.23","variant":"attention","adapter":"llvmpipe","dtype":"f32","case":"B","median_ms":29.4,"min_ms":28.1,"runs":30,"first_ms":8100.5,"gflops":18.3,"max_abs_err":"3.1e-7"}"#;

    fn error(line: &str) -> String {
        parse(line, "B").remove(0).unwrap_err()
    }

    #[test]
    fn lines_among_chatter_are_read() {
        let text = format!(
            "loading...\n{RIGHT}\n  {{\"case\":\"B\",\"skip\":\"causal only\"}}\n{{\"case\":\"B\",\"error\":\"lost\"}}\nbye"
        );
        let answers: Vec<_> = parse(&text, "B").into_iter().map(Result::unwrap).collect();
        assert_eq!(answers.len(), 3);
        assert_eq!(
            (
                answers[0].variant.as_str(),
                answers[0].version.as_str(),
                answers[0].dtype
            ),
            ("attention", "0.23", Dtype::F32)
        );
        let expected = Measured {
            median_ms: 29.4,
            min_ms: 28.1,
            runs: 30,
            first_ms: Some(8100.5),
            max_abs_err: 3.1e-7,
        };
        assert_eq!(answers[0].outcome, Outcome::Measured(expected));
        assert_eq!(answers[1].outcome, Outcome::Skipped("causal only".into()));
        assert_eq!(answers[2].outcome, Outcome::Failed("lost".into()));
        assert!(parse("no braces here", "B").is_empty());
    }

    #[test]
    fn errors_are_numbers_or_text_and_nan_stays() {
        for (given, expected) in [("1e-6", 1e-6), ("\"1e-6\"", 1e-6), ("\"inf\"", f64::INFINITY)] {
            let line = RIGHT.replace("\"3.1e-7\"", given);
            let Outcome::Measured(measured) = parse(&line, "B").remove(0).unwrap().outcome else {
                panic!("{line}")
            };
            assert_eq!(measured.max_abs_err, expected);
        }
        let nan = RIGHT.replace("3.1e-7", "NaN");
        let Outcome::Measured(measured) = parse(&nan, "B").remove(0).unwrap().outcome else {
            panic!("{nan}")
        };
        assert!(measured.max_abs_err.is_nan());
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        assert!(error(&RIGHT[..60]).contains("not a line of results"));
        assert!(error(&RIGHT.replace("\"B\"", "\"A\"")).contains("asked for case B"));
        assert!(error(&RIGHT.replace("29.4", "0")).contains("median_ms"));
        assert!(error(&RIGHT.replace("29.4", "-1")).contains("median_ms"));
        assert!(error(&RIGHT.replace("\"median_ms\":29.4,", "")).contains("median_ms is missing"));
        assert!(error(&RIGHT.replace("29.4", "\"fast\"")).contains("not a line of results"));
        assert!(error(&RIGHT.replace("\"max_abs_err\":\"3.1e-7\"", "\"x\":1")).contains("not checked"));
        assert!(error(&RIGHT.replace("3.1e-7", "small")).contains("no number"));
        assert!(error(&RIGHT.replace("f32", "f8")).contains("f8"));
    }
}
