//! Sequences of different lengths in one call, and each in a call of its own.

use std::ops::Range;

use wgpu_attention::{AttentionDescriptor, KeyPadding, Layout, Layouts, Packed};

use super::*;

/// One sequence's part of `[.., rows, ..]`, of which each number is a row of `row_len`.
fn taken<T: Copy>(all: &[T], rows: Range<u32>, row_len: u32) -> Vec<T> {
    all[(rows.start * row_len) as usize..(rows.end * row_len) as usize].to_vec()
}

#[test]
fn packed_sequences_are_calls_of_their_own() {
    for_cases(8, |case| {
        let shape = case.shape;
        let batch = 1 + (case.seed % 5) as u32;
        // Between none and all of what the sequences could hold.
        let packed = Packed {
            tokens_q: (shape.seqlen_q * batch).div_ceil(2),
            tokens_k: (shape.seqlen_k * batch).div_ceil(2),
        };
        let layouts = Layouts::all(Layout::Bshd);
        let together = AttentionDescriptor {
            shape: AttentionShape { batch, ..shape },
            packed: Some(packed),
            layouts,
            outputs: Outputs {
                weights: false,
                ..LSE_AND_WEIGHTS
            },
            ..case.causal()
        };
        let mut request = Request::random(together, case.seed);
        let bounds = |bounds: &Option<Vec<u32>>| bounds.clone().unwrap();
        let (bounds_q, bounds_k) = (
            bounds(&request.inputs.cu_seqlens_q),
            bounds(&request.inputs.cu_seqlens_k),
        );
        let mut all = |operand: fn(&mut OwnedInputs) -> &mut Numbers| operand(&mut request.inputs).singles().clone();
        let (query, key, value) = (
            all(|inputs| &mut inputs.query),
            all(|inputs| &mut inputs.key),
            all(|inputs| &mut inputs.value),
        );
        let alone: Vec<_> = bounds_q
            .windows(2)
            .zip(bounds_k.windows(2))
            .map(|(q, k)| (q[0]..q[1], k[0]..k[1]))
            .filter(|(q, _)| !q.is_empty())
            .map(|(q, k)| {
                // A call has at least one key: with none, one that no query sees.
                let keys = k.len().max(1) as u32;
                let padded = |all: &[f32], channels: u32| {
                    let mut rows = taken(all, k.clone(), shape.kv_heads * channels);
                    rows.resize((keys * shape.kv_heads * channels) as usize, f32::NAN);
                    Numbers::F32(rows)
                };
                let descriptor = AttentionDescriptor {
                    shape: AttentionShape {
                        batch: 1,
                        seqlen_q: q.len() as u32,
                        seqlen_k: keys,
                        ..shape
                    },
                    layouts,
                    key_padding: k.is_empty().then_some(KeyPadding::Boolean),
                    outputs: Outputs {
                        weights: false,
                        ..LSE_AND_WEIGHTS
                    },
                    ..case.causal()
                };
                let inputs = OwnedInputs {
                    query: Numbers::F32(taken(&query, q.clone(), shape.heads * shape.head_dim)),
                    key: padded(&key, shape.head_dim),
                    value: padded(&value, shape.head_dim_v),
                    padding_bytes: k.is_empty().then(|| vec![0]),
                    ..Default::default()
                };
                (q, Wanted::new([&Request::new(descriptor, inputs)], 0.0))
            })
            .collect();
        for (name, engine) in case.engines() {
            for algorithm in BOTH {
                let got = request.run(engine, algorithm);
                for (q, wanted) in &alone {
                    let lse = got.lse.chunks_exact(packed.tokens_q as usize);
                    let results = Results {
                        out: taken(&got.out, q.clone(), shape.heads * shape.head_dim_v),
                        lse: lse.flat_map(|head| taken(head, q.clone(), 1)).collect(),
                        weights: Vec::new(),
                        scores: Vec::new(),
                    };
                    wanted.check(&format!("{name}, {algorithm:?}, rows {q:?}"), &results)?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn lengths_are_calls_with_fewer_keys() {
    for_cases(8, |case| {
        let shape = case.shape;
        let with_lengths = AttentionDescriptor {
            key_padding: Some(KeyPadding::Lengths),
            ..case.causal()
        };
        let request = Request::random(with_lengths, case.seed);
        let rows = shape.heads * shape.seqlen_q;
        let lengths = request.inputs.lengths.clone().unwrap();
        let alone: Vec<_> = (0..).zip(lengths).filter(|(_, length)| *length > 0).collect();
        let alone: Vec<_> = alone
            .into_iter()
            .map(|(batch, length)| {
                let of_batch = |numbers: &Numbers, heads: u32, rows: u32, channels: u32| {
                    taken(numbers.clone().singles(), batch..batch + 1, heads * rows * channels)
                };
                let keys = |numbers: &Numbers, channels: u32| {
                    let own = of_batch(numbers, shape.kv_heads, shape.seqlen_k, channels);
                    Numbers::F32(rows_of(&own, [shape.seqlen_k, channels], 0..length))
                };
                let query = of_batch(&request.inputs.query, shape.heads, shape.seqlen_q, shape.head_dim);
                let descriptor = AttentionDescriptor {
                    shape: AttentionShape {
                        batch: 1,
                        seqlen_k: length,
                        ..shape
                    },
                    ..case.causal()
                };
                let inputs = OwnedInputs {
                    query: Numbers::F32(query),
                    key: keys(&request.inputs.key, shape.head_dim),
                    value: keys(&request.inputs.value, shape.head_dim_v),
                    ..Default::default()
                };
                (batch, length, Wanted::new([&Request::new(descriptor, inputs)], 0.0))
            })
            .collect();
        for (name, engine) in case.engines() {
            for algorithm in BOTH {
                let got = request.run(engine, algorithm);
                for (batch, length, wanted) in &alone {
                    let own = *batch..batch + 1;
                    let weights = taken(&got.weights, own.clone(), rows * shape.seqlen_k);
                    let behind = rows_of(&weights, [shape.seqlen_k, 1], *length..shape.seqlen_k);
                    prop_assert!(behind.iter().all(|&weight| weight == 0.0));
                    let results = Results {
                        out: taken(&got.out, own.clone(), rows * shape.head_dim_v),
                        lse: taken(&got.lse, own, rows),
                        weights: rows_of(&weights, [shape.seqlen_k, 1], 0..*length),
                        scores: Vec::new(),
                    };
                    wanted.check(&format!("{name}, {algorithm:?}, sequence {batch}"), &results)?;
                }
            }
        }
        Ok(())
    });
}
