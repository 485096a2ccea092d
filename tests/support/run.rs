//! One call, run and compared: outputs poisoned, twice, against the `f64` reference.

use std::fmt::Debug;

use wgpu_attention::problem::Extent;
use wgpu_attention::reference::{self, Precision, ReferenceMods};
use wgpu_attention::{AttentionDescriptor, BufferAt, DType, Engine, Inputs, Operand, OutputBuffers, Problem, Tensor};

use super::inputs::for_each_element;
use super::{OwnedInputs, Tolerance, compare};

/// What outputs hold before a run: a NaN of a pattern that no computation makes, as two halves too.
pub const POISON: u32 = 0x7fdd_7fdd;

/// The raw results of one run, gaps included.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub out: Vec<u8>,
    pub lse: Option<Vec<u8>>,
    pub weights: Option<Vec<u8>>,
    pub scores: Option<Vec<u8>>,
}

/// The caller's functions in Rust, for the reference.
pub type Mods<'a> = ReferenceMods<'a>;

fn poisoned(engine: &Engine, problem: &Problem, operand: Operand) -> Option<Tensor> {
    let bytes = problem.span_bytes(operand)?;
    let words = vec![POISON; bytes as usize / 4];
    Some(engine.upload_bytes(bytemuck::cast_slice(&words)).unwrap())
}

fn bytes(engine: &Engine, tensor: &Tensor) -> Vec<u8> {
    bytemuck::cast_slice(&engine.read(tensor).unwrap()).to_vec()
}

/// Runs a prepared call on tensors of its own.
pub fn run(engine: &Engine, descriptor: &AttentionDescriptor<'_>, inputs: &OwnedInputs) -> Run {
    let attention = engine
        .prepare(descriptor)
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    let problem = attention.plan().problem();
    let captures = inputs.capture_slices();
    let host = inputs.host(&captures);
    let upload = |data: &[u8]| engine.upload_bytes(data).unwrap();
    let [query, key, value] = [host.query, host.key, host.value].map(|tensor| upload(tensor.bytes()));
    let mask = host.mask.map(upload);
    let bias = host.bias.map(|bias| upload(bias.bytes()));
    let padding = match (&inputs.padding_bytes, &inputs.padding_values, &inputs.lengths) {
        (Some(bytes), _, _) => Some(upload(bytes)),
        (_, Some(values), _) => Some(upload(bytemuck::cast_slice(values))),
        (_, _, Some(lengths)) => Some(upload(bytemuck::cast_slice(lengths))),
        _ => None,
    };
    let floats = |data: Option<&[f32]>| data.map(|data| upload(bytemuck::cast_slice(data)));
    let words = |data: Option<&[u32]>| data.map(|data| upload(bytemuck::cast_slice(data)));
    let (slopes, sinks) = (floats(host.alibi_slopes), floats(host.sinks));
    let dropout_mask = host.dropout_mask.map(upload);
    let block_mask = words(host.block_mask);
    let (cu_q, cu_k) = (words(host.cu_seqlens_q), words(host.cu_seqlens_k));
    let ids = |data: Option<&[i32]>| data.map(|data| upload(bytemuck::cast_slice(data)));
    let (query_ids, key_ids) = (ids(host.query_position_ids), ids(host.key_position_ids));
    let capture_tensors: Vec<_> = captures.iter().map(|data| upload(data)).collect();
    let capture_places: Vec<_> = capture_tensors.iter().map(BufferAt::from).collect();
    fn at(tensor: &Option<Tensor>) -> Option<BufferAt<'_>> {
        tensor.as_ref().map(Into::into)
    }
    let gpu_inputs = Inputs {
        mask: at(&mask),
        bias: at(&bias),
        key_padding: at(&padding),
        alibi_slopes: at(&slopes),
        sinks: at(&sinks),
        dropout_mask: at(&dropout_mask),
        block_mask: at(&block_mask),
        cu_seqlens_q: at(&cu_q),
        cu_seqlens_k: at(&cu_k),
        query_position_ids: at(&query_ids),
        key_position_ids: at(&key_ids),
        captures: &capture_places,
        ..Inputs::new(&query, &key, &value)
    };
    let out = poisoned(engine, problem, Operand::Out).unwrap();
    let lse = poisoned(engine, problem, Operand::Lse);
    let weights = poisoned(engine, problem, Operand::Weights);
    let scores = poisoned(engine, problem, Operand::Scores);
    let outputs = OutputBuffers {
        lse: at(&lse),
        weights: at(&weights),
        scores: at(&scores),
        ..OutputBuffers::new(&out)
    };
    let bound = attention
        .bind(&gpu_inputs, &outputs)
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    engine.run(&bound).unwrap();
    Run {
        out: bytes(engine, &out),
        lse: lse.map(|tensor| bytes(engine, &tensor)),
        weights: weights.map(|tensor| bytes(engine, &tensor)),
        scores: scores.map(|tensor| bytes(engine, &tensor)),
    }
}

/// Runs random inputs twice, compares the runs bit by bit, and the first with the reference.
pub fn check(name: &str, engine: &Engine, descriptor: &AttentionDescriptor<'_>, seed: u64) {
    let problem = Problem::new(descriptor).unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    let inputs = OwnedInputs::random(&problem, seed);
    check_inputs(name, engine, descriptor, &inputs);
}

/// As [`check`], with these inputs.
pub fn check_inputs(name: &str, engine: &Engine, descriptor: &AttentionDescriptor<'_>, inputs: &OwnedInputs) {
    check_mods(name, engine, descriptor, inputs, &Mods::default());
}

/// As [`check_inputs`], with the caller's functions once more in Rust.
pub fn check_mods(
    name: &str,
    engine: &Engine,
    descriptor: &AttentionDescriptor<'_>,
    inputs: &OwnedInputs,
    mods: &Mods<'_>,
) {
    let problem = Problem::new(descriptor).unwrap();
    let captures = inputs.capture_slices();
    let host = inputs.host(&captures);
    let want = reference::attention_with(Precision::F64, &problem, &host, mods).unwrap();
    let naive = reference::attention_with(Precision::F32, &problem, &host, mods).unwrap();
    let got = run(engine, descriptor, inputs);
    let again = run(engine, descriptor, inputs);
    assert!(got == again, "{name}: two runs differ: {descriptor:?}");

    let context = Context { name, descriptor };
    let extent = problem.extent(Operand::Out).unwrap();
    let written = rows_written(&problem, &extent, inputs);
    context.only_elements_are_written(&got.out, problem.dtype(Operand::Out), &written);
    let only = |all: &[f64]| -> Vec<f64> {
        let elements = all.iter().zip(&written);
        elements
            .filter_map(|(value, element)| element.then_some(*value))
            .collect()
    };
    let dtype = problem.dtype(Operand::Out);
    let elements: Vec<f32> = dtype
        .widen(&got.out)
        .into_iter()
        .zip(&written)
        .filter_map(|(value, element)| element.then_some(value))
        .collect();
    let rounded = |all: &[f64]| -> Vec<f64> {
        // The naive computation rounds its out to the same type.
        let singles: Vec<f32> = all.iter().map(|&value| value as f32).collect();
        dtype
            .widen(&dtype.narrow(&singles))
            .into_iter()
            .map(f64::from)
            .collect()
    };
    let naive_out = match dtype {
        DType::F32 => only(&naive.out),
        _ => rounded(&only(&naive.out)),
    };
    context.compare("out", &elements, &only(&want.out), &naive_out);
    for (what, got, want, naive) in [
        ("lse", &got.lse, &want.lse, &naive.lse),
        ("weights", &got.weights, &want.weights, &naive.weights),
        ("scores", &got.scores, &want.scores, &naive.scores),
    ] {
        if let Some(got) = got {
            context.compare(what, &DType::F32.widen(got), want, naive);
        }
    }
}

struct Context<'a, D> {
    name: &'a str,
    descriptor: D,
}

impl<D: Debug> Context<'_, D> {
    fn compare(&self, what: &str, got: &[f32], want: &[f64], naive: &[f64]) {
        if let Err(mismatch) = compare(got, want, Tolerance::derived(naive, want)) {
            panic!("{}: {what}: {mismatch}\n{:?}", self.name, self.descriptor);
        }
    }

    /// What lies between the elements of `out` is as it was.
    fn only_elements_are_written(&self, out: &[u8], dtype: DType, written: &[bool]) {
        let poison = POISON.to_le_bytes();
        let size = dtype.bytes() as usize;
        for (index, element) in out.chunks_exact(size).enumerate() {
            if !written.get(index).copied().unwrap_or(false) {
                assert_eq!(
                    element,
                    &poison[..size],
                    "{}: wrote between the rows of out, at {index}: {:?}",
                    self.name,
                    self.descriptor
                );
            }
        }
    }
}

/// Which elements of `out` a call writes: those of every row that some sequence has.
fn rows_written(problem: &Problem, extent: &Extent, inputs: &OwnedInputs) -> Vec<bool> {
    let mut written = vec![false; extent.span() as usize];
    let last = match (problem.packed(), &inputs.cu_seqlens_q) {
        (Some(_), Some(bounds)) => bounds[bounds.len() - 1],
        _ => u32::MAX,
    };
    for_each_element(extent, |index, [_, _, row, _]| written[index] = row < last);
    written
}
