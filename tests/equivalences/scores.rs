//! What happens to a score, said in several ways.

use wgpu_attention::{AttentionDescriptor, Broadcast, Capture, CaptureElement, ScoreStage};

use super::*;

#[test]
fn an_infinite_softcap_is_none() {
    for_cases(16, |case| {
        let capped = AttentionDescriptor {
            softcap: Some(f32::INFINITY),
            ..case.causal()
        };
        // Equal problems have equal plans, kernels and parameters.
        prop_assert_eq!(problem(&capped), problem(&case.causal()));
        Ok(())
    });
}

#[test]
fn a_far_softcap_is_nearly_none() {
    for_cases(8, |case| {
        let capped = AttentionDescriptor {
            softcap: Some(1e6),
            ..case.causal()
        };
        let without = Request::random(case.causal(), case.seed);
        assert_same(case, [&without, &without.with(capped)])
    });
}

/// By a hyperbolic tangent of the caller's own, from the exponential function.
#[test]
fn a_softcap_may_be_a_function() {
    const SOFTCAP: f32 = 1.5;
    for_cases(6, |case| {
        let capped = AttentionDescriptor {
            softcap: Some(SOFTCAP),
            ..case.causal()
        };
        let modified = AttentionDescriptor {
            mods: wgpu_attention::Mods {
                score_mod: Some(
                    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    let fallen = exp(-2.0 * abs(score / 1.5));
    return sign(score) * 1.5 * (1.0 - fallen) / (1.0 + fallen);
}",
                ),
                ..Default::default()
            },
            ..case.causal()
        };
        let capped = Request::random(capped, case.seed);
        let softcap = f64::from(SOFTCAP);
        let score_mod = |score: f64, _: [u32; 4]| softcap * (score / softcap).tanh();
        let modified = Request {
            mods: Mods {
                score_mod: Some(&score_mod),
                ..Default::default()
            },
            ..capped.with(modified)
        };
        // WGSL lets exp(-x) be off by 3 + 2 x units in the last place, of numbers that fall as fast: by at most 3 units of 1.
        // The difference and the sum have as much of it and half a unit each, so the quotient 9 at most, times the softcap.
        assert_same_but(9.0 * softcap * f64::from(f32::EPSILON), case, [&capped, &modified])
    });
}

#[test]
fn a_bias_may_be_a_function() {
    for_cases(8, |case| {
        let sizes = case.positions();
        let biased = AttentionDescriptor {
            bias: Some(Broadcast::new(sizes)),
            ..case.causal()
        };
        let biased = Request::random(biased, case.seed);
        let bias = biased.inputs.bias.clone().unwrap().singles().clone();
        let [_, heads, rows, keys] = sizes;
        let capture = |name, element, len: usize| Capture {
            name,
            element,
            len: len as u32,
        };
        let captures = [
            capture("added", CaptureElement::F32, bias.len()),
            capture("sizes", CaptureElement::U32, 4),
        ];
        let modified = AttentionDescriptor {
            mods: wgpu_attention::Mods {
                score_mod: Some(
                    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    let number = added[((batch * sizes[1] + head) * sizes[2] + q_idx) * sizes[3] + kv_idx];
    return select(score + number, NEGATIVE_INFINITY, number <= NEGATIVE_INFINITY);
}",
                ),
                captures: &captures,
                ..Default::default()
            },
            ..case.causal()
        };
        let score_mod = |score: f64, [batch, head, q_idx, kv_idx]: [u32; 4]| {
            score + f64::from(bias[(((batch * heads + head) * rows + q_idx) * keys + kv_idx) as usize])
        };
        let modified = Request {
            mods: Mods {
                score_mod: Some(&score_mod),
                ..Default::default()
            },
            ..Request::new(
                modified,
                OwnedInputs {
                    bias: None,
                    captures: vec![
                        bytemuck::cast_slice(&bias).to_vec(),
                        bytemuck::cast_slice(&sizes).to_vec(),
                    ],
                    ..biased.inputs.clone()
                },
            )
        };
        assert_same(case, [&biased, &modified])
    });
}

#[test]
fn alibi_is_a_bias() {
    for_cases(8, |case| {
        let sloped = AttentionDescriptor {
            alibi_slopes: true,
            ..case.causal()
        };
        let sloped = Request::random(sloped, case.seed);
        let slopes = sloped.inputs.alibi_slopes.clone().unwrap();
        let [_, heads, rows, keys] = case.positions();
        let mut bias = Vec::new();
        for head in 0..heads {
            for i in 0..rows {
                let own = i64::from(i) + i64::from(keys) - i64::from(rows);
                bias.extend((0..keys).map(|j| -slopes[head as usize] * (own - i64::from(j)).abs() as f32));
            }
        }
        let biased = AttentionDescriptor {
            bias: Some(Broadcast::new([1, heads, rows, keys])),
            ..case.causal()
        };
        let biased = Request::new(
            biased,
            OwnedInputs {
                alibi_slopes: None,
                bias: Some(Numbers::F32(bias)),
                ..sloped.inputs.clone()
            },
        );
        assert_same(case, [&sloped, &biased])
    });
}

#[test]
fn sinks_of_negative_infinity_are_none() {
    for_cases(8, |case| {
        let without = Request::random(case.causal(), case.seed);
        let sunk = AttentionDescriptor {
            sinks: true,
            ..case.causal()
        };
        let inputs = OwnedInputs {
            sinks: Some(vec![f32::NEG_INFINITY; case.shape.heads as usize]),
            ..without.inputs.clone()
        };
        assert_same(case, [&without, &Request::new(sunk, inputs)])
    });
}

/// A sink is one more key, open to all, with the sink as its score and zeros as its value.
#[test]
fn a_sink_is_an_appended_key_of_no_value() {
    for_cases(8, |case| {
        let shape = case.shape;
        let sunk = AttentionDescriptor {
            scale: Some(0.25),
            sinks: true,
            outputs: Outputs {
                weights: false,
                ..LSE_AND_WEIGHTS
            },
            ..case.causal()
        };
        let appended = AttentionDescriptor {
            shape: AttentionShape {
                seqlen_k: shape.seqlen_k + 1,
                ..shape
            },
            appended_keys: 1,
            sinks: false,
            ..sunk.clone()
        };
        let mut sunk = Request::random(sunk, case.seed);
        // A sink of negative infinity is none, which no key is.
        let mut sinks = sunk.inputs.sinks.take().unwrap();
        sinks.iter_mut().for_each(|sink| *sink = sink.max(-1.5));
        sunk.inputs.sinks = Some(sinks.clone());
        // The last channel is the appended key's alone: 0 in all others, and in queries four times the sink.
        let dim = shape.head_dim as usize;
        for row in sunk.inputs.key.singles().chunks_exact_mut(dim) {
            row[dim - 1] = 0.0;
        }
        let query_rows = sunk.inputs.query.singles().chunks_exact_mut(dim);
        for (number, row) in query_rows.enumerate() {
            let sink = sinks[number / shape.seqlen_q as usize % shape.heads as usize];
            row[dim - 1] = 4.0 * sink;
        }
        let longer = |numbers: &mut Numbers, channels: u32, row: &[f32]| {
            let heads = numbers.singles().chunks_exact((shape.seqlen_k * channels) as usize);
            Numbers::F32(heads.flat_map(|head| [head, row].concat()).collect())
        };
        let mut appended_key = vec![0.0; dim];
        appended_key[dim - 1] = 1.0;
        let inputs = OwnedInputs {
            key: longer(&mut sunk.inputs.key, shape.head_dim, &appended_key),
            value: longer(
                &mut sunk.inputs.value,
                shape.head_dim_v,
                &vec![0.0; shape.head_dim_v as usize],
            ),
            sinks: None,
            ..sunk.inputs.clone()
        };
        assert_same(case, [&sunk, &Request::new(appended, inputs)])
    });
}

/// What softmax sees is what it makes the weights of.
#[test]
fn softmax_of_the_scores_is_the_weights() {
    for_cases(6, |case| {
        let descriptor = AttentionDescriptor {
            softcap: Some(2.0),
            bias: Some(Broadcast::new(case.positions())),
            sinks: true,
            outputs: Outputs {
                scores: Some(ScoreStage::Biased),
                ..LSE_AND_WEIGHTS
            },
            ..case.causal()
        };
        let request = Request::random(descriptor, case.seed);
        let sinks = request.inputs.sinks.clone().unwrap();
        let (want, naive) = (request.reference(Precision::F64), request.reference(Precision::F32));
        let tolerance = Tolerance::derived(&naive.weights, &want.weights);
        for (name, engine) in case.engines() {
            for algorithm in BOTH {
                let got = request.run(engine, algorithm);
                let keys = case.shape.seqlen_k as usize;
                let softmax = got.scores.chunks_exact(keys).enumerate().flat_map(|(number, row)| {
                    let sink = sinks[number / case.shape.seqlen_q as usize % case.shape.heads as usize];
                    let exp = |score: f32| f64::from(score).exp();
                    let sum = row.iter().copied().map(exp).sum::<f64>() + exp(sink);
                    row.iter()
                        .map(move |&score| if sum == 0.0 { 0.0 } else { exp(score) / sum })
                });
                let softmax: Vec<f64> = softmax.collect();
                assert_within(&format!("{name}, {algorithm:?}"), &got.weights, &softmax, tolerance)?;
            }
        }
        Ok(())
    });
}
