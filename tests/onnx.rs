//! ONNX's `Attention`, computed the way the operator's own decomposition goes (an additive bias of all rules together), against
//! the planned call on the reference and on the GPU.

mod support;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use wgpu_attention::onnx::{OnnxAttention, OnnxMask, OnnxMaskKind, OnnxPlan};
use wgpu_attention::{Engine, HostInputs, HostKeyPadding, Problem, reference};

/// A node with its shapes and its data.
#[derive(Debug)]
struct Node {
    opset: u32,
    sizes: Sizes,
    packed: bool,
    past: Option<u32>,
    lengths: Option<Vec<i64>>,
    mask: Option<(OnnxMaskKind, Vec<u32>)>,
    is_causal: bool,
    window: [i64; 2],
    softcap: f32,
    scale: Option<f32>,
    mode: i64,
    query: Tensor,
    /// `K` and `V`, then their pasts.
    new: [Tensor; 2],
    past_data: [Tensor; 2],
    /// Of a boolean mask, 0 and 1.
    mask_data: Vec<f32>,
}

/// `[batch, heads, rows, channels]`, or in three axes `[batch, rows, heads * channels]`.
#[derive(Debug)]
struct Tensor {
    axes: [u32; 4],
    packed: bool,
    data: Vec<f32>,
}

impl Tensor {
    fn shape(&self) -> Vec<u32> {
        let [batch, heads, rows, channels] = self.axes;
        match self.packed {
            true => vec![batch, rows, heads * channels],
            false => self.axes.into(),
        }
    }

    fn at(&self, [b, h, row, c]: [u32; 4]) -> f64 {
        let [_, heads, rows, channels] = self.axes;
        let row = match self.packed {
            true => (b * rows + row) * heads + h,
            false => (b * heads + h) * rows + row,
        };
        self.data[(row * channels + c) as usize].into()
    }
}

#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: u32,
    heads: u32,
    kv_heads: u32,
    seqlen_q: u32,
    new: u32,
    head_dim: u32,
    head_dim_v: u32,
}

impl Node {
    fn random(rng: &mut StdRng) -> Self {
        let kv_heads = rng.random_range(1..3);
        let sizes = Sizes {
            batch: rng.random_range(1..3),
            heads: kv_heads * rng.random_range(1..3),
            kv_heads,
            seqlen_q: rng.random_range(1..6),
            new: rng.random_range(1..6),
            head_dim: rng.random_range(1..5),
            head_dim_v: rng.random_range(1..5),
        };
        let opset = rng.random_range(23..26);
        let cache = rng.random_range(0..if opset < 24 { 2 } else { 3 });
        let past = (cache == 1).then(|| rng.random_range(0..7));
        let keys = past.unwrap_or(0) + sizes.new;
        let lengths = (cache == 2).then(|| (0..sizes.batch).map(|_| rng.random_range(0..=keys.into())).collect());
        let mut side = || if opset == 25 { rng.random_range(-1..5) } else { -1 };
        let window = [side(), side()];
        let mask = rng.random::<bool>().then(|| {
            let kind = [OnnxMaskKind::Boolean, OnnxMaskKind::Float][rng.random_range(0..2)];
            let full = [sizes.batch, sizes.heads, sizes.seqlen_q];
            let mut shape: Vec<_> = full.map(|size| if rng.random() { size } else { 1 }).into();
            shape.push(if opset >= 24 { rng.random_range(1..=keys) } else { keys });
            (kind, shape.split_off(rng.random_range(0..4)))
        });
        let packed = rng.random();
        let mut numbers = |count: u32| (0..count).map(|_| rng.random_range(-2.0..2.0)).collect::<Vec<f32>>();
        let mut tensor = |packed, heads, rows, channels| Tensor {
            axes: [sizes.batch, heads, rows, channels],
            packed,
            data: numbers(sizes.batch * heads * rows * channels),
        };
        let query = tensor(packed, sizes.heads, sizes.seqlen_q, sizes.head_dim);
        let channels = [sizes.head_dim, sizes.head_dim_v];
        let new = channels.map(|channels| tensor(packed, kv_heads, sizes.new, channels));
        let past_data = channels.map(|channels| tensor(false, kv_heads, past.unwrap_or(0), channels));
        let elements = mask.as_ref().map_or(0, |(_, shape)| shape.iter().product());
        let mut mask_data = numbers(elements);
        for element in &mut mask_data {
            let closed = *element < -1.0;
            *element = match mask.as_ref().map(|(kind, _)| kind) {
                Some(OnnxMaskKind::Boolean) => f32::from(u8::from(!closed)),
                _ if closed => f32::NEG_INFINITY,
                _ => *element,
            };
        }
        Self {
            opset,
            sizes,
            packed,
            past,
            lengths,
            mask,
            is_causal: rng.random(),
            window,
            softcap: [0.0, 0.0, 1.5][rng.random_range(0..3)],
            scale: [None, Some(0.75)][rng.random_range(0..2)],
            mode: rng.random_range(0..4),
            query,
            new,
            past_data,
            mask_data,
        }
    }

    fn keys(&self) -> u32 {
        self.past.unwrap_or(0) + self.sizes.new
    }

    /// Calls `use_plan` with the plan: the node's shapes live here.
    fn planned<T>(&self, use_plan: impl FnOnce(OnnxPlan) -> T) -> T {
        let [query, key, value] = [&self.query, &self.new[0], &self.new[1]].map(Tensor::shape);
        let past = self.past_data.each_ref().map(Tensor::shape);
        let past = |place: usize| self.past.map(|_| &past[place][..]);
        let lengths = self.lengths.as_ref().map(|_| [self.sizes.batch]);
        let plan = OnnxPlan::new(&OnnxAttention {
            is_causal: self.is_causal,
            left_window_size: self.window[0],
            right_window_size: self.window[1],
            scale: self.scale,
            softcap: self.softcap,
            qk_matmul_output_mode: self.mode,
            q_num_heads: self.packed.then_some(self.sizes.heads),
            kv_num_heads: self.packed.then_some(self.sizes.kv_heads),
            attn_mask: self.mask.as_ref().map(|(kind, shape)| OnnxMask { kind: *kind, shape }),
            past_key: past(0),
            past_value: past(1),
            nonpad_kv_seqlen: lengths.as_ref().map(|shape| &shape[..]),
            present: self.past.is_some(),
            qk_matmul_output: true,
            ..OnnxAttention::new(self.opset, &query, &key, &value)
        });
        use_plan(plan.unwrap_or_else(|error| panic!("{error}: {self:?}")))
    }

    /// A channel of key (0) or value (1), the past first.
    fn cached(&self, which: usize, [b, h, row, c]: [u32; 4]) -> f64 {
        match row.checked_sub(self.past.unwrap_or(0)) {
            None => self.past_data[which].at([b, h, row, c]),
            Some(row) => self.new[which].at([b, h, row, c]),
        }
    }

    /// The sum of all biases: `attn_mask`, extended; the causal rule; the window; the padding.
    fn bias(&self, [b, h, i, j]: [u32; 4]) -> f64 {
        let mut bias = 0.0;
        let close = |closed: bool| if closed { f64::NEG_INFINITY } else { 0.0 };
        if let Some((kind, shape)) = &self.mask {
            let keys = shape[shape.len() - 1];
            let j = if self.opset == 23 && keys == 1 { 0 } else { j };
            let leading = [b, h, i];
            let leading = &leading[4 - shape.len()..];
            let row = leading
                .iter()
                .zip(shape)
                .fold(0, |row, (&index, &size)| row * size + index.min(size - 1));
            bias += match (kind, j < keys) {
                (_, false) => f64::NEG_INFINITY,
                (OnnxMaskKind::Boolean, _) => close(self.mask_data[(row * keys + j) as usize] == 0.0),
                (OnnxMaskKind::Float, _) => self.mask_data[(row * keys + j) as usize].into(),
            };
        }
        let length = self.lengths.as_ref().map(|lengths| lengths[b as usize]);
        let offset = match length {
            Some(length) => length - i64::from(self.sizes.seqlen_q),
            None => self.past.unwrap_or(0).into(),
        };
        let (position, key) = (i64::from(i) + offset, i64::from(j));
        let [left, right] = self.window;
        bias += close(self.is_causal && key > position);
        bias += close(left >= 0 && key < position - left);
        bias += close(right >= 0 && key > position + right);
        bias + close(length.is_some_and(|length| key >= length))
    }

    /// `Y` in four axes, and `qk_matmul_output`.
    fn decomposed(&self) -> [Vec<f64>; 2] {
        let sizes = self.sizes;
        let scale = self
            .scale
            .map_or_else(|| 1.0 / f64::from(sizes.head_dim).sqrt(), f64::from);
        let softcap = f64::from(self.softcap);
        let [mut y, mut scores] = [Vec::new(), Vec::new()];
        let rows = (0..sizes.batch).flat_map(|b| (0..sizes.heads).map(move |h| (b, h)));
        for (b, h, i) in rows.flat_map(|(b, h)| (0..sizes.seqlen_q).map(move |i| (b, h, i))) {
            let kv_head = h / (sizes.heads / sizes.kv_heads);
            let product = |j| {
                let channel = |c| self.query.at([b, h, i, c]) * self.cached(0, [b, kv_head, j, c]);
                (0..sizes.head_dim).map(channel).sum::<f64>()
            };
            let scaled: Vec<_> = (0..self.keys()).map(|j| product(j) * scale).collect();
            let cap = |score: &f64| {
                if softcap == 0.0 {
                    *score
                } else {
                    softcap * (score / softcap).tanh()
                }
            };
            let capped: Vec<_> = scaled.iter().map(cap).collect();
            let biased: Vec<_> = (0..)
                .zip(&capped)
                .map(|(j, score)| score + self.bias([b, h, i, j]))
                .collect();
            let row_max = biased.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let exponentials: Vec<_> = biased.iter().map(|score| (score - row_max).exp()).collect();
            let row_sum: f64 = exponentials.iter().sum();
            let masked = row_max == f64::NEG_INFINITY;
            let probability = |exponential: &f64| if masked { 0.0 } else { exponential / row_sum };
            let weights: Vec<_> = exponentials.iter().map(probability).collect();
            for c in 0..sizes.head_dim_v {
                y.push(
                    (0..)
                        .zip(&weights)
                        .map(|(j, weight)| weight * self.cached(1, [b, kv_head, j, c]))
                        .sum(),
                );
            }
            scores.extend(&[scaled, capped, biased, weights][self.mode as usize]);
        }
        [y, scores]
    }

    /// Calls `compute` with the planned call and its operands.
    fn call<T>(&self, compute: impl FnOnce(&wgpu_attention::AttentionDescriptor<'_>, &HostInputs<'_>) -> T) -> T {
        self.planned(|plan| {
            let past = |which: usize| self.past.map(|_| &self.past_data[which].data[..]);
            let key = plan.key(past(0), &self.new[0].data).unwrap();
            let value = plan.value(past(1), &self.new[1].data).unwrap();
            let kind = self.mask.as_ref().map(|(kind, _)| *kind);
            let bytes: Vec<u8> = self.mask_data.iter().map(|&open| open as u8).collect();
            let boolean = (kind == Some(OnnxMaskKind::Boolean)).then_some(&bytes[..]);
            let float = (kind == Some(OnnxMaskKind::Float)).then_some(&self.mask_data[..]);
            let mask = plan.mask_data(boolean, self.lengths.as_deref()).unwrap();
            let bias = plan.bias_data(float, f32::NEG_INFINITY).unwrap();
            let lengths = plan.key_lengths(self.lengths.as_deref()).unwrap();
            let inputs = HostInputs {
                mask: mask.as_deref(),
                bias: bias.as_deref().map(Into::into),
                key_padding: lengths.as_deref().map(HostKeyPadding::Lengths),
                ..HostInputs::new(&self.query.data, &*key, &*value)
            };
            compute(&plan.descriptor(), &inputs)
        })
    }

    /// `Y` as the node has it.
    fn y(&self, four_axes: Vec<f64>) -> Vec<f64> {
        let Sizes {
            batch,
            heads,
            seqlen_q,
            head_dim_v,
            ..
        } = self.sizes;
        let axes = [batch, heads, seqlen_q, head_dim_v];
        if !self.packed {
            return four_axes;
        }
        let at = |[b, i, h, c]: [u32; 4]| four_axes[(((b * heads + h) * seqlen_q + i) * head_dim_v + c) as usize];
        let places = (0..axes.iter().product()).map(|place: u32| {
            let (c, place) = (place % head_dim_v, place / head_dim_v);
            let (h, place) = (place % heads, place / heads);
            at([place / seqlen_q, place % seqlen_q, h, c])
        });
        places.collect()
    }
}

fn check(node: &Node, names: [&str; 2], got: [&[f64]; 2], tolerance: f64) {
    let [y, scores] = node.decomposed();
    for ((name, got), want) in names.into_iter().zip(got).zip([node.y(y), scores]) {
        assert_eq!(got.len(), want.len(), "{name} of {node:?}");
        for (index, (&got, &want)) in got.iter().zip(&want).enumerate() {
            let close = got == want || (want.is_finite() && (got - want).abs() <= tolerance * (1.0 + want.abs()));
            assert!(close, "{name}[{index}] is {got}, expected {want}: {node:?}");
        }
    }
}

#[test]
fn plans_on_the_reference_give_what_the_decomposition_gives() {
    let mut rng = StdRng::seed_from_u64(23);
    for _ in 0..3000 {
        let node = Node::random(&mut rng);
        node.call(|descriptor, inputs| {
            let result = reference::attention(&Problem::new(descriptor).unwrap(), inputs).unwrap();
            let scores = if node.mode == 3 {
                &result.weights
            } else {
                &result.scores
            };
            check(&node, ["Y", "qk_matmul_output"], [&result.out, scores], 1e-6);
        });
    }
}

#[test]
fn plans_on_the_gpu_give_what_the_decomposition_gives() {
    let engine: Engine = support::engine();
    let mut rng = StdRng::seed_from_u64(25);
    for _ in 0..16 {
        let node = Node::random(&mut rng);
        node.call(|descriptor, inputs| {
            let result = engine.attention(descriptor, inputs).unwrap();
            let wide = |numbers: &[f32]| numbers.iter().copied().map(f64::from).collect::<Vec<_>>();
            let scores = if node.mode == 3 { result.weights } else { result.scores };
            let [y, scores] = [wide(&result.out), wide(&scores.unwrap())];
            check(&node, ["Y", "qk_matmul_output"], [&y, &scores], 1e-5);
        });
    }
}
