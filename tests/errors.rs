//! Wrong input, one case a condition: each gives the error that its documentation names, before anything runs.

mod support;

use wgpu_attention::{
    AttentionDescriptor, AttentionShape, Broadcast, BufferAt, DType, Error, HeadWeights, HostInputs, HostKeyPadding,
    HostTensor, Inputs, KeyPadding, Layout, Layouts, MultiHeadAttention, MultiHeadBuffers, MultiHeadCall,
    MultiHeadDescriptor, MultiHeadInputs, MultiHeadParameters, Operand, OutputBuffers, Outputs, Problem, Strides,
};

const SHAPE: AttentionShape = AttentionShape::new(2, 4, 3, 5, 8);

/// Fails unless the value is an error of this form; the guard, if there is one, must hold as well.
macro_rules! assert_error {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern $(if $guard)?)),
        }
    };
}

fn problem(descriptor: AttentionDescriptor<'_>) -> Result<Problem, Error> {
    Problem::new(&descriptor)
}

fn with_shape(shape: AttentionShape) -> Result<Problem, Error> {
    problem(AttentionDescriptor {
        shape,
        ..Default::default()
    })
}

// ---- The request -------------------------------------------------------------------------------------------------------

#[test]
fn every_size_is_at_least_one() {
    for (index, name) in [
        "batch",
        "heads",
        "kv_heads",
        "seqlen_q",
        "seqlen_k",
        "head_dim",
        "head_dim_v",
    ]
    .into_iter()
    .enumerate()
    {
        let mut sizes = [2, 4, 4, 3, 5, 8, 8];
        sizes[index] = 0;
        let [batch, heads, kv_heads, seqlen_q, seqlen_k, head_dim, head_dim_v] = sizes;
        let shape = AttentionShape {
            batch,
            heads,
            kv_heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v,
        };
        assert_error!(with_shape(shape), Error::ZeroSize { dimension } if dimension == name);
    }
}

#[test]
fn query_heads_are_grouped_evenly() {
    let uneven = |kv_heads| with_shape(AttentionShape { kv_heads, ..SHAPE });
    assert_error!(uneven(3), Error::HeadsNotDivisible { heads: 4, kv_heads: 3 });
    assert_error!(uneven(8), Error::HeadsNotDivisible { heads: 4, kv_heads: 8 });
    assert!(uneven(2).is_ok());
}

#[test]
fn the_scale_is_finite() {
    let scaled = |scale| {
        problem(AttentionDescriptor {
            shape: SHAPE,
            scale: Some(scale),
            ..Default::default()
        })
    };
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_error!(scaled(scale), Error::NotFinite { parameter: "scale", value } if value.to_bits() == scale.to_bits());
    }
    assert_eq!(scaled(-2.0).unwrap().scale(), -2.0);
}

#[test]
fn masks_and_biases_broadcast_or_are_refused() {
    for shape in [[2, 4, 3, 4], [4, 4, 3, 5], [2, 2, 3, 5], [2, 4, 5, 5], [2, 4, 3, 0]] {
        let broadcast = Some(Broadcast::new(shape));
        let mask = problem(AttentionDescriptor {
            shape: SHAPE,
            mask: broadcast,
            ..Default::default()
        });
        assert_error!(mask, Error::Shape { operand: Operand::Mask, ref actual, .. } if *actual == shape);
        let bias = problem(AttentionDescriptor {
            shape: SHAPE,
            bias: broadcast,
            ..Default::default()
        });
        assert_error!(bias, Error::Shape { operand: Operand::Bias, ref actual, .. } if *actual == shape);
    }
    assert_error!(Broadcast::right_aligned(&[1; 5]), Error::Shape { ref actual, .. } if actual.len() == 5);
}

#[test]
fn keys_are_appended_to_keys_that_are_there() {
    let appended = |appended_keys, padded: bool| {
        problem(AttentionDescriptor {
            shape: SHAPE,
            appended_keys,
            key_padding: padded.then_some(KeyPadding::Boolean),
            ..Default::default()
        })
    };
    assert_error!(
        appended(6, false),
        Error::AppendedKeys {
            appended_keys: 6,
            seqlen_k: 5
        }
    );
    // Padding speaks of the keys that are not appended, of which there is none.
    assert_error!(
        appended(5, true),
        Error::Shape {
            operand: Operand::KeyPadding,
            ..
        }
    );
    assert!(appended(5, false).is_ok());
}

#[test]
fn thirty_two_bits_index_every_operand() {
    let rows = with_shape(AttentionShape::new(1, 1, 1 << 30, 1, 1));
    assert_error!(
        rows,
        Error::IndexOverflow {
            operand: Operand::Query,
            ..
        }
    );
    let keys = with_shape(AttentionShape::new(1, 1, 1, u32::MAX, 1));
    assert_error!(
        keys,
        Error::IndexOverflow {
            operand: Operand::Key,
            ..
        }
    );
    let query = with_shape(AttentionShape::new(1 << 10, 1 << 10, 1 << 10, 1, 4));
    assert_error!(query, Error::IndexOverflow { operand: Operand::Query, elements, .. } if elements == 1 << 32);
    let everything = with_shape(AttentionShape::new(u32::MAX, u32::MAX, 1 << 29, 1 << 29, u32::MAX));
    assert_error!(everything, Error::IndexOverflow { .. });

    // The weights count only when somebody wants them.
    let long = |weights| {
        problem(AttentionDescriptor {
            shape: AttentionShape::new(1, 8, 1 << 15, 1 << 15, 1),
            outputs: Outputs {
                weights,
                ..Default::default()
            },
            ..Default::default()
        })
    };
    assert!(long(false).is_ok());
    assert_error!(
        long(true),
        Error::IndexOverflow {
            operand: Operand::Weights,
            ..
        }
    );

    let strides = Strides {
        batch: u32::MAX,
        head: 8,
        row: 32,
    };
    let strided = problem(AttentionDescriptor {
        shape: SHAPE,
        layouts: Layouts {
            key: Layout::Strided(strides),
            ..Default::default()
        },
        ..Default::default()
    });
    assert_error!(
        strided,
        Error::IndexOverflow {
            operand: Operand::Key,
            ..
        }
    );
}

#[test]
fn elements_of_an_output_lie_apart() {
    let out = |batch, head, row| {
        problem(AttentionDescriptor {
            shape: SHAPE,
            layouts: Layouts {
                out: Layout::Strided(Strides { batch, head, row }),
                ..Default::default()
            },
            ..Default::default()
        })
    };
    // Rows that overlap, heads that are broadcast.
    assert_error!(
        out(96, 24, 7),
        Error::OverlappingStrides {
            operand: Operand::Out,
            ..
        }
    );
    assert_error!(
        out(96, 0, 8),
        Error::OverlappingStrides {
            operand: Operand::Out,
            ..
        }
    );
    assert!(out(96, 24, 8).is_ok());
}

// ---- Host slices -------------------------------------------------------------------------------------------------------

/// A problem with every operand, and slices of the right lengths for it.
fn all_operands() -> AttentionDescriptor<'static> {
    AttentionDescriptor {
        shape: SHAPE,
        mask: Some(Broadcast::new([2, 1, 3, 5])),
        bias: Some(Broadcast::new([1, 1, 1, 5])),
        key_padding: Some(KeyPadding::Boolean),
        ..Default::default()
    }
}

#[test]
fn slices_have_the_lengths_of_their_operands() {
    let engine = support::engine();
    let descriptor = all_operands();
    let (query, keys) = ([0.5f32; 2 * 4 * 3 * 8], [0.5f32; 2 * 4 * 5 * 8]);
    let right = HostInputs {
        mask: Some(&[1; 30]),
        bias: Some((&[0.0f32; 5]).into()),
        key_padding: Some(HostKeyPadding::Boolean(&[1; 10])),
        ..HostInputs::new(&query, &keys, &keys)
    };
    assert!(engine.attention(&descriptor, &right).is_ok());
    let (longer, shorter) = ([0.5f32; 321], [1u8; 9]);
    for (operand, wrong) in [
        (
            Operand::Query,
            HostInputs {
                query: query[1..].into(),
                ..right
            },
        ),
        (
            Operand::Key,
            HostInputs {
                key: HostTensor::F32(&[]),
                ..right
            },
        ),
        (
            Operand::Value,
            HostInputs {
                value: (&longer).into(),
                ..right
            },
        ),
        (
            Operand::Mask,
            HostInputs {
                mask: Some(&[1; 31]),
                ..right
            },
        ),
        (
            Operand::Bias,
            HostInputs {
                bias: Some((&[0.0f32; 4]).into()),
                ..right
            },
        ),
        (
            Operand::KeyPadding,
            HostInputs {
                key_padding: Some(HostKeyPadding::Boolean(&shorter)),
                ..right
            },
        ),
    ] {
        assert_error!(engine.attention(&descriptor, &wrong), Error::Length { operand: found, .. } if found == operand);
    }
    for (operand, without) in [
        (Operand::Mask, HostInputs { mask: None, ..right }),
        (Operand::Bias, HostInputs { bias: None, ..right }),
        (
            Operand::KeyPadding,
            HostInputs {
                key_padding: None,
                ..right
            },
        ),
    ] {
        assert_error!(
            engine.attention(&descriptor, &without),
            Error::MissingOperand { operand: found } if found == operand
        );
    }
    let plain = AttentionDescriptor {
        mask: None,
        ..descriptor.clone()
    };
    assert_error!(
        engine.attention(&plain, &right),
        Error::UnexpectedOperand { operand: Operand::Mask }
    );
    let additive = HostInputs {
        key_padding: Some(HostKeyPadding::Additive(&[0.0; 10])),
        ..right
    };
    assert_error!(engine.attention(&descriptor, &additive), Error::Unsupported { .. });
    let halves = [half::f16::ONE; 320];
    let half = HostInputs {
        key: (&halves).into(),
        ..right
    };
    assert_error!(
        engine.attention(&descriptor, &half),
        Error::DType {
            operand: Operand::Key,
            actual: DType::F16,
            expected: DType::F32
        }
    );
}

// ---- Buffers -----------------------------------------------------------------------------------------------------------

#[test]
fn buffers_are_checked_when_they_are_bound() {
    let engine = support::engine();
    let attention = engine
        .prepare(&AttentionDescriptor {
            shape: SHAPE,
            outputs: Outputs {
                lse: true,
                ..Default::default()
            },
            ..Default::default()
        })
        .unwrap();
    let (query_bytes, key_bytes) = (4 * 2 * 4 * 3 * 8, 4 * 2 * 4 * 5 * 8);
    let storage = |bytes| engine.allocate(bytes).unwrap();
    let (query, key, value) = (storage(query_bytes), storage(key_bytes), storage(key_bytes));
    let (out, lse) = (storage(query_bytes), storage(4 * 2 * 4 * 3));
    let inputs = Inputs::new(&query, &key, &value);
    let outputs = OutputBuffers {
        lse: Some((&lse).into()),
        ..OutputBuffers::new(&out)
    };
    assert!(attention.bind(&inputs, &outputs).is_ok());

    assert_error!(
        attention.bind(&inputs, &OutputBuffers::new(&out)),
        Error::MissingOperand { operand: Operand::Lse }
    );
    let more = storage(4 * 2 * 4 * 3 * 5);
    let unexpected = OutputBuffers {
        weights: Some((&more).into()),
        ..outputs
    };
    assert_error!(
        attention.bind(&inputs, &unexpected),
        Error::UnexpectedOperand {
            operand: Operand::Weights
        }
    );
    let short = storage(key_bytes - 4);
    assert_error!(
        attention.bind(&Inputs::new(&query, &short, &value), &outputs),
        Error::BufferTooSmall { operand: Operand::Key, actual_bytes, expected_bytes, .. }
            if actual_bytes + 4 == expected_bytes
    );
    let at = |offset_bytes| BufferAt {
        buffer: value.buffer(),
        offset_bytes,
    };
    assert_error!(
        attention.bind(&Inputs::new(&query, &key, at(4)), &outputs),
        Error::BufferTooSmall {
            operand: Operand::Value,
            offset_bytes: 4,
            ..
        }
    );
    assert_error!(
        attention.bind(&Inputs::new(&query, &key, at(u64::MAX - 3)), &outputs),
        Error::BufferTooSmall {
            operand: Operand::Value,
            ..
        }
    );
    assert_error!(
        attention.bind(&Inputs::new(&query, &key, at(2)), &outputs),
        Error::BufferOffset {
            operand: Operand::Value,
            offset_bytes: 2,
            alignment_bytes: 4
        }
    );
    let copied = engine.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: query_bytes,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    assert_error!(
        attention.bind(&Inputs::new(&copied, &key, &value), &outputs),
        Error::BufferUsage {
            operand: Operand::Query,
            expected: "STORAGE"
        }
    );
    let onto_the_query = OutputBuffers {
        out: (&query).into(),
        ..outputs
    };
    assert_error!(
        attention.bind(&inputs, &onto_the_query),
        Error::SharedBuffer {
            operand: Operand::Out,
            other: Operand::Query
        }
    );
    let over_one_another = OutputBuffers {
        lse: Some((&out).into()),
        ..outputs
    };
    assert_error!(
        attention.bind(&inputs, &over_one_another),
        Error::SharedBuffer { operand, other }
            if [operand, other].contains(&Operand::Out) && [operand, other].contains(&Operand::Lse)
    );
}

// ---- Multi-head blocks -------------------------------------------------------------------------------------------------

fn parameters(embed_dim: usize) -> MultiHeadParameters {
    let weight = vec![0.1; embed_dim * embed_dim];
    MultiHeadParameters {
        query_weight: weight.clone(),
        key_weight: weight.clone(),
        value_weight: weight.clone(),
        out_weight: weight,
        ..Default::default()
    }
}

#[test]
fn multi_head_sizes_and_lengths_are_checked() {
    let engine = support::engine();
    let new = |descriptor: MultiHeadDescriptor<'_>, parameters: &MultiHeadParameters| {
        MultiHeadAttention::new(&engine, &descriptor, parameters)
    };
    let right = parameters(8);
    assert_error!(
        new(MultiHeadDescriptor::new(8, 3), &right),
        Error::EmbedDimNotDivisible { embed_dim: 8, heads: 3 }
    );
    for (descriptor, name) in [
        (MultiHeadDescriptor::new(0, 2), "embed_dim"),
        (MultiHeadDescriptor::new(8, 0), "heads"),
        (
            MultiHeadDescriptor {
                key_dim: 0,
                ..MultiHeadDescriptor::new(8, 2)
            },
            "key_dim",
        ),
    ] {
        assert_error!(new(descriptor, &right), Error::ZeroSize { dimension } if dimension == name);
    }
    let narrow = MultiHeadParameters {
        key_weight: vec![0.1; 63],
        ..right.clone()
    };
    assert_error!(
        new(MultiHeadDescriptor::new(8, 2), &narrow),
        Error::Length {
            operand: Operand::Projection,
            actual: 63,
            expected: 64
        }
    );

    let block = new(MultiHeadDescriptor::new(8, 2), &right).unwrap();
    let call = MultiHeadCall::self_attention(1, 3);
    assert!(
        block
            .forward(&call, &MultiHeadInputs::self_attention(&[0.5; 24]))
            .is_ok()
    );
    assert_error!(
        block.forward(&call, &MultiHeadInputs::self_attention(&[0.5; 23])),
        Error::Length {
            operand: Operand::Query,
            actual: 23,
            expected: 24
        }
    );
    let cross = MultiHeadInputs {
        value: Some(&[0.5; 16]),
        ..MultiHeadInputs::self_attention(&[0.5; 24])
    };
    assert_error!(
        block.forward(&call, &cross),
        Error::Length {
            operand: Operand::Value,
            ..
        }
    );
    let empty = MultiHeadCall {
        seqlen_k: 0,
        ..MultiHeadCall::self_attention(1, 3)
    };
    assert_error!(block.prepare(&empty), Error::ZeroSize { dimension: "seqlen_k" });
}

/// The kernels of a projection have operands of their own; errors speak of the caller's.
#[test]
fn multi_head_buffers_are_named_as_the_caller_knows_them() {
    let engine = support::engine();
    let block = MultiHeadAttention::new(&engine, &MultiHeadDescriptor::new(8, 2), &parameters(8)).unwrap();
    let call = MultiHeadCall {
        weights: HeadWeights::Averaged,
        ..MultiHeadCall::self_attention(1, 3)
    };
    let prepared = block.prepare(&call).unwrap();
    let (x, output, weights) = (
        engine.allocate(96).unwrap(),
        engine.allocate(96).unwrap(),
        engine.allocate(36).unwrap(),
    );
    let short = engine.allocate(16).unwrap();
    let right = MultiHeadBuffers {
        query: (&x).into(),
        key: (&x).into(),
        value: (&x).into(),
        mask: None,
        bias: None,
        key_padding: None,
        output: (&output).into(),
        weights: Some((&weights).into()),
    };
    assert!(prepared.bind(&right).is_ok());
    let short = (&short).into();
    for (operand, wrong) in [
        (Operand::Query, MultiHeadBuffers { query: short, ..right }),
        (Operand::Key, MultiHeadBuffers { key: short, ..right }),
        (Operand::Value, MultiHeadBuffers { value: short, ..right }),
        (Operand::Out, MultiHeadBuffers { output: short, ..right }),
        (
            Operand::Weights,
            MultiHeadBuffers {
                weights: Some(short),
                ..right
            },
        ),
    ] {
        assert_error!(
            prepared.bind(&wrong),
            Error::BufferTooSmall { operand: found, .. } if found == operand
        );
    }
    let missing = MultiHeadBuffers { weights: None, ..right };
    assert_error!(
        prepared.bind(&missing),
        Error::MissingOperand {
            operand: Operand::Weights
        }
    );
    let unasked = MultiHeadBuffers {
        bias: Some(short),
        ..right
    };
    assert_error!(
        prepared.bind(&unasked),
        Error::UnexpectedOperand { operand: Operand::Bias }
    );
}

#[test]
fn state_dicts_are_checked_by_name() {
    let descriptor = MultiHeadDescriptor::new(4, 2);
    let (stacked, square, halves) = ([0u8; 4 * 48], [0u8; 4 * 16], [0u8; 2 * 16]);
    let file = |tensors: &[(&str, safetensors::Dtype, &[usize], &[u8])]| {
        let views: Vec<_> = tensors
            .iter()
            .map(|&(name, dtype, shape, bytes)| {
                let view = safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
                (name, view)
            })
            .collect();
        safetensors::serialize(views, None).unwrap()
    };
    let read = |bytes: &[u8]| MultiHeadParameters::from_safetensors(bytes, "block.", &descriptor);
    let single = safetensors::Dtype::F32;
    let in_proj = ("block.in_proj_weight", single, &[12usize, 4][..], &stacked[..]);
    let out_proj = ("block.out_proj.weight", single, &[4usize, 4][..], &square[..]);
    assert!(read(&file(&[in_proj, out_proj])).is_ok());

    assert_error!(read(&file(&[in_proj])), Error::StateDict { ref name, .. } if name == "block.out_proj.weight");
    assert_error!(read(&file(&[out_proj])), Error::StateDict { ref name, .. } if name == "block.q_proj_weight");
    let flat = ("block.out_proj.weight", single, &[16usize][..], &square[..]);
    assert_error!(
        read(&file(&[in_proj, flat])),
        Error::StateDict { ref name, ref problem } if name == "block.out_proj.weight" && problem.contains("[16]")
    );
    let half = (
        "block.out_proj.weight",
        safetensors::Dtype::F16,
        &[4usize, 4][..],
        &halves[..],
    );
    assert_error!(
        read(&file(&[in_proj, half])),
        Error::StateDict { ref problem, .. } if problem.contains("F16")
    );
    assert_error!(read(b"no safetensors"), Error::StateDict { .. });
}
