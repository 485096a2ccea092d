//! Linear layers on every adapter and tier, against the `f64` reference.

mod support;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use support::{Tolerance, compare, engine, engines};
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{BufferAt, Error, LinearDescriptor, LinearHostInputs, LinearInputs, Operand};

fn random(count: u32, rng: &mut StdRng) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

#[test]
fn linear_layers_agree_with_the_reference() {
    for (name, engine) in engines() {
        for (seed, [rows, in_features, out_features]) in
            [[1, 1, 1], [5, 7, 3], [17, 64, 130], [3, 576, 192], [70, 33, 65]]
                .into_iter()
                .enumerate()
        {
            for bias in [false, true] {
                let mut rng = StdRng::seed_from_u64(seed as u64);
                let descriptor = LinearDescriptor {
                    bias,
                    ..LinearDescriptor::new(rows, in_features, out_features)
                };
                let x = random(rows * in_features, &mut rng);
                let weight = random(out_features * in_features, &mut rng);
                let bias = bias.then(|| random(out_features, &mut rng));
                let inputs = LinearHostInputs {
                    x: &x,
                    weight: &weight,
                    bias: bias.as_deref(),
                };
                let want = reference::linear(&descriptor, &inputs).unwrap();
                let naive = reference::linear_in(Precision::F32, &descriptor, &inputs).unwrap();
                let got = engine.linear(&descriptor, &inputs).unwrap();
                compare(&got, &want, Tolerance::derived(&naive, &want))
                    .unwrap_or_else(|error| panic!("{name}: {error}\n{descriptor:?}"));
                assert_eq!(
                    got,
                    engine.linear(&descriptor, &inputs).unwrap(),
                    "{name}: two runs differ"
                );
            }
        }
    }
}

/// Recorded into the caller's encoder at offsets, one layer's output the next one's input; nothing else is written.
#[test]
fn layers_chain_in_the_callers_encoder() {
    const POISON: f32 = 12345.0;
    let (x, first, second) = ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 1.0, 1.0, 1.0], [1.0, 10.0, 100.0]);
    for (name, engine) in engines() {
        let layers = [LinearDescriptor::new(2, 2, 3), LinearDescriptor::new(2, 3, 1)];
        let [up, down] = layers.map(|layer| engine.prepare_linear(&layer).unwrap());
        let [x, first, second] = [&x[..], &first, &second].map(|data| engine.upload(data).unwrap());
        let hidden = engine.allocate(24).unwrap();
        let out = engine.upload(&[POISON; 6]).unwrap();
        let at = BufferAt {
            buffer: out.buffer(),
            offset_bytes: 8,
        };
        let up = up.bind(&LinearInputs::new(&x, &first), &hidden).unwrap();
        let down = down.bind(&LinearInputs::new(&hidden, &second), at).unwrap();
        let mut encoder = engine.device().create_command_encoder(&Default::default());
        up.encode(&mut encoder);
        down.encode(&mut encoder);
        engine.queue().submit([encoder.finish()]);
        let got = engine.read(&out).unwrap();
        assert_eq!(got, [POISON, POISON, 321.0, 743.0, POISON, POISON], "{name}");
    }
}

#[test]
fn errors_name_the_layers_own_operands() {
    let engine = engine();
    for sizes in [[0, 1, 1], [1, 0, 1], [1, 1, 0]] {
        let descriptor = LinearDescriptor::new(sizes[0], sizes[1], sizes[2]);
        let error = engine.prepare_linear(&descriptor).unwrap_err();
        let dimension = ["rows", "in_features", "out_features"][sizes.iter().position(|&size| size == 0).unwrap()];
        assert!(
            matches!(error, Error::ZeroSize { dimension: zero } if zero == dimension),
            "{error}"
        );
    }
    let descriptor = LinearDescriptor {
        bias: true,
        ..LinearDescriptor::new(2, 2, 3)
    };
    let good = LinearHostInputs {
        x: &[0.0; 4],
        weight: &[0.0; 6],
        bias: Some(&[0.0; 3]),
    };
    for (inputs, operand) in [
        (LinearHostInputs { x: &[0.0; 5], ..good }, Operand::X),
        (
            LinearHostInputs {
                weight: &[0.0; 5],
                ..good
            },
            Operand::Projection,
        ),
        (
            LinearHostInputs {
                bias: Some(&[0.0; 2]),
                ..good
            },
            Operand::Bias,
        ),
    ] {
        let error = engine.linear(&descriptor, &inputs).unwrap_err();
        assert!(
            matches!(error, Error::Length { operand: wrong, .. } if wrong == operand),
            "{error}"
        );
    }
    let missing = engine
        .linear(&descriptor, &LinearHostInputs { bias: None, ..good })
        .unwrap_err();
    assert!(matches!(missing, Error::MissingOperand { operand: Operand::Bias }));

    let linear = engine.prepare_linear(&LinearDescriptor::new(2, 2, 3)).unwrap();
    let [x, weight, out] = [16, 24, 24].map(|bytes| engine.allocate(bytes).unwrap());
    let refused = |inputs: LinearInputs<'_>, out: BufferAt<'_>| linear.bind(&inputs, out).unwrap_err();
    let small = engine.allocate(12).unwrap();
    let good = LinearInputs::new(&x, &weight);
    for (error, operand) in [
        (
            refused(
                LinearInputs {
                    x: (&small).into(),
                    ..good
                },
                (&out).into(),
            ),
            Operand::X,
        ),
        (
            refused(
                LinearInputs {
                    weight: (&small).into(),
                    ..good
                },
                (&out).into(),
            ),
            Operand::Projection,
        ),
        (refused(good, (&small).into()), Operand::Out),
    ] {
        assert!(
            matches!(error, Error::BufferTooSmall { operand: wrong, .. } if wrong == operand),
            "{error}"
        );
    }
    let shared = refused(good, (&weight).into());
    assert!(
        matches!(
            shared,
            Error::SharedBuffer {
                operand: Operand::Out,
                other: Operand::Projection
            }
        ),
        "{shared}"
    );
    let unexpected = refused(
        LinearInputs {
            bias: Some((&small).into()),
            ..good
        },
        (&out).into(),
    );
    assert!(
        matches!(unexpected, Error::UnexpectedOperand { operand: Operand::Bias }),
        "{unexpected}"
    );
}
