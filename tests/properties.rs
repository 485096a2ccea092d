//! What must hold of attention whatever the numbers are, on every adapter and at every tier.

mod support;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::inputs::Numbers;
use support::{OwnedInputs, Tolerance, compare, engines};
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionOutput, AttentionShape, Broadcast, Engine, HostInputs, Operand, Outputs,
    Problem,
};

/// Runs a property on every engine, with shapes around the tiles' edges. Few head sizes, since each compiles anew.
fn for_shapes(property: impl Fn(&Engine, AttentionDescriptor<'static>, u64) -> Result<(), TestCaseError>) {
    let shapes = (1u32..3, 1u32..3, 1u32..4, 1u32..40, 1u32..80, 0usize..3);
    let strategy = (shapes, any::<bool>(), any::<u64>());
    for (name, engine) in engines() {
        let mut runner = TestRunner::new_with_rng(
            ProptestConfig {
                cases: 12,
                failure_persistence: None,
                ..Default::default()
            },
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        );
        let result = runner.run(&strategy, |(shape, fused, seed)| {
            let (batch, kv_heads, group_size, seqlen_q, seqlen_k, head_dim) = shape;
            let shape = AttentionShape {
                kv_heads,
                head_dim_v: [5, 20, 64][2 - head_dim],
                ..AttentionShape::new(batch, kv_heads * group_size, seqlen_q, seqlen_k, [5, 20, 64][head_dim])
            };
            let descriptor = AttentionDescriptor {
                shape,
                algorithm: if fused {
                    Algorithm::Fused
                } else {
                    Algorithm::ThreeKernels
                },
                outputs: Outputs {
                    lse: true,
                    weights: true,
                    ..Default::default()
                },
                ..Default::default()
            };
            property(&engine, descriptor, seed)
        });
        result.unwrap_or_else(|failure| panic!("{name}: {failure}"));
    }
}

fn run(engine: &Engine, descriptor: &AttentionDescriptor<'_>, inputs: &HostInputs<'_>) -> AttentionOutput {
    engine
        .attention(descriptor, inputs)
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"))
}

/// Compares `out` with the reference of the problem as it was before it was changed.
fn assert_out(got: &[f32], want: &[f64], naive: &[f64]) -> Result<(), TestCaseError> {
    assert_within(got, want, Tolerance::derived(naive, want))
}

fn assert_within(got: &[f32], want: &[f64], tolerance: Tolerance) -> Result<(), TestCaseError> {
    compare(got, want, tolerance).map_err(|mismatch| TestCaseError::fail(mismatch.to_string()))
}

/// Rows of `[rows, row_len]` blocks of `data`, reordered within each block.
fn reordered(data: &[f32], order: &[usize], row_len: usize) -> Vec<f32> {
    let blocks = data.chunks_exact(order.len() * row_len);
    let rows = blocks.flat_map(|block| order.iter().map(move |&row| &block[row * row_len..(row + 1) * row_len]));
    rows.flatten().copied().collect()
}

#[test]
fn the_order_of_the_keys_does_not_matter() {
    for_shapes(|engine, descriptor, seed| {
        let shape = descriptor.shape;
        let problem = Problem::new(&descriptor).unwrap();
        let mut inputs = OwnedInputs::random(&problem, seed);
        let want = reference::attention(&problem, &inputs.host(&[])).unwrap();
        let naive = reference::attention_in(Precision::F32, &problem, &inputs.host(&[])).unwrap();

        // Some order that no tile boundary survives: steps of a number that shares no factor with the length.
        let keys = shape.seqlen_k as usize;
        let step = (keys / 2..).find(|&step| step > 0 && gcd(step, keys) == 1).unwrap_or(1);
        let order: Vec<_> = (0..keys)
            .map(|key| (key * step + seed as usize % keys) % keys)
            .collect();
        let permuted = OwnedInputs {
            key: Numbers::F32(reordered(inputs.key.singles(), &order, shape.head_dim as usize)),
            value: Numbers::F32(reordered(inputs.value.singles(), &order, shape.head_dim_v as usize)),
            ..inputs
        };
        let got = run(engine, &descriptor, &permuted.host(&[]));
        assert_out(&got.out, &want.out, &naive.out)?;
        assert_out(&got.lse.unwrap(), &want.lse, &naive.lse)?;
        // The weights went along with the keys.
        let moved = |weights: &[f64]| -> Vec<f64> {
            let rows = weights.chunks_exact(keys);
            rows.flat_map(|row| order.iter().map(|&key| row[key])).collect()
        };
        assert_out(&got.weights.unwrap(), &moved(&want.weights), &moved(&naive.weights))
    });
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn a_constant_added_to_all_scores_only_moves_the_lse() {
    for_shapes(|engine, descriptor, seed| {
        let problem = Problem::new(&descriptor).unwrap();
        let inputs = OwnedInputs::random(&problem, seed);
        let want = reference::attention(&problem, &inputs.host(&[])).unwrap();
        let shifted = AttentionDescriptor {
            bias: Some(Broadcast::new([1; 4])),
            ..descriptor.clone()
        };
        for constant in [-37.5f32, 64.0] {
            let bias = [constant];
            let host = HostInputs {
                bias: Some((&bias).into()),
                ..inputs.host(&[])
            };
            // Larger scores round more coarsely: in the naive computation as much.
            let naive = reference::attention_in(Precision::F32, &Problem::new(&shifted).unwrap(), &host).unwrap();
            let got = run(engine, &shifted, &host);
            assert_out(&got.out, &want.out, &naive.out)?;
            let moved: Vec<_> = want.lse.iter().map(|lse| lse + f64::from(constant)).collect();
            assert_out(&got.lse.unwrap(), &moved, &naive.lse)?;
            // Weights that are made anew from the lse share its rounding: half a unit in the last place of about `constant`.
            let mut tolerance = Tolerance::derived(&naive.weights, &want.weights);
            tolerance.relative += f64::from(f32::EPSILON * constant.abs());
            assert_within(&got.weights.unwrap(), &want.weights, tolerance)?;
        }
        Ok(())
    });
}

#[test]
fn grouped_heads_equal_repeated_heads() {
    for_shapes(|engine, descriptor, seed| {
        let grouped = Problem::new(&descriptor).unwrap();
        let shape = descriptor.shape;
        let mut inputs = OwnedInputs::random(&grouped, seed);
        let repeat = |data: &[f32], operand| -> Vec<f32> {
            let [_, _, rows, channels] = grouped.extent(operand).unwrap().sizes;
            let heads = data.chunks_exact((rows * channels) as usize);
            heads
                .flat_map(|head| std::iter::repeat_n(head, shape.group_size() as usize))
                .flatten()
                .copied()
                .collect()
        };
        let key = repeat(inputs.key.singles(), Operand::Key);
        let value = repeat(inputs.value.singles(), Operand::Value);
        let repeated = AttentionDescriptor {
            shape: AttentionShape {
                kv_heads: shape.heads,
                ..shape
            },
            ..descriptor.clone()
        };
        let host = HostInputs {
            key: (&key).into(),
            value: (&value).into(),
            ..inputs.host(&[])
        };
        // The same numbers in the same order: the same bits.
        prop_assert_eq!(
            run(engine, &descriptor, &inputs.host(&[])),
            run(engine, &repeated, &host)
        );
        Ok(())
    });
}
