//! Random operands for any problem, from a seed.

use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use wgpu_attention::problem::Extent;
use wgpu_attention::{DType, HostInputs, HostKeyPadding, HostTensor, KeyPadding, Operand, Problem};

/// Numbers in a storage type.
#[derive(Clone, Debug)]
pub enum Numbers {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Default for Numbers {
    fn default() -> Self {
        Numbers::F32(Vec::new())
    }
}

impl Numbers {
    fn new(dtype: DType, numbers: Vec<f32>) -> Self {
        match dtype {
            DType::F32 => Numbers::F32(numbers),
            DType::F16 => Numbers::F16(numbers.into_iter().map(f16::from_f32).collect()),
            DType::Bf16 => Numbers::Bf16(numbers.into_iter().map(bf16::from_f32).collect()),
        }
    }

    pub fn host(&self) -> HostTensor<'_> {
        match self {
            Numbers::F32(numbers) => numbers.into(),
            Numbers::F16(numbers) => numbers.into(),
            Numbers::Bf16(numbers) => numbers.into(),
        }
    }

    /// The numbers themselves, if they are singles.
    pub fn singles(&mut self) -> &mut Vec<f32> {
        match self {
            Numbers::F32(numbers) => numbers,
            other => panic!("no singles: {other:?}"),
        }
    }
}

/// Operands that a test owns. Gaps between elements of strided operands hold NaN, so that reading one shows, and so does
/// whatever lies behind a length.
#[derive(Clone, Default)]
pub struct OwnedInputs {
    pub query: Numbers,
    pub key: Numbers,
    pub value: Numbers,
    pub mask: Option<Vec<u8>>,
    pub bias: Option<Numbers>,
    pub padding_bytes: Option<Vec<u8>>,
    pub padding_values: Option<Vec<f32>>,
    pub lengths: Option<Vec<u32>>,
    pub alibi_slopes: Option<Vec<f32>>,
    pub sinks: Option<Vec<f32>>,
    pub dropout_mask: Option<Vec<u8>>,
    pub block_mask: Option<Vec<u32>>,
    pub cu_seqlens_q: Option<Vec<u32>>,
    pub cu_seqlens_k: Option<Vec<u32>>,
    pub query_position_ids: Option<Vec<i32>>,
    pub key_position_ids: Option<Vec<i32>>,
    pub captures: Vec<Vec<u8>>,
}

impl OwnedInputs {
    /// Normal-ish numbers of about unit variance; a third of the masks' positions closed, and some rows wholly. Captures are
    /// left to the test.
    pub fn random(problem: &Problem, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let shape = problem.shape();
        let mut inputs = Self::default();
        for (to, operand) in [
            (&mut inputs.query, Operand::Query),
            (&mut inputs.key, Operand::Key),
            (&mut inputs.value, Operand::Value),
        ] {
            let extent = problem.extent(operand).unwrap();
            *to = Numbers::new(problem.dtype(operand), floats(&mut rng, extent, 0.0));
        }
        if let Some(extent) = problem.extent(Operand::Bias) {
            inputs.bias = Some(Numbers::new(
                problem.dtype(Operand::Bias),
                floats(&mut rng, extent, 0.1),
            ));
        }
        inputs.mask = problem.extent(Operand::Mask).map(|extent| bytes(&mut rng, extent));
        inputs.dropout_mask = problem
            .extent(Operand::DropoutMask)
            .map(|extent| bytes(&mut rng, extent));
        match (problem.key_padding(), problem.extent(Operand::KeyPadding)) {
            (Some(KeyPadding::Additive), Some(extent)) => inputs.padding_values = Some(floats(&mut rng, extent, 0.2)),
            (Some(KeyPadding::Boolean), Some(extent)) => inputs.padding_bytes = Some(bytes(&mut rng, extent)),
            (Some(KeyPadding::Lengths), _) => {
                inputs.lengths = Some((0..shape.batch).map(|_| rng.random_range(0..=shape.seqlen_k)).collect());
            }
            _ => {}
        }
        let heads = problem.extent(Operand::AlibiSlopes);
        inputs.alibi_slopes = heads.map(|extent| floats(&mut rng, extent, 0.0));
        inputs.sinks = problem
            .extent(Operand::Sinks)
            .map(|extent| floats(&mut rng, extent, 0.2));
        let blocks = problem.extent(Operand::BlockMask);
        inputs.block_mask = blocks.map(|extent| (0..extent.span()).map(|_| rng.random_range(0..3)).collect());
        let mut ids = |operand| {
            let extent: Extent = problem.extent(operand)?;
            Some(
                (0..extent.span())
                    .map(|_| rng.random_range(-50..100_000))
                    .collect::<Vec<i32>>(),
            )
        };
        inputs.query_position_ids = ids(Operand::QueryPositionIds);
        inputs.key_position_ids = ids(Operand::KeyPositionIds);
        if let Some(packed) = problem.packed() {
            inputs.cu_seqlens_q = Some(cu_seqlens(&mut rng, shape.batch, packed.tokens_q, shape.seqlen_q));
            inputs.cu_seqlens_k = Some(cu_seqlens(&mut rng, shape.batch, packed.tokens_k, shape.seqlen_k));
        }
        inputs.poison_behind_lengths(problem);
        inputs
    }

    /// Puts NaN wherever a length says that nothing is.
    fn poison_behind_lengths(&mut self, problem: &Problem) {
        let Some(lengths) = &self.lengths else { return };
        for (operand, numbers) in [(Operand::Key, &mut self.key), (Operand::Value, &mut self.value)] {
            let extent = problem.extent(operand).unwrap();
            for_each_element(&extent, |index, [batch, _, row, _]| {
                if row >= lengths[batch as usize] {
                    match numbers {
                        Numbers::F32(numbers) => numbers[index] = f32::NAN,
                        Numbers::F16(numbers) => numbers[index] = f16::NAN,
                        Numbers::Bf16(numbers) => numbers[index] = bf16::NAN,
                    }
                }
            });
        }
    }

    pub fn host<'a>(&'a self, captures: &'a [&'a [u8]]) -> HostInputs<'a> {
        HostInputs {
            query: self.query.host(),
            key: self.key.host(),
            value: self.value.host(),
            mask: self.mask.as_deref(),
            bias: self.bias.as_ref().map(Numbers::host),
            key_padding: match (&self.padding_bytes, &self.padding_values, &self.lengths) {
                (Some(bytes), _, _) => Some(HostKeyPadding::Boolean(bytes)),
                (_, Some(values), _) => Some(HostKeyPadding::Additive(values)),
                (_, _, Some(lengths)) => Some(HostKeyPadding::Lengths(lengths)),
                _ => None,
            },
            alibi_slopes: self.alibi_slopes.as_deref(),
            sinks: self.sinks.as_deref(),
            dropout_mask: self.dropout_mask.as_deref(),
            block_mask: self.block_mask.as_deref(),
            cu_seqlens_q: self.cu_seqlens_q.as_deref(),
            cu_seqlens_k: self.cu_seqlens_k.as_deref(),
            query_position_ids: self.query_position_ids.as_deref(),
            key_position_ids: self.key_position_ids.as_deref(),
            captures,
        }
    }

    /// The captures as [`host`](Self::host) takes them.
    pub fn capture_slices(&self) -> Vec<&[u8]> {
        self.captures.iter().map(Vec::as_slice).collect()
    }
}

fn floats(rng: &mut StdRng, extent: Extent, closed: f64) -> Vec<f32> {
    let mut data = vec![f32::NAN; extent.span() as usize];
    for_each_element(&extent, |index, _| {
        let sum: f32 = (0..4).map(|_| rng.random_range(-0.5f32..0.5)).sum();
        data[index] = if rng.random_bool(closed) {
            f32::NEG_INFINITY
        } else {
            sum * 1.7
        };
    });
    data
}

fn bytes(rng: &mut StdRng, extent: Extent) -> Vec<u8> {
    let mut data = vec![0u8; extent.span() as usize];
    for_each_element(&extent, |index, [_, _, row, _]| {
        // A wholly closed row in every mask of more than two rows.
        let open = rng.random_bool(0.7) && !(extent.sizes[2] > 2 && row == 1);
        data[index] = if open { rng.random_range(1..=255) } else { 0 };
    });
    data
}

/// Where sequences begin, of random lengths that add up to `tokens`, some of them 0.
fn cu_seqlens(rng: &mut StdRng, batch: u32, tokens: u32, longest: u32) -> Vec<u32> {
    let mut bounds = vec![0];
    for done in 1..=batch {
        let before = bounds[bounds.len() - 1];
        let rest = batch - done;
        // What is left must fit into the sequences that are left.
        let least = (tokens - before).saturating_sub(rest * longest);
        let most = longest.min(tokens - before);
        let zero = least == 0 && rng.random_bool(0.2);
        let length = if zero || rest == 0 {
            least
        } else {
            rng.random_range(least..=most)
        };
        bounds.push(before + length);
    }
    bounds
}

/// Calls `visit(offset, position)` for every element of an operand.
pub fn for_each_element(extent: &Extent, mut visit: impl FnMut(usize, [u32; 4])) {
    for a in 0..extent.sizes[0] {
        for b in 0..extent.sizes[1] {
            for c in 0..extent.sizes[2] {
                for d in 0..extent.sizes[3] {
                    visit(extent.offset([a, b, c, d]) as usize, [a, b, c, d]);
                }
            }
        }
    }
}
