//! Multi-head blocks, with their projections and averaged weights, against the `f64` reference: every adapter and tier,
//! odd sizes, outputs poisoned, two runs with the same bits.

mod support;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use support::{Tolerance, compare, engines};
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    Algorithm, Broadcast, CausalAlignment, Engine, HeadWeights, HostKeyPadding, KeyPadding, MultiHeadAttention,
    MultiHeadBuffers, MultiHeadCall, MultiHeadDescriptor, MultiHeadInputs, MultiHeadParameters,
};

/// What outputs hold before a run: a NaN of a pattern that no computation makes.
const POISON: u32 = 0x7fc0_dead;

struct Case {
    descriptor: MultiHeadDescriptor<'static>,
    call: MultiHeadCall,
    biases: bool,
    learned_row: bool,
}

impl Case {
    fn new(embed_dim: u32, heads: u32, batch: u32, seqlen: u32) -> Self {
        Self {
            descriptor: MultiHeadDescriptor::new(embed_dim, heads),
            call: MultiHeadCall {
                weights: HeadWeights::Averaged,
                ..MultiHeadCall::self_attention(batch, seqlen)
            },
            biases: true,
            learned_row: false,
        }
    }

    fn keys(&self) -> u32 {
        self.call.seqlen_k + u32::from(self.learned_row) + u32::from(self.descriptor.add_zero_attn)
    }
}

/// Calls that meet every option, at sizes that no tile divides.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    // The lesson's shape.
    all.push(Case::new(512, 8, 1, 6));
    // One head of one channel over one word; heads of an odd size.
    all.push(Case::new(1, 1, 1, 1));
    all.push(Case::new(33, 11, 2, 35));
    // Cross-attention with key and value of other widths, everything masked at once, no weights.
    let mut cross = Case::new(20, 4, 2, 37);
    cross.descriptor.key_dim = 7;
    cross.descriptor.value_dim = 13;
    cross.call.seqlen_k = 41;
    cross.call.mask = Some(Broadcast::new([2, 4, 37, 41]));
    cross.call.bias = Some(Broadcast::new([1, 1, 37, 41]));
    cross.call.key_padding = Some(KeyPadding::Boolean);
    cross.call.weights = HeadWeights::None;
    all.push(cross);
    // The same with the sequence first, a causal rule and the weights of each head.
    let mut first = Case::new(24, 3, 3, 10);
    first.call.seqlen_k = 70;
    first.call.sequence_first = true;
    first.call.causal = Some(CausalAlignment::LowerRight);
    first.call.key_padding = Some(KeyPadding::Additive);
    first.call.weights = HeadWeights::PerHead;
    all.push(first);
    // Appended keys, learned and of zeros, without biases.
    let mut appended = Case::new(16, 2, 2, 31);
    appended.descriptor.add_zero_attn = true;
    appended.learned_row = true;
    appended.biases = false;
    appended.call.causal = Some(CausalAlignment::UpperLeft);
    all.push(appended);
    // Three kernels where nobody wants the weights.
    let mut three = Case::new(40, 5, 1, 67);
    three.call.weights = HeadWeights::None;
    three.call.algorithm = Algorithm::ThreeKernels;
    all.push(three);
    all
}

/// Operands of a case, from a seed.
struct Data {
    parameters: MultiHeadParameters,
    query: Vec<f32>,
    key: Option<Vec<f32>>,
    value: Option<Vec<f32>>,
    mask: Option<Vec<u8>>,
    bias: Option<Vec<f32>>,
    padding_bytes: Option<Vec<u8>>,
    padding_values: Option<Vec<f32>>,
}

impl Data {
    fn random(case: &Case, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let MultiHeadDescriptor {
            embed_dim,
            key_dim,
            value_dim,
            ..
        } = case.descriptor;
        let MultiHeadCall {
            batch,
            seqlen_q,
            seqlen_k,
            ..
        } = case.call;
        let mut floats =
            |len: u32, spread: f32| -> Vec<f32> { (0..len).map(|_| rng.random_range(-spread..spread)).collect() };
        // Projections that keep the variance.
        let mut weight = |inputs: u32| floats(embed_dim * inputs, (3.0 / inputs as f32).sqrt());
        let mut parameters = MultiHeadParameters {
            query_weight: weight(embed_dim),
            key_weight: weight(key_dim),
            value_weight: weight(value_dim),
            out_weight: weight(embed_dim),
            ..Default::default()
        };
        if case.biases {
            parameters.query_bias = Some(floats(embed_dim, 1.0));
            parameters.key_bias = Some(floats(embed_dim, 1.0));
            parameters.value_bias = Some(floats(embed_dim, 1.0));
            parameters.out_bias = Some(floats(embed_dim, 1.0));
        }
        if case.learned_row {
            parameters.appended = Some([floats(embed_dim, 1.0), floats(embed_dim, 1.0)]);
        }
        let cross = seqlen_k != seqlen_q || key_dim != embed_dim || value_dim != embed_dim;
        let query = floats(batch * seqlen_q * embed_dim, 1.7);
        let key = cross.then(|| floats(batch * seqlen_k * key_dim, 1.7));
        let value = cross.then(|| floats(batch * seqlen_k * value_dim, 1.7));
        let size = |broadcast: Broadcast| broadcast.shape.iter().product();
        let bias = case.call.bias.map(|broadcast| floats(size(broadcast), 1.0));
        let additive = case.call.key_padding == Some(KeyPadding::Additive);
        let padding_values = additive.then(|| {
            let mut values = floats(batch * seqlen_k, 1.0);
            values
                .iter_mut()
                .step_by(3)
                .for_each(|value| *value = f32::NEG_INFINITY);
            values
        });
        let mut bytes = |len: u32| -> Vec<u8> { (0..len).map(|_| u8::from(rng.random_bool(0.7))).collect() };
        let mask = case.call.mask.map(|broadcast| {
            let mut mask = bytes(size(broadcast));
            // A row that sees no key.
            mask[..broadcast.shape[3] as usize].fill(0);
            mask
        });
        let boolean = case.call.key_padding == Some(KeyPadding::Boolean);
        let padding_bytes = boolean.then(|| bytes(batch * seqlen_k));
        Self {
            parameters,
            query,
            key,
            value,
            mask,
            bias,
            padding_bytes,
            padding_values,
        }
    }

    fn inputs(&self) -> MultiHeadInputs<'_> {
        let boolean = self.padding_bytes.as_deref().map(HostKeyPadding::Boolean);
        MultiHeadInputs {
            query: &self.query,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            mask: self.mask.as_deref(),
            bias: self.bias.as_deref(),
            key_padding: boolean.or(self.padding_values.as_deref().map(HostKeyPadding::Additive)),
        }
    }
}

/// Output and weights, bit by bit.
fn run(engine: &Engine, case: &Case, data: &Data) -> [Vec<u32>; 2] {
    let block = MultiHeadAttention::new(engine, &case.descriptor, &data.parameters).unwrap();
    let prepared = block.prepare(&case.call).unwrap();
    let upload = |floats: &Option<Vec<f32>>| floats.as_ref().map(|floats| engine.upload(floats).unwrap());
    let upload_bytes = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| engine.upload_bytes(bytes).unwrap());
    let poisoned = |bytes: u64| {
        engine
            .upload_bytes(bytemuck::cast_slice(&vec![POISON; bytes as usize / 4]))
            .unwrap()
    };
    let query = engine.upload(&data.query).unwrap();
    let (key, value, bias) = (upload(&data.key), upload(&data.value), upload(&data.bias));
    let mask = upload_bytes(&data.mask);
    let padding = upload_bytes(&data.padding_bytes).or_else(|| upload(&data.padding_values));
    let output = poisoned(4 * data.query.len() as u64);
    let weights = Some(prepared.weights_bytes()).filter(|&bytes| bytes > 0).map(poisoned);
    let bound = prepared
        .bind(&MultiHeadBuffers {
            query: (&query).into(),
            key: key.as_ref().unwrap_or(&query).into(),
            value: value.as_ref().unwrap_or(&query).into(),
            mask: mask.as_ref().map(Into::into),
            bias: bias.as_ref().map(Into::into),
            key_padding: padding.as_ref().map(Into::into),
            output: (&output).into(),
            weights: weights.as_ref().map(Into::into),
        })
        .unwrap();
    engine.run(&bound).unwrap();
    let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect();
    let weights = weights.map_or(Vec::new(), |weights| engine.read(&weights).unwrap());
    [bits(engine.read(&output).unwrap()), bits(weights)]
}

fn check(name: &str, engine: &Engine, case: &Case, seed: u64) {
    let data = Data::random(case, seed);
    let (descriptor, call) = (&case.descriptor, &case.call);
    let in_precision =
        |precision| reference::multi_head_in(precision, descriptor, &data.parameters, call, &data.inputs()).unwrap();
    let (want, naive) = (in_precision(Precision::F64), in_precision(Precision::F32));
    let got = run(engine, case, &data);
    assert_eq!(got, run(engine, case, &data), "{name}: two runs differ: {call:?}");
    let [output, weights] = got.map(|bits| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>());
    for (what, got, want, naive) in [
        ("output", &output, &want.output, &naive.output),
        ("weights", &weights, &want.weights, &naive.weights),
    ] {
        if let Err(mismatch) = compare(got, want, Tolerance::derived(naive, want)) {
            panic!("{name}: {what}: {mismatch}\n{descriptor:?} {call:?}");
        }
    }
    if call.weights == HeadWeights::Averaged {
        let maps = u64::from(call.batch) * u64::from(call.seqlen_q) * u64::from(case.keys());
        assert_eq!(weights.len() as u64, maps);
    }
}

#[test]
fn every_call_agrees_with_the_reference() {
    for (name, engine) in engines() {
        for (seed, case) in cases().iter().enumerate() {
            check(&name, &engine, case, seed as u64);
        }
    }
}

/// Projections and averages are cut by each limit as attention is.
#[test]
fn limits_are_planned_for() {
    for (name, engine) in engines() {
        let mut small = engine.caps().clone();
        small.limits.max_storage_buffer_binding_bytes = 9500;
        let mut narrow = engine.caps().clone();
        narrow.limits.max_workgroups_per_dimension = 2;
        let mut short = engine.caps().clone();
        short.max_dispatch_flops = 2e4;
        for (index, caps) in [small, narrow, short].into_iter().enumerate() {
            let limited = engine.with_caps(caps);
            let case = Case::new(24, 3, 2, 70);
            let data = Data::random(&case, 1);
            let block = MultiHeadAttention::new(&limited, &case.descriptor, &data.parameters).unwrap();
            let prepared = block.prepare(&case.call).unwrap();
            let plan = prepared.plan();
            assert!(plan.passes().len() > 3, "limit {index} cuts nothing: {plan}");
            check(&format!("{name}, limit {index}"), &limited, &case, 1);
        }
    }
}

/// One call on host slices gives what a prepared call on buffers gives, and the context besides.
#[test]
fn host_slices_and_buffers_agree() {
    for (name, engine) in engines() {
        let case = &cases()[3];
        let data = Data::random(case, 3);
        let block = MultiHeadAttention::new(&engine, &case.descriptor, &data.parameters).unwrap();
        let output = block.forward(&case.call, &data.inputs()).unwrap();
        let bits: Vec<_> = output.output.iter().map(|number| number.to_bits()).collect();
        assert_eq!(bits, run(&engine, case, &data)[0], "{name}");
        let waited = pollster::block_on(block.forward_async(&case.call, &data.inputs())).unwrap();
        assert_eq!(output, waited, "{name}");
        let in_precision = |precision| {
            let (descriptor, call) = (&case.descriptor, &case.call);
            reference::multi_head_in(precision, descriptor, &data.parameters, call, &data.inputs()).unwrap()
        };
        let (want, naive) = (in_precision(Precision::F64), in_precision(Precision::F32));
        let tolerance = Tolerance::derived(&naive.context, &want.context);
        compare(&output.context, &want.context, tolerance).unwrap_or_else(|mismatch| panic!("{name}: {mismatch}"));
    }
}
