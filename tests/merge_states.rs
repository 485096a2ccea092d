//! Merging partial results, on every adapter and tier: against the `f64` reference, and against attention over all keys.

mod support;

use std::sync::LazyLock;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use support::{Tolerance, compare, engines};
use wgpu_attention::reference::{self, Precision};
use wgpu_attention::{
    AttentionDescriptor, AttentionShape, BufferAt, DType, Engine, Error, HostInputs, MergeInputs, MergeOutputs,
    MergeStatesDescriptor, Operand, Outputs, Tensor,
};

const POISON: u8 = 0xa7;

/// Partial results that a storage type holds exactly. A third of the parts is empty, with NaN in out.
struct Parts {
    out: Vec<f32>,
    lse: Vec<f32>,
}

impl Parts {
    fn random(descriptor: &MergeStatesDescriptor<'_>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let dim = descriptor.head_dim_v as usize;
        let rows = (descriptor.parts * descriptor.batch * descriptor.heads * descriptor.seqlen_q) as usize;
        let mut parts = Self {
            out: Vec::new(),
            lse: Vec::new(),
        };
        for _ in 0..rows {
            let empty = rng.random_bool(0.3);
            let value = |rng: &mut StdRng| if empty { f32::NAN } else { rng.random_range(-2.0..2.0) };
            parts.out.extend((0..dim).map(|_| value(&mut rng)));
            parts.lse.push(if empty {
                f32::NEG_INFINITY
            } else {
                rng.random_range(-9.0..9.0)
            });
        }
        parts.out = descriptor.parts_dtype.widen(&descriptor.parts_dtype.narrow(&parts.out));
        parts
    }
}

/// What a run left in its buffers, which begin `offset` elements into a poisoned buffer; fails if it wrote elsewhere.
struct Run {
    out: Vec<u8>,
    lse: Vec<u8>,
}

fn run(engine: &Engine, descriptor: &MergeStatesDescriptor<'_>, parts: &Parts, offset: u64) -> Run {
    let merge = engine
        .prepare_merge_states(descriptor)
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    let shifted = |data: Vec<u8>, element_bytes: u64| {
        let mut bytes = vec![POISON; (offset * element_bytes) as usize];
        bytes.extend(data);
        bytes.extend([POISON; 8]);
        engine.upload_bytes(&bytes).unwrap()
    };
    let at = |tensor, element_bytes| BufferAt {
        buffer: Tensor::buffer(tensor),
        offset_bytes: offset * element_bytes,
    };
    let (parts_bytes, out_bytes) = (descriptor.parts_dtype.bytes(), descriptor.out_dtype.bytes());
    let rows = parts.lse.len() / descriptor.parts as usize;
    let out_len = rows * descriptor.head_dim_v as usize * out_bytes as usize;
    let out_parts = shifted(descriptor.parts_dtype.narrow(&parts.out), parts_bytes);
    let lse_parts = shifted(DType::F32.narrow(&parts.lse), 4);
    let out = shifted(vec![POISON; out_len], out_bytes);
    let lse = shifted(vec![POISON; 4 * rows], 4);
    let bound = merge
        .bind(
            &MergeInputs {
                out_parts: at(&out_parts, parts_bytes),
                lse_parts: at(&lse_parts, 4),
            },
            &MergeOutputs {
                out: at(&out, out_bytes),
                lse: at(&lse, 4),
            },
        )
        .unwrap_or_else(|error| panic!("{descriptor:?}: {error}"));
    engine.run(&bound).unwrap();
    let taken = |tensor: &Tensor, element_bytes: u64, len: usize| {
        let words = engine.read(tensor).unwrap();
        let bytes: &[u8] = bytemuck::cast_slice(&words);
        let first = (offset * element_bytes) as usize;
        let (before, rest) = bytes.split_at(first);
        let (data, after) = rest.split_at(len);
        let untouched = |bytes: &[u8]| bytes.iter().all(|&byte| byte == POISON);
        assert!(
            untouched(before) && untouched(&after[..4]),
            "wrote outside: {descriptor:?}"
        );
        data.to_vec()
    };
    Run {
        out: taken(&out, out_bytes, out_len),
        lse: taken(&lse, 4, 4 * rows),
    }
}

/// Half a unit in the last place of the largest result: what rounding to the storage type costs.
fn storage_error(dtype: DType, want: &[f64]) -> f64 {
    let largest = want
        .iter()
        .filter(|want| want.is_finite())
        .fold(0.0f64, |most, want| most.max(want.abs()));
    largest
        * match dtype {
            DType::F32 => 0.0,
            DType::F16 => 2f64.powi(-11),
            DType::Bf16 => 2f64.powi(-8),
        }
}

fn check(name: &str, engine: &Engine, descriptor: &MergeStatesDescriptor<'_>, parts: &Parts, offset: u64) {
    let got = run(engine, descriptor, parts, offset);
    let again = run(engine, descriptor, parts, offset);
    assert!(
        got.out == again.out && got.lse == again.lse,
        "{name}: two runs differ: {descriptor:?}"
    );
    let want = reference::merge_states(descriptor, &parts.out, &parts.lse).unwrap();
    let naive = reference::merge_states_in(Precision::F32, descriptor, &parts.out, &parts.lse).unwrap();
    let mut tolerance = Tolerance::derived(&naive.out, &want.out);
    tolerance.absolute += storage_error(descriptor.out_dtype, &want.out);
    compare(&descriptor.out_dtype.widen(&got.out), &want.out, tolerance)
        .unwrap_or_else(|error| panic!("{name}: out: {error}\n{descriptor:?}"));
    compare(
        &DType::F32.widen(&got.lse),
        &want.lse,
        Tolerance::derived(&naive.lse, &want.lse),
    )
    .unwrap_or_else(|error| panic!("{name}: lse: {error}\n{descriptor:?}"));
}

/// Sizes around words and workgroups, of every pair of storage types.
fn descriptors() -> Vec<MergeStatesDescriptor<'static>> {
    let mut all = Vec::new();
    for (parts, batch, heads, seqlen_q, head_dim_v) in [
        (1, 1, 1, 1, 1),
        (2, 1, 3, 6, 8),
        (5, 2, 3, 7, 5),
        (3, 1, 2, 129, 64),
        (8, 2, 1, 5, 3),
        (33, 1, 1, 1, 130),
    ] {
        for parts_dtype in DType::ALL {
            for out_dtype in DType::ALL {
                all.push(MergeStatesDescriptor {
                    parts_dtype,
                    out_dtype,
                    ..MergeStatesDescriptor::new(parts, batch, heads, seqlen_q, head_dim_v)
                });
            }
        }
    }
    all
}

#[test]
fn merging_agrees_with_the_reference() {
    for (name, engine) in engines() {
        for (seed, descriptor) in descriptors().into_iter().enumerate() {
            let parts = Parts::random(&descriptor, seed as u64);
            for offset in [0, 1, 4] {
                check(&name, &engine, &descriptor, &parts, offset);
            }
        }
    }
}

/// Merges that are cut by each limit compute the same: by rows, by parts where a binding holds no more, and with both a
/// wide and a narrow type.
#[test]
fn limits_are_planned_for() {
    for (name, engine) in engines() {
        let mut small_bindings = engine.caps().clone();
        small_bindings.limits.max_storage_buffer_binding_bytes = 10_000;
        let mut one_row = engine.caps().clone();
        one_row.limits.max_storage_buffer_binding_bytes = 700;
        let mut narrow = engine.caps().clone();
        narrow.limits.max_workgroups_per_dimension = 2;
        let mut short = engine.caps().clone();
        short.max_dispatch_flops = 2e4;
        let mut few_trips = engine.caps().clone();
        few_trips.max_loop_trips = Some(12);
        for caps in [small_bindings, one_row, narrow, short, few_trips] {
            let limited = engine.with_caps(caps);
            for (parts_dtype, out_dtype) in [
                (DType::F32, DType::F32),
                (DType::F16, DType::F16),
                (DType::F32, DType::Bf16),
            ] {
                // By words, by vectors, and by words where vectors would do but for the offset.
                for (parts, heads, seqlen_q, dim, offset) in [(7, 3, 17, 33, 3), (5, 2, 40, 64, 0), (5, 2, 40, 64, 3)] {
                    let descriptor = MergeStatesDescriptor {
                        parts_dtype,
                        out_dtype,
                        ..MergeStatesDescriptor::new(parts, 1, heads, seqlen_q, dim)
                    };
                    check(&name, &limited, &descriptor, &Parts::random(&descriptor, 5), offset);
                }
            }
        }
    }
}

#[test]
fn a_row_that_no_binding_holds_is_a_limit() {
    let engine = support::engine();
    let mut caps = engine.caps().clone();
    caps.limits.max_storage_buffer_binding_bytes = 400;
    let error = engine
        .with_caps(caps)
        .prepare_merge_states(&MergeStatesDescriptor::new(2, 1, 1, 1, 100))
        .unwrap_err();
    assert!(matches!(error, Error::Limit { required: 400, .. }), "{error}");
}

/// Values as large and as far apart as they get, not a number, infinities.
#[test]
fn extreme_states_merge_as_the_formula_says() {
    let infinity = f32::INFINITY;
    let columns = [
        [0.0, -infinity, -infinity],
        [-infinity, -infinity, -infinity],
        [f32::MAX, f32::MIN, -infinity],
        [f32::MIN, f32::MIN, f32::MIN],
        [-1e30, -1e30, 1.0],
        [88.0, -88.0, 0.0],
        [f32::NAN, 0.0, 1.0],
        [f32::NAN, -infinity, -infinity],
        [infinity, 0.0, 0.0],
    ];
    for (name, engine) in engines() {
        for (out_dtype, dim) in DType::ALL.into_iter().flat_map(|dtype| [(dtype, 2), (dtype, 8)]) {
            let descriptor = MergeStatesDescriptor {
                out_dtype,
                ..MergeStatesDescriptor::new(3, 1, 1, columns.len() as u32, dim)
            };
            let mut parts = Parts {
                out: Vec::new(),
                lse: Vec::new(),
            };
            for part in 0..3 {
                for column in columns {
                    let spoiled = column[part] == -infinity;
                    let [first, second] = if spoiled {
                        [f32::NAN, infinity]
                    } else {
                        [part as f32 + 1.5, -0.25]
                    };
                    parts
                        .out
                        .extend((0..dim).map(|channel| if channel % 2 == 0 { first } else { second }));
                    parts.lse.push(column[part]);
                }
            }
            check(&name, &engine, &descriptor, &parts, 0);
            // Not a number in the out of a part that counts.
            parts.out[0] = f32::NAN;
            for offset in [0, 1] {
                check(&name, &engine, &descriptor, &parts, offset);
            }
        }
    }
}

/// One part alone is itself, bit by bit.
#[test]
fn one_part_is_itself() {
    for (name, engine) in engines() {
        for dtype in DType::ALL {
            let descriptor = MergeStatesDescriptor {
                parts_dtype: dtype,
                out_dtype: dtype,
                ..MergeStatesDescriptor::new(1, 1, 3, 11, 7)
            };
            let mut parts = Parts::random(&descriptor, 2);
            parts
                .lse
                .iter_mut()
                .for_each(|lse| *lse = if *lse == f32::NEG_INFINITY { 0.5 } else { *lse });
            parts
                .out
                .iter_mut()
                .for_each(|out| *out = if out.is_nan() { 0.75 } else { *out });
            let got = run(&engine, &descriptor, &parts, 0);
            assert_eq!(dtype.widen(&got.out), parts.out, "{name}");
            assert_eq!(DType::F32.widen(&got.lse), parts.lse, "{name}");
        }
    }
}

/// Rounding to half types is that of the `half` crate: to nearest, ties to even.
#[test]
fn half_types_round_to_nearest_even() {
    // Every f16 and bf16, the halfway points between neighbours, and the f32 next to those.
    let mut numbers = vec![65519.996, 65520.0, 1e-8, 5.9e-8, 2.9802322e-8, 2.9802326e-8, f32::MAX];
    for bits in 0..=u16::MAX {
        for dtype in [DType::F16, DType::Bf16] {
            let pair = [bits, bits.wrapping_add(1)].map(|bits| dtype.widen(&bits.to_le_bytes())[0]);
            let middle = 0.5 * pair[0] + 0.5 * pair[1];
            numbers.extend([pair[0], middle, middle.next_up(), middle.next_down()]);
        }
    }
    // Subnormal numbers of f32 may become 0 on a GPU, and a sum that begins at 0 knows no negative zero.
    numbers.retain(|number| number.is_normal());
    for (name, engine) in engines() {
        for dtype in [DType::F16, DType::Bf16] {
            let descriptor = MergeStatesDescriptor {
                out_dtype: dtype,
                ..MergeStatesDescriptor::new(1, 1, 1, numbers.len() as u32, 1)
            };
            let parts = Parts {
                out: numbers.clone(),
                lse: vec![0.0; numbers.len()],
            };
            let got = run(&engine, &descriptor, &parts, 0).out;
            let want = dtype.narrow(&numbers);
            let wrong =
                (0..numbers.len()).find(|&index| got[2 * index..2 * index + 2] != want[2 * index..2 * index + 2]);
            let wrong = wrong.map(|index| {
                (
                    numbers[index],
                    &got[2 * index..2 * index + 2],
                    &want[2 * index..2 * index + 2],
                )
            });
            assert_eq!(wrong, None, "{name}: {dtype}");
        }
    }
}

/// Attention over slices of the keys, merged, is attention over all keys; the order of the slices does not matter.
fn split_equals_whole(engine: &Engine, shape: AttentionShape, cuts: &[u32], seed: u64) -> Result<(), TestCaseError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut random = |rows: u32, dim: u32| -> Vec<f32> {
        (0..shape.kv_heads.max(1) * rows * dim)
            .map(|_| rng.random_range(-1.5..1.5))
            .collect()
    };
    let query = random(shape.heads / shape.kv_heads * shape.seqlen_q, shape.head_dim);
    let key = random(shape.seqlen_k, shape.head_dim);
    let value = random(shape.seqlen_k, shape.head_dim_v);
    let attention = |keys: std::ops::Range<u32>| {
        let slice = |data: &[f32], dim: u32| -> Vec<f32> {
            let head = (shape.seqlen_k * dim) as usize;
            let rows = (keys.start * dim) as usize..(keys.end * dim) as usize;
            data.chunks_exact(head)
                .flat_map(|head| head[rows.clone()].to_vec())
                .collect()
        };
        let (key, value) = (slice(&key, shape.head_dim), slice(&value, shape.head_dim_v));
        let descriptor = AttentionDescriptor {
            shape: AttentionShape {
                seqlen_k: keys.end - keys.start,
                ..shape
            },
            outputs: Outputs {
                lse: true,
                ..Default::default()
            },
            ..Default::default()
        };
        let inputs = HostInputs::new(&query, &key, &value);
        engine.attention(&descriptor, &inputs).unwrap()
    };
    let whole = attention(0..shape.seqlen_k);
    let mut bounds = vec![0];
    bounds.extend(cuts);
    bounds.push(shape.seqlen_k);
    let mut parts: Vec<_> = bounds.windows(2).map(|pair| attention(pair[0]..pair[1])).collect();
    let descriptor = MergeStatesDescriptor::new(parts.len() as u32, 1, shape.heads, shape.seqlen_q, shape.head_dim_v);
    for _ in 0..2 {
        let out: Vec<f32> = parts.iter().flat_map(|part| part.out.clone()).collect();
        let lse: Vec<f32> = parts.iter().flat_map(|part| part.lse.clone().unwrap()).collect();
        let merged = engine.merge_states(&descriptor, &out, &lse).unwrap();
        // Each side has errors of a few units in the last place of numbers up to 1.5, and of the scores in the exponent.
        let close = |got: &[f32], want: &[f32]| {
            let want: Vec<f64> = want.iter().copied().map(f64::from).collect();
            let bound = 64.0 * f64::from(f32::EPSILON);
            compare(
                got,
                &want,
                Tolerance {
                    absolute: bound,
                    relative: bound,
                },
            )
            .map_err(|error| TestCaseError::fail(error.to_string()))
        };
        close(&merged.out, &whole.out)?;
        close(&merged.lse, whole.lse.as_ref().unwrap())?;
        parts.reverse();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_the_keys_merges_to_the_whole(
        (kv_heads, group, seqlen_q, seqlen_k) in (1u32..3, 1u32..3, 1u32..20, 2u32..80),
        (head_dim, head_dim_v) in (1u32..20, 1u32..20),
        cuts in prop::collection::btree_set(1u32..80, 0..5),
        seed: u64,
    ) {
        let shape = AttentionShape {
            kv_heads,
            head_dim_v,
            ..AttentionShape::new(1, kv_heads * group, seqlen_q, seqlen_k, head_dim)
        };
        let cuts: Vec<u32> = cuts.into_iter().filter(|&cut| cut < seqlen_k).collect();
        static ENGINE: LazyLock<Engine> = LazyLock::new(support::engine);
        split_equals_whole(&ENGINE, shape, &cuts, seed)?;
    }
}

/// What cannot be merged is told by operand.
#[test]
fn wrong_calls_are_errors() {
    let engine = support::engine();
    let descriptor = MergeStatesDescriptor::new(2, 1, 1, 2, 4);
    let error = engine.merge_states(&descriptor, &[0.0; 15], &[0.0; 4]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Length {
                operand: Operand::OutParts,
                actual: 15,
                expected: 16
            }
        ),
        "{error}"
    );
    let empty = MergeStatesDescriptor { parts: 0, ..descriptor };
    let error = engine.merge_states(&empty, &[], &[]).unwrap_err();
    assert!(matches!(error, Error::ZeroSize { dimension: "parts" }), "{error}");
    let large = MergeStatesDescriptor::new(u32::MAX, u32::MAX, 1, 1, 1);
    let error = engine.prepare_merge_states(&large).unwrap_err();
    assert!(
        matches!(
            error,
            Error::IndexOverflow {
                operand: Operand::OutParts,
                ..
            }
        ),
        "{error}"
    );

    let merge = engine.prepare_merge_states(&descriptor).unwrap();
    let [large, out, lse] = [64, 32, 8].map(|bytes| engine.allocate(bytes).unwrap());
    let bind = |inputs: [(&Tensor, u64); 2], outputs: [(&Tensor, u64); 2]| {
        let at = |(tensor, offset_bytes): (_, u64)| BufferAt {
            buffer: Tensor::buffer(tensor),
            offset_bytes,
        };
        let (inputs, outputs) = (inputs.map(at), outputs.map(at));
        merge
            .bind(
                &MergeInputs {
                    out_parts: inputs[0],
                    lse_parts: inputs[1],
                },
                &MergeOutputs {
                    out: outputs[0],
                    lse: outputs[1],
                },
            )
            .map(|_| ())
    };
    let lse_parts = engine.allocate(16).unwrap();
    assert!(bind([(&large, 0), (&lse_parts, 0)], [(&out, 0), (&lse, 0)]).is_ok());
    let error = bind([(&large, 4), (&lse_parts, 0)], [(&out, 0), (&lse, 0)]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::BufferTooSmall {
                operand: Operand::OutParts,
                ..
            }
        ),
        "{error}"
    );
    let error = bind([(&large, 0), (&lse_parts, 2)], [(&out, 0), (&lse, 0)]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::BufferOffset {
                operand: Operand::LseParts,
                ..
            }
        ),
        "{error}"
    );
    let error = bind([(&large, 0), (&lse_parts, 0)], [(&out, 0), (&lse_parts, 0)]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::SharedBuffer {
                operand: Operand::Lse,
                other: Operand::LseParts
            }
        ),
        "{error}"
    );
    // Outputs may share a buffer, but not so near that their bindings overlap.
    let both = engine.allocate(1024).unwrap();
    assert!(bind([(&large, 0), (&lse_parts, 0)], [(&both, 0), (&both, 256)]).is_ok());
    let error = bind([(&large, 0), (&lse_parts, 0)], [(&both, 0), (&both, 28)]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::SharedBuffer {
                operand: Operand::Out,
                other: Operand::Lse
            }
        ),
        "{error}"
    );
}
