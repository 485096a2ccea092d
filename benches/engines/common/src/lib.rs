//! Shared by the peers written in Rust: the case, its inputs, the reference in `f64`, the clock, and the line that is printed.
//! `attn bench --peers` starts one process for a case and tells it by three variables:
//!
//! - `ATTN_CASE`: a line of `benches/cases.csv`;
//! - `ATTN_SECONDS`: the time for the repeated runs;
//! - `ATTN_REFERENCES`: a folder in which references are kept, since they take longer than most peers.
//!
//! Tensors are `[batch, heads, seqlen, head_dim]`, without gaps.

use std::env;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Instant;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub batch: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub seqlen_q: usize,
    pub seqlen_k: usize,
    pub head_dim: usize,
    /// The last query sees the last key.
    pub causal: bool,
}

/// Query, key and value.
pub struct Inputs {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

/// Times in ms, and the error that was found before they were taken.
pub struct Measured {
    pub first_ms: f64,
    pub runs_ms: Vec<f64>,
    pub max_abs_err: f64,
}

/// Who answers, and how.
pub struct Answer<'a> {
    pub engine: &'a str,
    pub version: &'a str,
    pub variant: &'a str,
    pub adapter: &'a str,
    pub dtype: &'a str,
}

impl Case {
    /// The case of `ATTN_CASE`.
    pub fn from_env() -> Self {
        let line = env::var("ATTN_CASE").expect("ATTN_CASE: a line of benches/cases.csv");
        Self::parse(&line).unwrap_or_else(|| panic!("ATTN_CASE is {line:?}, and no line of benches/cases.csv"))
    }

    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.trim().split(',').collect();
        let size = |index: usize| fields.get(index)?.parse().ok();
        let case = Self {
            name: fields[0].to_owned(),
            batch: size(2)?,
            heads: size(3)?,
            kv_heads: size(4)?,
            seqlen_q: size(5)?,
            seqlen_k: size(6)?,
            head_dim: size(7)?,
            causal: fields.get(9)?.parse().ok()?,
        };
        // The peers know one head_dim.
        (fields.len() == 10 && size(8)? == case.head_dim).then_some(case)
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub fn q_shape(&self) -> [usize; 4] {
        [self.batch, self.heads, self.seqlen_q, self.head_dim]
    }

    pub fn kv_shape(&self) -> [usize; 4] {
        [self.batch, self.kv_heads, self.seqlen_k, self.head_dim]
    }

    pub fn inputs(&self) -> Inputs {
        let count = |shape: [usize; 4]| shape.iter().product();
        Inputs {
            q: noise(1, count(self.q_shape())),
            k: noise(2, count(self.kv_shape())),
            v: noise(3, count(self.kv_shape())),
        }
    }

    /// softmax(q kᵀ · scale) v in `f64`. `dtype` names the inputs in the folder of references.
    pub fn reference(&self, inputs: &Inputs, dtype: &str) -> Vec<f64> {
        let file = env::var_os("ATTN_REFERENCES").map(|folder| {
            let sizes = [
                self.batch,
                self.heads,
                self.kv_heads,
                self.seqlen_q,
                self.seqlen_k,
                self.head_dim,
            ];
            let sizes = sizes.map(|size| size.to_string()).join("x");
            PathBuf::from(folder).join(format!("{sizes}-{}-{dtype}.f64", self.causal))
        });
        let bytes = self.q_shape().iter().product::<usize>() * 8;
        if let Some(kept) = file.as_ref().and_then(|file| std::fs::read(file).ok())
            && kept.len() == bytes
        {
            return kept
                .chunks_exact(8)
                .map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap()))
                .collect();
        }
        let out = self.compute_reference(inputs);
        if let Some(file) = file {
            let bytes: Vec<u8> = out.iter().flat_map(|value| value.to_le_bytes()).collect();
            // The next peer computes it again if it cannot be kept.
            let _ = std::fs::write(file, bytes);
        }
        out
    }

    fn compute_reference(&self, inputs: &Inputs) -> Vec<f64> {
        let dim = self.head_dim;
        let rows = self.batch * self.heads * self.seqlen_q;
        let mut out = vec![0.0; rows * dim];
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
        let rows_a_thread = rows.div_ceil(threads);
        std::thread::scope(|scope| {
            for (thread, chunk) in out.chunks_mut(rows_a_thread * dim).enumerate() {
                scope.spawn(move || {
                    for (index, out) in chunk.chunks_mut(dim).enumerate() {
                        self.reference_row(inputs, thread * rows_a_thread + index, out);
                    }
                });
            }
        });
        out
    }

    fn reference_row(&self, inputs: &Inputs, row: usize, out: &mut [f64]) {
        let dim = self.head_dim;
        let (head, position) = (row / self.seqlen_q, row % self.seqlen_q);
        let group = self.heads / self.kv_heads;
        let kv_head = head / self.heads * self.kv_heads + head % self.heads / group;
        let first = kv_head * self.seqlen_k * dim;
        let open = if self.causal {
            (position + 1 + self.seqlen_k)
                .saturating_sub(self.seqlen_q)
                .min(self.seqlen_k)
        } else {
            self.seqlen_k
        };
        let query = &inputs.q[row * dim..][..dim];
        let scores: Vec<f64> = (0..open)
            .map(|at| {
                let key = &inputs.k[first + at * dim..][..dim];
                let mut sums = [0.0; 8];
                for (index, (q, k)) in query.iter().zip(key).enumerate() {
                    sums[index % 8] += f64::from(*q) * f64::from(*k);
                }
                sums.iter().sum::<f64>() / (dim as f64).sqrt()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        for (at, score) in scores.iter().enumerate() {
            let weight = (score - max).exp();
            sum += weight;
            let value = &inputs.v[first + at * dim..][..dim];
            for (out, value) in out.iter_mut().zip(value) {
                *out += weight * f64::from(*value);
            }
        }
        if sum > 0.0 {
            out.iter_mut().for_each(|out| *out /= sum);
        }
    }
}

/// Numbers of variance 1, the same in `attn bench` and in every harness: four 16-bit uniforms of one splitmix64 word, summed,
/// centred and scaled.
pub fn noise(stream: u64, count: usize) -> Vec<f32> {
    (0..count as u64)
        .map(|index| {
            let word = (stream << 40).wrapping_add(index).wrapping_add(1);
            let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let word = word ^ (word >> 31);
            let sum = (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48);
            ((sum as f64 - 131_070.0) * (3.0f64.sqrt() / 65_536.0)) as f32
        })
        .collect()
}

/// `[batch, x, y, dim]` to `[batch, y, x, dim]`.
pub fn swap(values: &[f32], [batch, x, y, dim]: [usize; 4]) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for b in 0..batch {
        for i in 0..x {
            for j in 0..y {
                let from = ((b * x + i) * y + j) * dim;
                let to = ((b * y + j) * x + i) * dim;
                out[to..to + dim].copy_from_slice(&values[from..from + dim]);
            }
        }
    }
    out
}

/// Runs once, compares, and only then times: at least five runs until the seconds are spent, at most 200, and one alone if it
/// takes ten times the seconds. `run` returns when the device is done, with what `fetch` makes numbers of.
pub fn measure<T>(expected: &[f64], mut run: impl FnMut() -> T, fetch: impl FnOnce(T) -> Vec<f32>) -> Measured {
    let seconds = env::var("ATTN_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1.0);
    let mut lap = || {
        let start = Instant::now();
        let out = run();
        (start.elapsed().as_secs_f64() * 1e3, out)
    };
    let (first_ms, out) = lap();
    let max_abs_err = max_abs_err(&fetch(out), expected);
    // What is tuned at the second run is no steady state yet.
    let warm_ms = lap().0;
    if warm_ms > 1e4 * seconds {
        return Measured {
            first_ms,
            runs_ms: vec![warm_ms],
            max_abs_err,
        };
    }
    let (start, mut runs_ms) = (Instant::now(), Vec::new());
    while runs_ms.len() < 5 || (runs_ms.len() < 200 && start.elapsed().as_secs_f64() < seconds) {
        runs_ms.push(lap().0);
    }
    Measured {
        first_ms,
        runs_ms,
        max_abs_err,
    }
}

/// NaN where a number is NaN, or where some are missing.
fn max_abs_err(out: &[f32], expected: &[f64]) -> f64 {
    if out.len() != expected.len() {
        return f64::NAN;
    }
    let mut most = 0.0;
    for (out, expected) in out.iter().zip(expected) {
        let difference = (f64::from(*out) - expected).abs();
        if difference.is_nan() {
            return f64::NAN;
        }
        most = f64::max(most, difference);
    }
    most
}

impl Answer<'_> {
    /// Prints the line of a measurement.
    pub fn report(&self, case: &Case, measured: &Measured) {
        let mut runs = measured.runs_ms.clone();
        runs.sort_by(f64::total_cmp);
        self.print(
            case,
            &format!(
                "\"median_ms\":{:.5},\"min_ms\":{:.5},\"runs\":{},\"first_ms\":{:.3},\"max_abs_err\":\"{:.2e}\"",
                runs[runs.len() / 2],
                runs[0],
                runs.len(),
                measured.first_ms,
                measured.max_abs_err
            ),
        );
    }

    /// Says that the engine has no way to compute this case.
    pub fn skip(&self, case: &Case, why: &str) {
        self.print(case, &format!("\"skip\":\"{}\"", plain(why)));
    }

    /// Reports what `run` measures, or that it panicked.
    pub fn guard(&self, case: &Case, run: impl FnOnce() -> Measured) {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(measured) => self.report(case, &measured),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let why = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                self.print(case, &format!("\"error\":\"{}\"", plain(why)));
            }
        }
    }

    fn print(&self, case: &Case, rest: &str) {
        println!(
            "{{\"engine\":\"{}\",\"version\":\"{}\",\"variant\":\"{}\",\"adapter\":\"{}\",\"dtype\":\"{}\",\"case\":\"{}\",{rest}}}",
            plain(self.engine),
            plain(self.version),
            plain(self.variant),
            plain(self.adapter),
            plain(self.dtype),
            plain(&case.name)
        );
        // The next variant may take the process down.
        let _ = std::io::stdout().flush();
    }
}

/// Text that needs no escapes in JSON.
fn plain(text: &str) -> String {
    text.replace(
        |character: char| character.is_control() || matches!(character, '"' | '\\'),
        " ",
    )
}

/// Whether `ATTN_VARIANTS` names this one, or nothing.
pub fn wanted(variant: &str) -> bool {
    let names = env::var("ATTN_VARIANTS").unwrap_or_default();
    names.is_empty() || names.split(',').any(|name| name == variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in `attn bench`, src/bin/attn/bench/noise.rs.
    #[test]
    fn the_numbers_are_the_benchs() {
        assert_eq!(noise(1, 3), [-1.991_107_8, -1.755_625_5, 0.723_255_93]);
        assert_eq!(noise(3, 2), [-0.648_197_6, 0.134_761_47]);
    }

    #[test]
    fn lines_are_cases() {
        let case = Case::parse("F,peers,1,32,8,1,4096,128,128,false").unwrap();
        assert_eq!((case.q_shape(), case.kv_shape()), ([1, 32, 1, 128], [1, 8, 4096, 128]));
        assert!(Case::parse("F,peers,1,32,8,1,4096,128,64,false").is_none());
        assert!(Case::parse("F,peers,1,32").is_none());
    }

    #[test]
    fn a_row_sees_what_is_open() {
        let mut case = Case::parse("x,y,1,1,1,2,3,1,1,true").unwrap();
        let inputs = Inputs {
            q: vec![0.0; 2],
            k: vec![1.0; 3],
            v: vec![1.0, 2.0, 6.0],
        };
        assert_eq!(case.compute_reference(&inputs), [1.5, 3.0]);
        case.causal = false;
        assert_eq!(case.compute_reference(&inputs), [3.0, 3.0]);
    }
}
