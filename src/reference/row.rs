//! One row of the reference.

use half::{bf16, f16};

use crate::error::Operand;
use crate::problem::{
    BlockState, DropoutKeep, Extent, HostInputs, HostKeyPadding, HostTensor, Problem, ScoreStage, philox_keeps,
};
use crate::reference::{ReferenceMods, ReferenceRow, extent, index};
use crate::rope::{RopePairing, RopePositions};

/// What the rows of a call have in common.
pub(crate) struct Call<'a> {
    pub(crate) problem: &'a Problem,
    pub(crate) inputs: &'a HostInputs<'a>,
    pub(crate) mods: &'a ReferenceMods<'a>,
}

/// One sequence of a call: where its rows begin, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequence {
    pub(super) query_base: u32,
    pub(super) rows: u32,
    key_base: u32,
    keys: u32,
}

pub(super) fn sequence_of(problem: &Problem, inputs: &HostInputs<'_>, batch: u32) -> Sequence {
    let shape = problem.shape();
    let whole = Sequence {
        query_base: 0,
        rows: shape.seqlen_q,
        key_base: 0,
        keys: shape.seqlen_k,
    };
    let at = batch as usize;
    if let (Some(_), Some(q), Some(k)) = (problem.packed(), inputs.cu_seqlens_q, inputs.cu_seqlens_k) {
        return Sequence {
            query_base: q[at],
            rows: q[at + 1] - q[at],
            key_base: k[at],
            keys: k[at + 1] - k[at],
        };
    }
    match inputs.key_padding {
        Some(HostKeyPadding::Lengths(lengths)) => Sequence {
            keys: lengths[at],
            ..whole
        },
        _ => whole,
    }
}

impl Sequence {
    /// The query's own position among the keys, at the lower right.
    fn lower_right(&self, problem: &Problem, q_idx: u32) -> i64 {
        let keys = match problem.has_lengths() {
            true => self.keys,
            false => problem.masked_keys(),
        };
        i64::from(q_idx) + i64::from(keys) - i64::from(self.rows)
    }

    fn own(&self, problem: &Problem, alignment: crate::CausalAlignment, q_idx: u32) -> i64 {
        match alignment {
            crate::CausalAlignment::UpperLeft => q_idx.into(),
            crate::CausalAlignment::LowerRight => self.lower_right(problem, q_idx),
        }
    }
}

/// Whether key `kv_idx` is open for a query row, whatever its scores and the caller's own functions say.
pub fn is_open(problem: &Problem, inputs: &HostInputs<'_>, [batch, head, q_idx]: [u32; 3], kv_idx: u32) -> bool {
    let sequence = sequence_of(problem, inputs, batch);
    if kv_idx >= sequence.keys || q_idx >= sequence.rows {
        return false;
    }
    if kv_idx >= problem.masked_keys() {
        return true;
    }
    let j = i64::from(kv_idx);
    let causal = problem
        .causal()
        .is_none_or(|alignment| j <= sequence.own(problem, alignment, q_idx));
    let window = problem.window().is_none_or(|window| {
        let own = sequence.own(problem, window.alignment, q_idx);
        window.left.is_none_or(|left| j >= own - i64::from(left))
            && window.right.is_none_or(|right| j <= own + i64::from(right))
    });
    let mask = inputs
        .mask
        .is_none_or(|mask| mask[at(problem, Operand::Mask, [batch, head, q_idx, kv_idx])] != 0);
    let bias = bias(problem, inputs, [batch, head, q_idx, kv_idx]) != f32::NEG_INFINITY;
    let padding = match inputs.key_padding {
        None | Some(HostKeyPadding::Lengths(_)) => true,
        Some(HostKeyPadding::Boolean(padding)) => padding[at_padding(problem, batch, kv_idx)] != 0,
        Some(HostKeyPadding::Additive(padding)) => padding[at_padding(problem, batch, kv_idx)] != f32::NEG_INFINITY,
    };
    let block = block_state(problem, inputs, [batch, head, q_idx, kv_idx]) != BlockState::Closed as u32;
    causal && window && mask && bias && padding && block
}

fn block_state(problem: &Problem, inputs: &HostInputs<'_>, [batch, head, q_idx, kv_idx]: [u32; 4]) -> u32 {
    match (problem.block_mask(), inputs.block_mask) {
        (Some(shape), Some(states)) => {
            let block = [batch, head, q_idx / shape.block_q, kv_idx / shape.block_kv];
            states[at(problem, Operand::BlockMask, block)]
        }
        _ => BlockState::Partial as u32,
    }
}

/// Where query, key and value come from: host tensors, or what earlier stages of a block computed.
pub(crate) trait Source<T> {
    /// The channels of one row.
    fn channels(&self, problem: &Problem, operand: Operand, position: [u32; 3]) -> Vec<T>;
}

/// Query, key and value of a call's inputs.
pub(super) struct HostTensors<'a>(pub(super) &'a HostInputs<'a>);

impl<T: Real> Source<T> for HostTensors<'_> {
    fn channels(&self, problem: &Problem, operand: Operand, position: [u32; 3]) -> Vec<T> {
        let tensor: HostTensor<'_> = match operand {
            Operand::Query => self.0.query,
            Operand::Key => self.0.key,
            _ => self.0.value,
        };
        let (first, len) = first_channel(problem, operand, position);
        // Not number by number with HostTensor::at, which took most of the reference's time.
        match tensor {
            HostTensor::F32(numbers) => widened(&numbers[first..first + len], |number| number),
            HostTensor::F16(numbers) => widened(&numbers[first..first + len], f16::to_f32),
            HostTensor::Bf16(numbers) => widened(&numbers[first..first + len], bf16::to_f32),
        }
    }
}

fn widened<N: Copy, T: Real>(numbers: &[N], widen: impl Fn(N) -> f32) -> Vec<T> {
    numbers.iter().map(|&number| T::from(widen(number))).collect()
}

/// Query, key and value in any precision.
pub(crate) struct Tensors<'a, T> {
    pub(crate) query: &'a [T],
    pub(crate) key: &'a [T],
    pub(crate) value: &'a [T],
}

impl<T: Real> Source<T> for Tensors<'_, T> {
    fn channels(&self, problem: &Problem, operand: Operand, position: [u32; 3]) -> Vec<T> {
        let tensor = match operand {
            Operand::Query => self.query,
            Operand::Key => self.key,
            _ => self.value,
        };
        let (first, len) = first_channel(problem, operand, position);
        tensor[first..first + len].to_vec()
    }
}

fn first_channel(problem: &Problem, operand: Operand, [batch, head, row]: [u32; 3]) -> (usize, usize) {
    let extent: Extent = extent(problem, operand);
    (index(&extent, [batch, head, row, 0]), extent.sizes[3] as usize)
}

/// What the formulas need of a number.
pub(crate) trait Real:
    Copy
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::AddAssign
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + From<f32>
    + Into<f64>
{
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn tanh(self) -> Self;
    /// A value that came from this type, or that is rounded to it.
    fn back(value: f64) -> Self;
}

macro_rules! real {
    ($number:ty) => {
        impl Real for $number {
            fn exp(self) -> Self {
                self.exp()
            }
            fn ln(self) -> Self {
                self.ln()
            }
            fn tanh(self) -> Self {
                self.tanh()
            }
            fn back(value: f64) -> Self {
                value as $number
            }
        }
    };
}

real!(f32);
real!(f64);

/// A row that its sequence has.
pub(crate) fn row<T: Real, S: Source<T>>(call: &Call<'_>, source: &S, position: [u32; 3]) -> ReferenceRow {
    let Call { problem, inputs, mods } = call;
    let shape = problem.shape();
    let [batch, head, q_idx] = position;
    let kv_head = head / shape.group_size();
    let sequence = sequence_of(problem, inputs, batch);
    let stored = if problem.packed().is_some() { 0 } else { batch };
    let key_row = |operand, kv_idx| source.channels(problem, operand, [stored, kv_head, sequence.key_base + kv_idx]);
    let zero = T::from(0.0);

    let stage = problem.outputs().scores;
    let mut result = ReferenceRow {
        out: vec![0.0; shape.head_dim_v as usize],
        lse: f64::NEG_INFINITY,
        weights: vec![0.0; shape.seqlen_k as usize],
        scores: match stage {
            None => Vec::new(),
            Some(ScoreStage::Biased) => vec![f64::NEG_INFINITY; shape.seqlen_k as usize],
            Some(_) => vec![0.0; shape.seqlen_k as usize],
        },
    };
    // Scores of the open keys, by key.
    let mut scores: Vec<(u32, T)> = Vec::new();
    let mut query = source.channels(problem, Operand::Query, [stored, head, sequence.query_base + q_idx]);
    turn(call, Operand::Query, &mut query, batch, q_idx);
    for kv_idx in 0..sequence.keys {
        let open = is_open(problem, inputs, position, kv_idx);
        if !open && !matches!(stage, Some(ScoreStage::Scaled | ScoreStage::Capped)) {
            continue;
        }
        let mut key = key_row(Operand::Key, kv_idx);
        turn(call, Operand::Key, &mut key, batch, kv_idx);
        let mut product = zero;
        for (q, k) in query.iter().zip(key) {
            product += *q * k;
        }
        let scaled = product * T::from(problem.scale());
        let capped = match problem.softcap() {
            None => scaled,
            Some(softcap) => T::from(softcap) * (scaled / T::from(softcap)).tanh(),
        };
        match stage {
            Some(ScoreStage::Scaled) => result.scores[kv_idx as usize] = scaled.into(),
            Some(ScoreStage::Capped) => result.scores[kv_idx as usize] = capped.into(),
            _ => {}
        }
        let at = [batch, head, q_idx, kv_idx];
        let biased = match kv_idx < problem.masked_keys() {
            true => bias_score(problem, inputs, mods, capped, at),
            false => Some(capped),
        };
        let asked = block_state(problem, inputs, at) == BlockState::Partial as u32 && kv_idx < problem.masked_keys();
        let mod_open = !asked || mods.mask_mod.is_none_or(|mask_mod| mask_mod(at));
        if let (true, true, Some(score)) = (open, mod_open, biased) {
            if stage == Some(ScoreStage::Biased) {
                result.scores[kv_idx as usize] = score.into();
            }
            scores.push((kv_idx, score));
        }
    }
    finish(call, &mut result, scores, position, |kv_idx| {
        key_row(Operand::Value, kv_idx)
    });
    result
}

/// Turns the channels of a row of query or key to its position, if the problem has a rotary embedding.
fn turn<T: Real>(call: &Call<'_>, operand: Operand, channels: &mut [T], batch: u32, row: u32) {
    let Some(rope) = call.problem.rope() else { return };
    let (positions, ids, ids_operand) = match operand {
        Operand::Query => (rope.query, call.inputs.query_position_ids, Operand::QueryPositionIds),
        _ => (rope.key, call.inputs.key_position_ids, Operand::KeyPositionIds),
    };
    let position = match positions {
        None => return,
        Some(RopePositions::Offset(offset)) => i64::from(offset) + i64::from(row),
        Some(_) => ids.unwrap_or_default()[at(call.problem, ids_operand, [batch, 0, 0, row])].into(),
    };
    let scaling = rope.frequencies.attention_scaling();
    let half = rope.frequencies.inv_freq().len();
    for (pair, frequency) in rope.frequencies.inv_freq().iter().enumerate() {
        let (first, second) = match rope.pairing {
            RopePairing::HalfSplit => (pair, pair + half),
            RopePairing::Interleaved => (2 * pair, 2 * pair + 1),
        };
        let angle = position as f64 * frequency;
        let (cos, sin) = (T::back(angle.cos() * scaling), T::back(angle.sin() * scaling));
        let (x1, x2) = (channels[first], channels[second]);
        channels[first] = x1 * cos - x2 * sin;
        channels[second] = x2 * cos + x1 * sin;
    }
}

/// From the capped score to the one that softmax sees; `None` when `score_mod` closes it.
fn bias_score<T: Real>(
    problem: &Problem,
    inputs: &HostInputs<'_>,
    mods: &ReferenceMods<'_>,
    capped: T,
    at: [u32; 4],
) -> Option<T> {
    let [batch, head, q_idx, kv_idx] = at;
    let mut score = capped;
    if let Some(score_mod) = mods.score_mod {
        let modified = score_mod(capped.into(), at);
        if modified == f64::NEG_INFINITY {
            return None;
        }
        score = T::back(modified);
    }
    if let Some(slopes) = inputs.alibi_slopes {
        let own = sequence_of(problem, inputs, batch).lower_right(problem, q_idx);
        let distance = (own - i64::from(kv_idx)).unsigned_abs() as f32;
        score = score - T::from(slopes[head as usize]) * T::from(distance);
    }
    score += T::from(bias(problem, inputs, at));
    if let Some(HostKeyPadding::Additive(padding)) = inputs.key_padding {
        score += T::from(padding[at_padding(problem, batch, kv_idx)]);
    }
    Some(score)
}

/// Softmax and weights · value.
fn finish<T: Real>(
    call: &Call<'_>,
    result: &mut ReferenceRow,
    scores: Vec<(u32, T)>,
    [batch, head, q_idx]: [u32; 3],
    value_row: impl Fn(u32) -> Vec<T>,
) {
    let Call { problem, inputs, mods } = call;
    let zero = T::from(0.0);
    let sink = inputs
        .sinks
        .map(|sinks| sinks[head as usize])
        .filter(|&sink| sink != f32::NEG_INFINITY);
    let first = sink.map(T::from).or(scores.first().map(|&(_, score)| score));
    let row_max = scores.iter().fold(
        first.unwrap_or(zero),
        |max, &(_, score)| if score > max { score } else { max },
    );
    let mut row_sum = sink.map_or(zero, |sink| (T::from(sink) - row_max).exp());
    for (_, score) in &scores {
        row_sum += (*score - row_max).exp();
    }
    if first.is_some() {
        result.lse = (row_max + row_sum.ln()).into();
    }
    for (kv_idx, score) in &scores {
        result.weights[*kv_idx as usize] = ((*score - row_max).exp() / row_sum).into();
    }
    // Behind a sequence's end there is no weight to modify, and no value.
    let keys = sequence_of(problem, inputs, batch).keys;
    if let Some(prob_mod) = mods.prob_mod {
        for (kv_idx, weight) in (0..keys).zip(&mut result.weights) {
            *weight = prob_mod(*weight, [batch, head, q_idx, kv_idx]);
        }
    }
    let mut out = vec![zero; problem.shape().head_dim_v as usize];
    let open: std::collections::BTreeSet<u32> = scores.iter().map(|(kv_idx, _)| *kv_idx).collect();
    for (kv_idx, weight) in (0..keys).zip(&result.weights) {
        if !open.contains(&kv_idx) && *weight == 0.0 {
            continue;
        }
        let weight = T::back(*weight) * T::back(dropout_factor(problem, inputs, [batch, head, q_idx, kv_idx]));
        for (sum, v) in out.iter_mut().zip(value_row(kv_idx)) {
            *sum += weight * v;
        }
    }
    result.out = out.into_iter().map(Into::into).collect();
}

fn dropout_factor(problem: &Problem, inputs: &HostInputs<'_>, position: [u32; 4]) -> f64 {
    let Some(dropout) = problem.dropout() else { return 1.0 };
    let [batch, head, q_idx, kv_idx] = position;
    let kept = match dropout.keep {
        DropoutKeep::Given => inputs
            .dropout_mask
            .is_none_or(|keep| keep[at(problem, Operand::DropoutMask, position)] != 0),
        DropoutKeep::Philox { seed, offset } => {
            let head_number = batch.wrapping_mul(problem.shape().heads).wrapping_add(head);
            philox_keeps(dropout.probability, seed, offset, [head_number, q_idx, kv_idx])
        }
    };
    if kept {
        1.0 / (1.0 - f64::from(dropout.probability))
    } else {
        0.0
    }
}

fn bias(problem: &Problem, inputs: &HostInputs<'_>, position: [u32; 4]) -> f32 {
    inputs
        .bias
        .map_or(0.0, |bias| bias.at(at(problem, Operand::Bias, position)))
}

fn at_padding(problem: &Problem, batch: u32, kv_idx: u32) -> usize {
    at(problem, Operand::KeyPadding, [batch, 0, 0, kv_idx])
}

fn at(problem: &Problem, operand: Operand, position: [u32; 4]) -> usize {
    index(&extent(problem, operand), position)
}
