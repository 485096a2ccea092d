//! Whether an answer is right: against the reference in `f64`, as far off as single precision may be.

use wgpu_attention::problem::Extent;
use wgpu_attention::reference::{self, Precision, Reference};
use wgpu_attention::{AttentionDescriptor, DType, HostInputs, Operand, Problem};

use super::data::{Data, for_each_element};
use super::mods;
use super::run::Answer;

/// Beyond this a score is too near to the largest single for its roundings to mean anything.
const MOST: f64 = 1e30;
/// A weight whose score lies this far below its row's largest may be 0 in singles.
const FAR: f64 = 80.0;
/// Units in the last place of the largest number that a result went through.
const ULPS: f64 = 4.0;

/// What an answer was compared with.
pub struct Expected {
    want: Reference,
    naive: Reference,
    magnitudes: Magnitudes,
}

/// How large the numbers are that the results are made of: what their roundings cost is in proportion.
#[derive(Clone, Copy, Debug)]
struct Magnitudes {
    score: f64,
    value: f64,
    weight: f64,
}

impl Expected {
    /// Computes what is right; `None` where nothing can be said of it.
    pub fn new(descriptor: &AttentionDescriptor<'_>, problem: &Problem, data: &Data) -> Result<Option<Self>, String> {
        let mods = &descriptor.mods;
        let shape = problem.shape();
        let captures = data.captures();
        let inputs = data.host(&captures);
        let Some(twins) = mods::twins(mods) else {
            return Ok(None);
        };
        let beyond_captures =
            !mods.captures.is_empty() && (shape.seqlen_q.max(shape.seqlen_k) > 1024 || shape.heads > 64);
        let magnitudes = Magnitudes::new(problem, data, &inputs, descriptor.rope.is_some());
        if beyond_captures || magnitudes.score.max(magnitudes.value) > MOST {
            return Ok(None);
        }
        let compute = |precision| {
            reference::attention_with(precision, problem, &inputs, &twins)
                .map_err(|error| format!("the reference: {error}"))
        };
        Ok(Some(Self {
            want: compute(Precision::F64)?,
            naive: compute(Precision::F32)?,
            magnitudes,
        }))
    }

    /// What the naive computation gives: right, but not the same.
    #[cfg(test)]
    pub fn naive_answer(&self, problem: &Problem) -> Answer {
        let single = |numbers: &[f64]| numbers.iter().map(|&number| number as f32).collect::<Vec<_>>();
        let dtype = problem.dtype(Operand::Out);
        Answer {
            out: dtype.widen(&dtype.narrow(&single(&self.naive.out))),
            lse: Some(single(&self.naive.lse)),
            weights: Some(single(&self.naive.weights)),
            scores: Some(single(&self.naive.scores)),
        }
    }

    /// Compares an answer; the largest error as a share of what is allowed.
    pub fn check(&self, problem: &Problem, answer: &Answer) -> Result<f64, String> {
        let Magnitudes { score, value, weight } = self.magnitudes;
        let Reference {
            out,
            lse,
            weights,
            scores,
        } = &self.want;
        let dtype = problem.dtype(Operand::Out);
        let mut share = self::check(&Compared {
            what: "out",
            got: &answer.out,
            want: out,
            naive: &self.naive.out,
            size: (1.0 + score) * value * weight,
            dtype,
            extent: problem.extent(Operand::Out),
            vanishing: score > FAR / 2.0,
        })?;
        for (what, got, want, naive, size, operand) in [
            ("lse", &answer.lse, lse, &self.naive.lse, 1.0 + score, Operand::Lse),
            (
                "weights",
                &answer.weights,
                weights,
                &self.naive.weights,
                (1.0 + score) * weight,
                Operand::Weights,
            ),
            (
                "scores",
                &answer.scores,
                scores,
                &self.naive.scores,
                score,
                Operand::Scores,
            ),
        ] {
            let wanted = problem.has(operand);
            match got {
                Some(_) if !wanted => return Err(format!("{what} came, though nobody asked for it")),
                None if wanted => return Err(format!("{what} is missing")),
                None => {}
                Some(got) => {
                    share = share.max(self::check(&Compared {
                        what,
                        got,
                        want,
                        naive,
                        size,
                        dtype: DType::F32,
                        extent: problem.extent(operand),
                        vanishing: false,
                    })?);
                }
            }
        }
        Ok(share)
    }
}

impl Magnitudes {
    fn new(problem: &Problem, data: &Data, inputs: &HostInputs<'_>, turns: bool) -> Self {
        let most = |operand: Operand| {
            data.get(operand).map_or(0.0, |array| {
                let len = array.bytes().len();
                let sizes = (0..len).map(|index| f64::from(array.at(index)).abs());
                sizes.filter(|size| size.is_finite()).fold(0.0, f64::max)
            })
        };
        let shape = problem.shape();
        let positions = f64::from(shape.seqlen_q) + f64::from(shape.seqlen_k);
        let channels = f64::from(shape.head_dim);
        // As a sum of random signs: its roundings go with the root of their number, as the sum itself does.
        let product = f64::from(problem.scale()).abs() * channels.sqrt() * most(Operand::Query) * most(Operand::Key);
        // Turned channels have been through two products and a sum more.
        let product = if turns { 2.0 * product } else { product };
        let modified = if inputs.captures.is_empty() {
            0.0
        } else {
            product + positions
        };
        let padding = most(Operand::KeyPadding);
        let added = most(Operand::AlibiSlopes) * positions + most(Operand::Bias) + most(Operand::Sinks) + padding;
        let kept = problem
            .dropout()
            .map_or(1.0, |dropout| 1.0 - f64::from(dropout.probability));
        Self {
            score: product + modified + added + positions.ln(),
            value: most(Operand::Value),
            weight: if inputs.captures.is_empty() { 1.0 } else { 2.0 } / kept,
        }
    }
}

/// One output.
struct Compared<'a> {
    what: &'static str,
    got: &'a [f32],
    want: &'a [f64],
    naive: &'a [f64],
    /// The largest number that it went through.
    size: f64,
    dtype: DType,
    /// Where its elements lie.
    extent: Option<Extent>,
    /// Whether weights are among its factors that a single has as 0: times an infinity they are NaN.
    vanishing: bool,
}

/// Element by element: within twice the error of the naive computation and a few units in the last place of what it went
/// through, then rounded to the storage type. NaN is right only where NaN is wanted, an infinity only where the same one is.
fn check(compared: &Compared<'_>) -> Result<f64, String> {
    let Compared {
        what,
        got,
        want,
        naive,
        size,
        dtype,
        extent,
        vanishing,
    } = compared;
    if got.len() != want.len() {
        return Err(format!("{what} has {} numbers, expected {}", got.len(), want.len()));
    }
    let error = naive.iter().zip(*want).map(|(naive, want)| (naive - want).abs());
    let allowed =
        2.0 * error.filter(|error| error.is_finite()).fold(0.0, f64::max) + ULPS * f64::from(f32::EPSILON) * size;
    let mut share = 0.0f64;
    let mut wrong = None;
    let mut count = 0;
    let mut visit = |index: usize| {
        let (got, want) = (f64::from(got[index]), want[index]);
        let right = if want.is_nan() || want.is_infinite() {
            got == want || (got.is_nan() && (want.is_nan() || *vanishing))
        } else {
            let [least, most] = [want - allowed, want + allowed].map(|bound| rounded(*dtype, bound));
            if *dtype == DType::F32 {
                share = share.max((got - want).abs() / allowed.max(f64::MIN_POSITIVE));
            }
            least <= got && got <= most
        };
        if !right {
            count += 1;
            wrong = wrong.or(Some((index, got, want)));
        }
    };
    match extent {
        Some(extent) => for_each_element(extent, |index, _| visit(index)),
        None => (0..want.len()).for_each(visit),
    }
    match wrong {
        None => Ok(share),
        Some((index, got, want)) => Err(format!(
            "{what}: {count} of {} wrong; the first at {index}: got {got:e}, want {want:e} within {allowed:e}",
            compared.want.len()
        )),
    }
}

/// A number in a storage type.
fn rounded(dtype: DType, number: f64) -> f64 {
    let single = number as f32;
    match dtype {
        // What a single rounds is in the allowance.
        DType::F32 => number,
        _ => dtype
            .widen(&dtype.narrow(&[single]))
            .first()
            .map_or(number, |&number| f64::from(number)),
    }
}
