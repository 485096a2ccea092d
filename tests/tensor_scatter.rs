//! New rows into a cache, on every adapter and tier: bit by bit what the reference says, and nothing else touched.

mod support;

use std::sync::LazyLock;

use proptest::prelude::*;
use support::engines;
use wgpu_attention::{
    BufferAt, DType, Engine, Error, Operand, ScatterMode, Tensor, TensorScatterDescriptor, TensorScatterInputs,
    reference,
};

const POISON: u8 = 0xa7;

/// The bits of every element of a cache and of its update: all different as far as there are so many, NaN among them.
fn bits(dtype: DType, len: u32, salt: u32) -> Vec<u32> {
    let mask = if dtype == DType::F32 { u32::MAX } else { 0xffff };
    (0..len)
        .map(|index| (index + 1).wrapping_mul(0x9e37_79b1).rotate_left(salt) & mask)
        .collect()
}

fn bytes(dtype: DType, bits: &[u32]) -> Vec<u8> {
    let len = dtype.bytes() as usize;
    bits.iter()
        .flat_map(|bits| bits.to_le_bytes()[..len].to_vec())
        .collect()
}

/// Where operands begin in their buffers, in elements.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    past: u64,
    update: u64,
    present: u64,
}

fn at(tensor: &Tensor, offset_bytes: u64) -> BufferAt<'_> {
    BufferAt {
        buffer: tensor.buffer(),
        offset_bytes,
    }
}

/// Runs a descriptor both ways, into a new cache and in place, each twice, and compares with the reference.
fn check(name: &str, engine: &Engine, descriptor: &TensorScatterDescriptor<'_>, indices: &[i32], offsets: Offsets) {
    let message = format!("{name}: {descriptor:?}, {indices:?}, {offsets:?}");
    let dtype = descriptor.dtype;
    let blocks = descriptor.batch * descriptor.outer;
    let past = bits(dtype, blocks * descriptor.cache_len * descriptor.inner, 1);
    let update = bits(dtype, blocks * descriptor.update_len * descriptor.inner, 17);
    let wide: Vec<i64> = indices.iter().copied().map(i64::from).collect();
    let wide = descriptor.write_indices.then_some(&wide[..]);
    let want = reference::tensor_scatter(descriptor, &past, &update, wide).unwrap();

    let scatter = engine
        .prepare_tensor_scatter(descriptor)
        .unwrap_or_else(|error| panic!("{message}: {error}"));
    let shifted = |bits: &[u32], offset: u64| {
        let mut all = vec![POISON; (offset * dtype.bytes()) as usize];
        all.extend(bytes(dtype, bits));
        all.extend([POISON; 8]);
        engine.upload_bytes(&all).unwrap()
    };
    let place = |offset: u64| offset * dtype.bytes();
    let past_cache = shifted(&past, offsets.past);
    let new_rows = shifted(&update, offsets.update);
    let write_indices = engine.upload_bytes(bytemuck::cast_slice(indices)).unwrap();
    for in_place in [false, true] {
        let inputs = TensorScatterInputs {
            past_cache: (!in_place).then(|| at(&past_cache, place(offsets.past))),
            update: at(&new_rows, place(offsets.update)),
            write_indices: descriptor.write_indices.then(|| (&write_indices).into()),
        };
        let poison = vec![u32::from_le_bytes([POISON; 4]); past.len()];
        for _ in 0..2 {
            let present = shifted(if in_place { &past } else { &poison }, offsets.present);
            let bound = scatter
                .bind(&inputs, at(&present, place(offsets.present)))
                .unwrap_or_else(|error| panic!("{message}: {error}"));
            engine.run(&bound).unwrap();
            let mut expected = vec![POISON; (offsets.present * dtype.bytes()) as usize];
            expected.extend(bytes(dtype, &want));
            expected.extend([POISON; 8]);
            let got: Vec<u32> = engine.read(&present).unwrap().into_iter().map(f32::to_bits).collect();
            let got = &bytemuck::cast_slice::<u32, u8>(&got)[..expected.len() / 4 * 4];
            let wrong = (0..got.len()).find(|&index| got[index] != expected[index]);
            assert_eq!(wrong, None, "{message}, in place: {in_place}: first wrong byte");
        }
    }
}

const ALIGNED: Offsets = Offsets {
    past: 0,
    update: 0,
    present: 0,
};
const ODD: Offsets = Offsets {
    past: 2,
    update: 1,
    present: 3,
};

/// Every storage type and mode: rows before, across and behind the ends, as far as indexes go.
#[test]
fn rows_go_where_the_reference_says() {
    for (name, engine) in engines() {
        for dtype in DType::ALL {
            for mode in [ScatterMode::Linear, ScatterMode::Circular] {
                for (outer, cache_len, update_len, inner) in
                    [(1, 1, 1, 1), (3, 7, 3, 5), (2, 9, 9, 3), (2, 5, 2, 64), (1, 33, 1, 130)]
                {
                    let descriptor = TensorScatterDescriptor {
                        dtype,
                        mode,
                        ..TensorScatterDescriptor::new(6, outer, cache_len, update_len, inner)
                    };
                    let last = cache_len as i32 - 1;
                    for offsets in [ALIGNED, ODD] {
                        check(&name, &engine, &descriptor, &[0, 1, last, -1, last + 1, -last], offsets);
                        let far = [i32::MAX, i32::MIN, i32::MAX - 1, i32::MIN + 1, 1 << 30, -(1 << 30)];
                        check(&name, &engine, &descriptor, &far, offsets);
                    }
                    let at_0 = TensorScatterDescriptor {
                        write_indices: false,
                        ..descriptor
                    };
                    check(&name, &engine, &at_0, &[0; 6], ODD);
                }
            }
        }
    }
}

/// Updates that are cut by each limit write the same: windows into the cache and into the update, folded grids, short
/// dispatches.
#[test]
fn limits_are_planned_for() {
    for (name, engine) in engines() {
        let with_binding = |bytes| {
            let mut caps = engine.caps().clone();
            caps.limits.max_storage_buffer_binding_bytes = bytes;
            caps
        };
        let mut narrow = engine.caps().clone();
        narrow.limits.max_workgroups_per_dimension = 2;
        let mut short = engine.caps().clone();
        short.max_dispatch_flops = 3e3;
        for caps in [with_binding(5000), with_binding(600), narrow, short] {
            let limited = engine.with_caps(caps);
            for dtype in [DType::F32, DType::Bf16] {
                for mode in [ScatterMode::Linear, ScatterMode::Circular] {
                    // By words and by vectors.
                    for (inner, offsets) in [(33, ODD), (32, ALIGNED), (32, ODD)] {
                        let descriptor = TensorScatterDescriptor {
                            dtype,
                            mode,
                            ..TensorScatterDescriptor::new(3, 2, 29, 11, inner)
                        };
                        check(&name, &limited, &descriptor, &[20, -3, 0], offsets);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_update_is_what_the_reference_says(
        (outer, cache_len, inner) in (1u32..4, 1u32..20, 1u32..12),
        update in 0u32..20,
        indices in prop::collection::vec(prop_oneof![-25i32..25, any::<i32>()], 1..5),
        (circular, half) in any::<(bool, bool)>(),
        (past, update_at, present) in (0u64..4, 0u64..4, 0u64..4),
    ) {
        let descriptor = TensorScatterDescriptor {
            dtype: if half { DType::F16 } else { DType::F32 },
            mode: if circular { ScatterMode::Circular } else { ScatterMode::Linear },
            ..TensorScatterDescriptor::new(indices.len() as u32, outer, cache_len, 1 + update % cache_len, inner)
        };
        static ENGINE: LazyLock<Engine> = LazyLock::new(support::engine);
        check("any", &ENGINE, &descriptor, &indices, Offsets { past, update: update_at, present });
    }
}

/// On host slices write indices have 64 bits, and those beyond 32 mean what they say.
#[test]
fn indices_of_64_bits_mean_what_they_say() {
    let engine = support::engine();
    for mode in [ScatterMode::Linear, ScatterMode::Circular] {
        let descriptor = TensorScatterDescriptor {
            mode,
            ..TensorScatterDescriptor::new(4, 1, 7, 2, 1)
        };
        let past: Vec<f32> = (0..28).map(|index| index as f32).collect();
        let update: Vec<f32> = (0..8).map(|index| 100.0 + index as f32).collect();
        // The low halves of the second and the third are rows of the cache.
        let indices = [i64::MAX, (1 << 32) + 3, (-1 << 32) + 2, i64::MIN];
        let want = reference::tensor_scatter(&descriptor, &past, &update, Some(&indices)).unwrap();
        let got = engine
            .tensor_scatter(&descriptor, &past, &update, Some(&indices))
            .unwrap();
        assert_eq!(got, want);
        assert_eq!(got == past, mode == ScatterMode::Linear);
    }
}

#[test]
fn shapes_are_read_as_onnx_has_them() {
    let descriptor = TensorScatterDescriptor::from_shapes(&[2, 9, 3, 4], &[2, 5, 3, 4], 1).unwrap();
    assert_eq!(descriptor, TensorScatterDescriptor::new(2, 1, 9, 5, 12));
    let descriptor = TensorScatterDescriptor::from_shapes(&[2, 3, 9], &[2, 3, 5], -1).unwrap();
    assert_eq!(descriptor, TensorScatterDescriptor::new(2, 3, 9, 5, 1));
    for axis in [0, -3, 3, i64::MIN, i64::MAX] {
        let error = TensorScatterDescriptor::from_shapes(&[2, 3, 9], &[2, 3, 5], axis).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    for update in [&[2, 4, 5][..], &[2, 3], &[1, 3, 5]] {
        let error = TensorScatterDescriptor::from_shapes(&[2, 3, 9], update, 2).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Shape {
                    operand: Operand::Update,
                    ..
                }
            ),
            "{error}"
        );
    }
}

/// What cannot be written is told by operand.
#[test]
fn wrong_calls_are_errors() {
    let engine = support::engine();
    let descriptor = TensorScatterDescriptor::new(1, 1, 4, 2, 2);
    let call = |descriptor: &TensorScatterDescriptor<'_>, past: usize, update: usize, indices: Option<&[i64]>| {
        engine
            .tensor_scatter(descriptor, &vec![0.0; past], &vec![0.0; update], indices)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        call(&descriptor, 7, 4, Some(&[0])),
        "past_cache has 7 elements, expected 8"
    );
    assert_eq!(call(&descriptor, 8, 5, Some(&[0])), "update has 5 elements, expected 4");
    assert_eq!(
        call(&descriptor, 8, 4, Some(&[0, 0])),
        "write_indices has 2 elements, expected 1"
    );
    assert!(call(&descriptor, 8, 4, None).contains("write_indices is missing"));
    let at_0 = TensorScatterDescriptor {
        write_indices: false,
        ..descriptor
    };
    assert!(call(&at_0, 8, 4, Some(&[0])).contains("write_indices was given"));
    let long = TensorScatterDescriptor {
        update_len: 5,
        ..descriptor
    };
    assert!(call(&long, 8, 10, Some(&[0])).contains("[1, 1, 5, 2], expected at most as many rows"));
    let empty = TensorScatterDescriptor { inner: 0, ..descriptor };
    assert!(call(&empty, 0, 0, Some(&[0])).contains("inner is 0"));
    let large = TensorScatterDescriptor {
        cache_len: 1 << 30,
        ..descriptor
    };
    assert!(call(&large, 0, 4, Some(&[0])).contains("past_cache spans 1073741824 elements"));

    let mut caps = engine.caps().clone();
    caps.limits.max_storage_buffer_binding_bytes = 400;
    let wide = TensorScatterDescriptor::new(1, 1, 4, 2, 100);
    let error = engine.with_caps(caps).prepare_tensor_scatter(&wide).unwrap_err();
    assert!(matches!(error, Error::Limit { required: 400, .. }), "{error}");

    let scatter = engine.prepare_tensor_scatter(&descriptor).unwrap();
    let [past, present, update, indices] = [32, 32, 16, 4].map(|bytes| engine.allocate(bytes).unwrap());
    let bind = |past: Option<&Tensor>, indices: Option<&Tensor>, present: &Tensor| {
        let inputs = TensorScatterInputs {
            past_cache: past.map(Into::into),
            update: (&update).into(),
            write_indices: indices.map(Into::into),
        };
        scatter.bind(&inputs, present).map(|_| ())
    };
    assert!(bind(Some(&past), Some(&indices), &present).is_ok());
    assert!(bind(None, Some(&indices), &present).is_ok());
    let error = bind(Some(&present), Some(&indices), &present).unwrap_err();
    assert!(
        matches!(
            error,
            Error::SharedBuffer {
                operand: Operand::PresentCache,
                other: Operand::PastCache
            }
        ),
        "{error}"
    );
    let error = bind(None, None, &present).unwrap_err();
    assert!(
        matches!(
            error,
            Error::MissingOperand {
                operand: Operand::WriteIndices
            }
        ),
        "{error}"
    );
    let error = bind(None, Some(&indices), &update).unwrap_err();
    assert!(
        matches!(
            error,
            Error::BufferTooSmall {
                operand: Operand::PresentCache,
                ..
            }
        ),
        "{error}"
    );
}
