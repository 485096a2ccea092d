//! Random problems and random devices to plan for.

use std::sync::Arc;

use proptest::prelude::*;
use wgpu_attention::plan::tuning::TILES;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DType, DTypes, DeviceCaps, KeyPadding,
    Layout, Layouts, Outputs, Problem, QueryRows, Strides, TunedChoice, TunedTile, Tuning, TuningClass,
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

/// What was measured, or what somebody wrote into the file instead: for every class that the shapes above are of, one tile.
fn tunings() -> impl Strategy<Value = Option<Arc<Tuning>>> {
    let sizes = || proptest::sample::select(&[0, 1, 2, 3, 4, 6, 7, 8, 16, 32, 64, 128, u32::MAX][..]);
    let rows = proptest::sample::select(TILES).prop_map(|tile| tile.name.to_owned());
    let tile = prop_oneof![
        (rows, sizes()).prop_map(|(row, tile_q)| TunedTile::Tile { row, tile_q }),
        sizes().prop_map(|rows| TunedTile::Broadcast { rows }),
        (sizes(), sizes(), sizes()).prop_map(|(rows, keys, workgroups)| TunedTile::Split { rows, keys, workgroups }),
    ];
    proptest::option::of(tile).prop_map(|tile| {
        let tile = tile?;
        let mut choices = Vec::new();
        for query_rows in [QueryRows::Few, QueryRows::Some] {
            for head_dim in [32, 64, 96, 128, 192, 256, 512] {
                for (causal, dtype) in [false, true]
                    .into_iter()
                    .flat_map(|causal| DType::ALL.map(|dtype| (causal, dtype)))
                {
                    choices.push(TunedChoice {
                        date: "2026-11-25".into(),
                        class: TuningClass {
                            query_rows,
                            head_dim,
                            causal,
                            dtype,
                        },
                        tile: tile.clone(),
                        median_ms: 1.0,
                        default_ms: 2.0,
                    });
                }
            }
        }
        Some(Arc::new(Tuning { choices }))
    })
}

/// Devices from absurdly poor to rich, with tuning or without.
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
        tunings(),
    )
        .prop_map(|(rich, binding, workgroups, flops, trips, alignment, tuning)| {
            let mut caps = if rich { extended() } else { DeviceCaps::default() };
            caps.limits.max_storage_buffer_binding_bytes = binding as u64 & !3;
            caps.limits.max_workgroups_per_dimension = workgroups as u32;
            caps.limits.storage_offset_alignment_bytes = 1 << alignment;
            caps.max_dispatch_flops = flops;
            caps.max_loop_trips = trips.map(|trips| trips as u32);
            caps.tuning = tuning;
            caps
        })
}
