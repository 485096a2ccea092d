//! Requests that say the same in other words, over random shapes: both ways to compute, on every adapter and tier, they must
//! give what the `f64` reference says of one of them.

mod support;

#[path = "equivalences/masks.rs"]
mod masks;
#[path = "equivalences/rotation.rs"]
mod rotation;
#[path = "equivalences/scores.rs"]
mod scores;
#[path = "equivalences/sequences.rs"]
mod sequences;
#[path = "equivalences/storage.rs"]
mod storage;
#[path = "equivalences/weights.rs"]
mod weights;

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use support::inputs::Numbers;
use support::run::{Mods, Run, run};
use support::{OwnedInputs, Tolerance, compare};
use wgpu_attention::reference::{self, Precision, Reference};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, CausalAlignment, DType, Engine, Operand, Outputs, Problem, Tier,
};

/// One for all tests, so that each kernel is compiled once.
static ENGINES: LazyLock<Vec<(String, Engine)>> = LazyLock::new(support::engines);

/// The most rows that the small tile takes.
const FEW_ROWS: u32 = 8;

const BOTH: [Algorithm; 2] = [Algorithm::Fused, Algorithm::ThreeKernels];

const LSE_AND_WEIGHTS: Outputs = Outputs {
    lse: true,
    weights: true,
    scores: None,
    rows: None,
};

/// A random place to begin at. Sizes on both sides of the tiles' edges; the head sizes stay, since each compiles anew.
#[derive(Clone, Copy, Debug)]
struct Case {
    shape: AttentionShape,
    alignment: CausalAlignment,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let alignment = prop_oneof![Just(CausalAlignment::UpperLeft), Just(CausalAlignment::LowerRight)];
    let rows = prop_oneof![1..=FEW_ROWS, FEW_ROWS + 1..40];
    let sizes = (1u32..3, 1u32..3, 1u32..3, rows, 1u32..70);
    (sizes, alignment, any::<u64>()).prop_map(|(sizes, alignment, seed)| {
        let (batch, kv_heads, group_size, seqlen_q, seqlen_k) = sizes;
        Case {
            shape: AttentionShape {
                kv_heads,
                head_dim_v: 12,
                ..AttentionShape::new(batch, kv_heads * group_size, seqlen_q, seqlen_k, 8)
            },
            alignment,
            seed,
        }
    })
}

impl Case {
    /// Attention with lse and weights.
    fn plain(&self) -> AttentionDescriptor<'static> {
        AttentionDescriptor {
            shape: self.shape,
            outputs: LSE_AND_WEIGHTS,
            ..Default::default()
        }
    }

    /// As [`plain`](Self::plain), with the causal rule.
    fn causal(&self) -> AttentionDescriptor<'static> {
        AttentionDescriptor {
            causal: Some(self.alignment),
            ..self.plain()
        }
    }

    /// The engines to run on: few rows at the higher tiers, more at the least. Some drivers compile slowly, and so each request
    /// makes half the kernels, of either tile and of either tier.
    fn engines(&self) -> impl Iterator<Item = &'static (String, Engine)> {
        let few = self.shape.seqlen_q <= FEW_ROWS;
        let is_least = |engine: &Engine| engine.caps().tier == Tier::Portable;
        ENGINES.iter().filter(move |(_, engine)| few != is_least(engine))
    }

    /// Sizes of a mask or bias of every position.
    fn positions(&self) -> [u32; 4] {
        let shape = self.shape;
        [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k]
    }
}

/// Checks so many random cases, the same in every run.
fn for_cases(count: u32, property: impl Fn(Case) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases: count,
        failure_persistence: None,
        max_shrink_iters: 64,
        ..Default::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    if let Err(failure) = runner.run(&cases(), property) {
        panic!("{failure}");
    }
}

/// A descriptor with its operands, and the caller's functions once more in Rust.
struct Request<'a> {
    descriptor: AttentionDescriptor<'a>,
    inputs: OwnedInputs,
    mods: Mods<'a>,
}

impl<'a> Request<'a> {
    fn new(descriptor: AttentionDescriptor<'a>, inputs: OwnedInputs) -> Self {
        Self {
            descriptor,
            inputs,
            mods: Mods::default(),
        }
    }

    fn random(descriptor: AttentionDescriptor<'a>, seed: u64) -> Self {
        let inputs = OwnedInputs::random(&problem(&descriptor), seed);
        Self::new(descriptor, inputs)
    }

    /// The same operands for another descriptor.
    fn with(&self, descriptor: AttentionDescriptor<'a>) -> Self {
        Self::new(descriptor, self.inputs.clone())
    }

    fn reference(&self, precision: Precision) -> Reference {
        let captures = self.inputs.capture_slices();
        let host = self.inputs.host(&captures);
        reference::attention_with(precision, &problem(&self.descriptor), &host, &self.mods)
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.descriptor))
    }

    fn run(&self, engine: &Engine, algorithm: Algorithm) -> Results {
        let descriptor = AttentionDescriptor {
            algorithm,
            ..self.descriptor.clone()
        };
        let out = problem(&descriptor).dtype(Operand::Out);
        Results::new(out, run(engine, &descriptor, &self.inputs))
    }
}

fn problem(descriptor: &AttentionDescriptor<'_>) -> Problem {
    Problem::new(descriptor).unwrap_or_else(|error| panic!("{descriptor:?}: {error}"))
}

/// What a run computed, as numbers; empty what nobody asked for.
#[derive(Debug, PartialEq)]
struct Results {
    out: Vec<f32>,
    lse: Vec<f32>,
    weights: Vec<f32>,
    scores: Vec<f32>,
}

impl Results {
    fn new(out: DType, run: Run) -> Self {
        let singles = |bytes: Option<Vec<u8>>| DType::F32.widen(&bytes.unwrap_or_default());
        Self {
            out: out.widen(&run.out),
            lse: singles(run.lse),
            weights: singles(run.weights),
            scores: singles(run.scores),
        }
    }
}

/// Both requests give what the reference says of the first.
fn assert_same(case: Case, [first, second]: [&Request<'_>; 2]) -> Result<(), TestCaseError> {
    assert_same_but(0.0, case, [first, second])
}

/// As [`assert_same`], where the scores of the second are off by up to `score_error` for a reason that the test knows.
fn assert_same_but(score_error: f64, case: Case, [first, second]: [&Request<'_>; 2]) -> Result<(), TestCaseError> {
    let wanted = Wanted::new([first, second], score_error);
    wanted.check("the reference", &as_results(&second.reference(Precision::F64)))?;
    for (name, engine) in case.engines() {
        for algorithm in BOTH {
            for (which, request) in [("first", first), ("second", second)] {
                let name = format!("{name}, {algorithm:?}, the {which}");
                wanted.check(&name, &request.run(engine, algorithm))?;
            }
        }
    }
    Ok(())
}

fn as_results(reference: &Reference) -> Results {
    let singles = |numbers: &[f64]| numbers.iter().map(|&number| number as f32).collect();
    Results {
        out: singles(&reference.out),
        lse: singles(&reference.lse),
        weights: singles(&reference.weights),
        scores: singles(&reference.scores),
    }
}

/// What the first of some requests gives, and the naive computation in `f32` of each of them.
struct Wanted {
    want: Reference,
    naive: Vec<Reference>,
    score_error: f64,
}

impl Wanted {
    fn new<'a>(requests: impl IntoIterator<Item = &'a Request<'a>> + Clone, score_error: f64) -> Self {
        let first = requests.clone().into_iter().next().expect("a request");
        Self {
            want: first.reference(Precision::F64),
            naive: requests
                .into_iter()
                .map(|request| request.reference(Precision::F32))
                .collect(),
            score_error,
        }
    }

    fn check(&self, name: &str, got: &Results) -> Result<(), TestCaseError> {
        let Self {
            want,
            naive,
            score_error,
        } = self;
        // Of the requests the one that rounds worst.
        let tolerance = |part: fn(&Reference) -> &[f64]| {
            let of = naive.iter().map(|naive| Tolerance::derived(part(naive), part(want)));
            of.max_by(|a, b| a.absolute.total_cmp(&b.absolute)).expect("a request")
        };
        let mut out = tolerance(|result| &result.out);
        let mut lse = tolerance(|result| &result.lse);
        let mut weights = tolerance(|result| &result.weights);
        // Scores off by e make weights wrong by a factor of up to exp(2 e), and out by as much of the largest value, which
        // is at most 3.4 in size: see OwnedInputs.
        out.absolute += 3.4 * (2.0 * score_error).exp_m1();
        lse.absolute += score_error;
        weights.relative += (2.0 * score_error).exp_m1();
        for (what, got, want, tolerance) in [
            ("out", &got.out, &want.out, out),
            ("lse", &got.lse, &want.lse, lse),
            ("weights", &got.weights, &want.weights, weights),
        ] {
            // The reference has the lse of every request.
            if !(what == "lse" && got.is_empty()) {
                assert_within(&format!("{name}: {what}"), got, want, tolerance)?;
            }
        }
        Ok(())
    }
}

fn assert_within(what: &str, got: &[f32], want: &[f64], tolerance: Tolerance) -> Result<(), TestCaseError> {
    compare(got, want, tolerance).map_err(|mismatch| TestCaseError::fail(format!("{what}: {mismatch}")))
}

/// Rows `rows` of each of the `[.., seqlen, channels]` blocks of an operand.
fn rows_of(numbers: &[f32], [seqlen, channels]: [u32; 2], rows: std::ops::Range<u32>) -> Vec<f32> {
    let rows = (rows.start * channels) as usize..(rows.end * channels) as usize;
    let blocks = numbers.chunks_exact((seqlen * channels) as usize);
    blocks.flat_map(|block| &block[rows.clone()]).copied().collect()
}
