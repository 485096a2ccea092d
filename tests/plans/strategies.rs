//! Random problems and random devices to plan for.

use proptest::prelude::*;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DType, DTypes, DeviceCaps, KeyPadding,
    Layout, Layouts, Outputs, Problem, Strides,
};

use super::extended;

fn shapes() -> impl Strategy<Value = AttentionShape> {
    let lengths = (1u32..200, 1u32..400);
    (1u32..3, 1u32..5, 1u32..4, lengths, 1u32..200, 1u32..300).prop_map(
        |(batch, kv_heads, group, (seqlen_q, seqlen_k), head_dim, head_dim_v)| AttentionShape {
            kv_heads,
            head_dim_v,
            ..AttentionShape::new(batch, kv_heads * group, seqlen_q, seqlen_k, head_dim)
        },
    )
}

fn layouts() -> impl Strategy<Value = Layout> {
    let gap = || 0u32..40;
    prop_oneof![
        Just(Layout::Bhsd),
        Just(Layout::Bshd),
        // Rows of up to 300 channels, then heads, then batches: apart for every shape above.
        (gap(), gap(), gap()).prop_map(|(row, head, batch)| {
            Layout::Strided(Strides {
                row: 300 + row,
                head: 400 * 340 + head,
                batch: 12 * 400 * 341 + batch,
            })
        }),
    ]
}

pub(crate) fn problems() -> impl Strategy<Value = Problem> {
    let causal = prop_oneof![
        Just(None),
        Just(Some(CausalAlignment::UpperLeft)),
        Just(Some(CausalAlignment::LowerRight)),
    ];
    let padding = prop_oneof![
        Just(None),
        Just(Some(KeyPadding::Boolean)),
        Just(Some(KeyPadding::Additive)),
    ];
    let broadcast = || proptest::option::of(proptest::array::uniform4(any::<bool>()));
    let masks = (causal, broadcast(), broadcast(), padding, 0u32..5);
    let ways = (any::<[bool; 2]>(), 0usize..3, 0usize..3, 0usize..3);
    (shapes(), masks, proptest::array::uniform4(layouts()), ways).prop_map(
        |(
            shape,
            (causal, mask, bias, key_padding, appended),
            [query, key, value, out],
            ([lse, weights], way, narrow, out_narrow),
        )| {
            // At least one key stays for the masks to speak of.
            let appended_keys = appended.min(shape.seqlen_k - 1);
            let full = [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k - appended_keys];
            let broadcast =
                |axes: [bool; 4]| Broadcast::new([0, 1, 2, 3].map(|axis| if axes[axis] { full[axis] } else { 1 }));
            let algorithm = [Algorithm::Auto, Algorithm::Fused, Algorithm::ThreeKernels][way];
            Problem::new(&AttentionDescriptor {
                shape,
                dtypes: DTypes {
                    out: DType::ALL[out_narrow],
                    ..DTypes::all(DType::ALL[narrow])
                },
                causal,
                mask: mask.map(broadcast),
                bias: bias.map(broadcast),
                key_padding,
                appended_keys,
                layouts: Layouts { query, key, value, out },
                outputs: Outputs {
                    lse,
                    weights,
                    ..Default::default()
                },
                algorithm,
                ..Default::default()
            })
            .unwrap()
        },
    )
}

/// Devices from absurdly poor to rich.
pub(crate) fn devices() -> impl Strategy<Value = DeviceCaps> {
    let powers = |from: f64, to: f64| (from..to).prop_map(|power| 10f64.powf(power));
    let trips = proptest::option::of(powers(1.0, 5.0));
    (
        any::<bool>(),
        powers(3.5, 8.0),
        powers(0.5, 4.8),
        powers(4.0, 11.0),
        trips,
        4u32..9,
    )
        .prop_map(|(rich, binding, workgroups, flops, trips, alignment)| {
            let mut caps = if rich { extended() } else { DeviceCaps::default() };
            caps.limits.max_storage_buffer_binding_bytes = binding as u64 & !3;
            caps.limits.max_workgroups_per_dimension = workgroups as u32;
            caps.limits.storage_offset_alignment_bytes = 1 << alignment;
            caps.max_dispatch_flops = flops;
            caps.max_loop_trips = trips.map(|trips| trips as u32);
            caps
        })
}
