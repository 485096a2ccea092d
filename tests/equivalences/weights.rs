//! Weights: what they add up to, which rows are handed out, and what dropout keeps of them.

use wgpu_attention::problem::philox_keeps;
use wgpu_attention::{AttentionDescriptor, Broadcast, Dropout, DropoutKeep};

use super::*;

#[test]
fn rows_of_weights_add_up_to_1() {
    for_cases(8, |case| {
        let masked = AttentionDescriptor {
            mask: Some(Broadcast::new(case.positions())),
            sinks: case.seed % 2 == 0,
            ..case.causal()
        };
        let request = Request::random(masked, case.seed);
        let (want, naive) = (request.reference(Precision::F64), request.reference(Precision::F32));
        let (heads, rows) = (case.shape.heads as usize, case.shape.seqlen_q as usize);
        let wanted = want
            .lse
            .iter()
            .enumerate()
            .map(|(row, &lse)| match &request.inputs.sinks {
                _ if lse == f64::NEG_INFINITY => 0.0,
                None => 1.0,
                Some(sinks) => 1.0 - (f64::from(sinks[row / rows % heads]) - lse).exp(),
            });
        let wanted: Vec<_> = wanted.collect();
        let sums = |weights: &[f64]| -> Vec<f64> {
            let rows = weights.chunks_exact(case.shape.seqlen_k as usize);
            rows.map(|row| row.iter().sum()).collect()
        };
        let mut tolerance = Tolerance::derived(&sums(&naive.weights), &wanted);
        // Weights that are made anew share the rounding of their row's lse.
        let largest = want
            .lse
            .iter()
            .filter(|lse| lse.is_finite())
            .fold(0.0f64, |most, lse| most.max(lse.abs()));
        tolerance.absolute += f64::from(f32::EPSILON) * largest;
        for (name, engine) in case.engines() {
            for algorithm in BOTH {
                let got: Vec<_> = request
                    .run(engine, algorithm)
                    .weights
                    .into_iter()
                    .map(f64::from)
                    .collect();
                let got: Vec<_> = sums(&got).into_iter().map(|sum| sum as f32).collect();
                assert_within(&format!("{name}, {algorithm:?}"), &got, &wanted, tolerance)?;
            }
        }
        Ok(())
    });
}

#[test]
fn some_rows_of_weights_are_a_slice_of_all() {
    for_cases(8, |case| {
        let AttentionShape { seqlen_q, seqlen_k, .. } = case.shape;
        let all = Request::random(case.causal(), case.seed);
        let (want, naive) = (all.reference(Precision::F64), all.reference(Precision::F32));
        let begin = case.seed as u32 % seqlen_q;
        let end = begin + 1 + (case.seed >> 32) as u32 % (seqlen_q - begin);
        let slice = |weights: &[f64]| -> Vec<f64> {
            let heads = weights.chunks_exact((seqlen_q * seqlen_k) as usize);
            heads
                .flat_map(|head| &head[(begin * seqlen_k) as usize..(end * seqlen_k) as usize])
                .copied()
                .collect()
        };
        let (want, naive) = (slice(&want.weights), slice(&naive.weights));
        let some = all.with(AttentionDescriptor {
            outputs: Outputs {
                rows: Some([begin, end]),
                ..LSE_AND_WEIGHTS
            },
            ..case.causal()
        });
        for (name, engine) in case.engines() {
            for algorithm in BOTH {
                let got = some.run(engine, algorithm);
                let name = format!("{name}, {algorithm:?}, rows {begin}..{end}");
                assert_within(&name, &got.weights, &want, Tolerance::derived(&naive, &want))?;
                // Out is what it is.
                let whole = all.run(engine, algorithm);
                prop_assert_eq!((got.out, got.lse), (whole.out, whole.lse), "{}", name);
            }
        }
        Ok(())
    });
}

fn dropping(case: Case, probability: f32, keep: DropoutKeep) -> AttentionDescriptor<'static> {
    AttentionDescriptor {
        dropout: Some(Dropout { probability, keep }),
        ..case.causal()
    }
}

#[test]
fn dropout_of_nothing_is_none() {
    for_cases(6, |case| {
        let generated = dropping(
            case,
            0.0,
            DropoutKeep::Philox {
                seed: case.seed,
                offset: 3,
            },
        );
        prop_assert_eq!(problem(&generated), problem(&case.causal()));

        let without = Request::random(case.causal(), case.seed);
        let kept = OwnedInputs {
            dropout_mask: Some(vec![1; case.positions().iter().product::<u32>() as usize]),
            ..without.inputs.clone()
        };
        assert_same(
            case,
            [&without, &Request::new(dropping(case, 0.0, DropoutKeep::Given), kept)],
        )
    });
}

#[test]
fn a_given_mask_may_be_that_of_the_generator() {
    for_cases(8, |case| {
        let (probability, offset) = (0.35, case.seed as u32);
        let seed = case.seed.rotate_left(20);
        let generated = dropping(case, probability, DropoutKeep::Philox { seed, offset });
        let generated = Request::random(generated, case.seed);
        let [batch, heads, rows, keys] = case.positions();
        let mut mask = Vec::new();
        for head_number in 0..batch * heads {
            for i in 0..rows {
                let keeps = |j| philox_keeps(probability, seed, offset, [head_number, i, j]);
                mask.extend((0..keys).map(|j| u8::from(keeps(j))));
            }
        }
        let given = OwnedInputs {
            dropout_mask: Some(mask),
            ..generated.inputs.clone()
        };
        let given = Request::new(dropping(case, probability, DropoutKeep::Given), given);
        assert_same(case, [&generated, &given])
    });
}

/// Over many calls dropout takes nothing away.
#[test]
fn the_mean_of_dropout_is_none() {
    const CALLS: u32 = 100;
    const PROBABILITY: f32 = 0.5;
    let shape = AttentionShape::new(1, 2, 8, 64, 8);
    let plain = AttentionDescriptor {
        shape,
        ..Default::default()
    };
    let mut request = Request::random(plain, 11);
    // Values around 1, so that what is missing would show.
    request
        .inputs
        .value
        .singles()
        .iter_mut()
        .for_each(|value| *value = 1.0 + 0.25 * *value);
    let want = request.reference(Precision::F64);
    let weights = {
        let descriptor = AttentionDescriptor {
            outputs: LSE_AND_WEIGHTS,
            ..request.descriptor.clone()
        };
        request.with(descriptor).reference(Precision::F64).weights
    };
    let value = request.inputs.value.singles().clone();
    // An element of out is a sum of CALLS * seqlen_k independent terms, each 0 or w v / ((1 - p) CALLS) in size. By Hoeffding's
    // inequality it is further than t from its mean with a probability of at most 2 exp(-2 t^2 / (sum of squares of those
    // sizes)); t is where all elements together reach 1e-9.
    let (rows, keys, channels) = (
        shape.seqlen_q as usize,
        shape.seqlen_k as usize,
        shape.head_dim_v as usize,
    );
    let bound = |index: usize| {
        let (row, channel) = (index / channels, index % channels);
        let head = row / rows;
        let squares = (0..keys).map(|key| {
            let size = weights[row * keys + key] * f64::from(value[(head * keys + key) * channels + channel]);
            (size / (1.0 - f64::from(PROBABILITY))).powi(2) / f64::from(CALLS)
        });
        let elements = (2 * rows * channels) as f64;
        (squares.sum::<f64>() * (2.0 * elements / 1e-9).ln() / 2.0).sqrt()
    };
    for (name, engine) in ENGINES.iter() {
        for algorithm in BOTH {
            let mut mean = vec![0.0; want.out.len()];
            for offset in 0..CALLS {
                let keep = DropoutKeep::Philox { seed: 5, offset };
                let descriptor = AttentionDescriptor {
                    algorithm,
                    dropout: Some(Dropout {
                        probability: PROBABILITY,
                        keep,
                    }),
                    ..request.descriptor.clone()
                };
                let out = engine.attention(&descriptor, &request.inputs.host(&[])).unwrap().out;
                mean.iter_mut()
                    .zip(out)
                    .for_each(|(sum, out)| *sum += f64::from(out) / f64::from(CALLS));
            }
            for (index, (mean, want)) in mean.iter().zip(&want.out).enumerate() {
                let bound = bound(index);
                assert!(
                    (mean - want).abs() <= bound,
                    "{name}, {algorithm:?}: {mean} not {want} within {bound}"
                );
                // The bound would not let a forgotten 1 / (1 - p) pass.
                assert!(bound < f64::from(PROBABILITY) * want.abs() / 2.0, "{bound} of {want}");
            }
        }
    }
}
