//! What a call can do, one small function each, beside the reference: `cargo run --example features`.

use wgpu_attention::half::bf16;
use wgpu_attention::onnx::{OnnxAttention, OnnxPlan};
use wgpu_attention::reference::{self, Precision, ReferenceMods};
use wgpu_attention::{
    AttentionDescriptor, AttentionOutput, AttentionRope, AttentionShape, BlockMaskDescriptor, BlockMaskShape, Capture,
    CaptureElement, CausalAlignment, DType, DTypes, Dropout, DropoutKeep, Engine, HostInputs, Layout, Layouts,
    MergeStatesDescriptor, Mods, Outputs, Packed, Problem, RopeConfig, RopeFrequencies, RopePairing, RopePositions,
    Window,
};

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn main() -> Result {
    let engine = Engine::new()?;
    println!("on {}", engine.caps().name);
    grouped_heads_in_bf16(&engine)?;
    windows_and_sinks(&engine)?;
    alibi(&engine)?;
    a_score_mod_with_a_table(&engine)?;
    documents_as_a_block_mask(&engine)?;
    packed_sequences(&engine)?;
    weights_of_some_rows(&engine)?;
    keys_in_two_parts(&engine)?;
    rotary_embedding(&engine)?;
    dropout(&engine)?;
    an_onnx_node(&engine)
}

/// 8 query heads share 2 key/value heads, and the last 33 of 70 tokens look back.
fn grouped_heads_in_bf16(engine: &Engine) -> Result {
    let narrow = |count, seed| numbers(count, seed).into_iter().map(bf16::from_f32).collect::<Vec<_>>();
    let (query, key, value) = (narrow(8 * 33 * 32, 0), narrow(2 * 70 * 32, 1), narrow(2 * 70 * 32, 2));
    let descriptor = AttentionDescriptor {
        shape: AttentionShape {
            kv_heads: 2,
            ..AttentionShape::new(1, 8, 33, 70, 32)
        },
        dtypes: DTypes::all(DType::Bf16),
        causal: Some(CausalAlignment::LowerRight),
        ..Default::default()
    };
    let inputs = HostInputs::new(&query, &key, &value);
    // out is rounded to 8 bits of fraction.
    compare("grouped heads in bf16", engine, &descriptor, &inputs, 1e-2)
}

/// Each token sees itself and 7 before it; each head has a score that takes a share and gives nothing.
fn windows_and_sinks(engine: &Engine) -> Result {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 3, 40, 40, 16),
        window: Some(Window {
            left: Some(7),
            right: Some(0),
            alignment: CausalAlignment::LowerRight,
        }),
        sinks: true,
        ..Default::default()
    };
    let x = numbers(3 * 40 * 16, 0);
    let inputs = HostInputs {
        sinks: Some(&[0.5, -1.0, 2.0]),
        ..HostInputs::new(&x, &x, &x)
    };
    compare("windows and sinks", engine, &descriptor, &inputs, 1e-5)
}

/// Scores fall with the distance, in each head at a slope of its own.
fn alibi(engine: &Engine) -> Result {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 4, 20, 20, 16),
        causal: Some(CausalAlignment::LowerRight),
        alibi_slopes: true,
        ..Default::default()
    };
    let x = numbers(4 * 20 * 16, 0);
    let inputs = HostInputs {
        alibi_slopes: Some(&[0.25, 0.0625, 0.015625, 0.00390625]),
        ..HostInputs::new(&x, &x, &x)
    };
    compare("ALiBi", engine, &descriptor, &inputs, 1e-5)
}

/// A bias by distance out of a table, in WGSL for the GPU and in Rust for the reference.
fn a_score_mod_with_a_table(engine: &Engine) -> Result {
    let mods = Mods {
        score_mod: Some(
            "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return score + by_distance[q_idx + 19u - kv_idx];
}",
        ),
        captures: &[Capture {
            name: "by_distance",
            element: CaptureElement::F32,
            len: 39,
        }],
        ..Default::default()
    };
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 2, 20, 20, 16),
        mods,
        ..Default::default()
    };
    let (x, by_distance) = (numbers(2 * 20 * 16, 0), numbers(39, 1));
    let inputs = HostInputs {
        captures: &[bytemuck::cast_slice(&by_distance)],
        ..HostInputs::new(&x, &x, &x)
    };
    let in_rust =
        |score, [_, _, q_idx, kv_idx]: [u32; 4]| score + f64::from(by_distance[(q_idx + 19 - kv_idx) as usize]);
    let in_rust = ReferenceMods {
        score_mod: Some(&in_rust),
        ..Default::default()
    };
    compare_with("a score_mod with a table", engine, &descriptor, &inputs, 1e-5, &in_rust)
}

/// Tokens see those of their own document; blocks of 64 x 64 positions without such a pair are never visited.
fn documents_as_a_block_mask(engine: &Engine) -> Result {
    let shape = AttentionShape::new(1, 2, 256, 256, 16);
    let mods = Mods {
        mask_mod: Some(
            "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return documents[q_idx] == documents[kv_idx];
}",
        ),
        captures: &[Capture {
            name: "documents",
            element: CaptureElement::U32,
            len: 256,
        }],
        ..Default::default()
    };
    let blocks = BlockMaskShape {
        batch: 1,
        heads: 1,
        block_q: 64,
        block_kv: 64,
    };
    let documents: Vec<u32> = (0..256).map(|token| token / 100).collect();
    let captures: &[&[u8]] = &[bytemuck::cast_slice(&documents)];
    let states = engine.block_mask(&BlockMaskDescriptor::new(&shape, blocks, mods), captures)?;
    let descriptor = AttentionDescriptor {
        shape,
        mods,
        block_mask: Some(blocks),
        ..Default::default()
    };
    let x = numbers(2 * 256 * 16, 0);
    let inputs = HostInputs {
        captures,
        block_mask: Some(&states),
        ..HostInputs::new(&x, &x, &x)
    };
    let in_rust = |[_, _, q_idx, kv_idx]: [u32; 4]| documents[q_idx as usize] == documents[kv_idx as usize];
    let in_rust = ReferenceMods {
        mask_mod: Some(&in_rust),
        ..Default::default()
    };
    compare_with(
        "documents as a block mask",
        engine,
        &descriptor,
        &inputs,
        1e-5,
        &in_rust,
    )
}

/// Three sequences of 5, 0 and 25 tokens, one after another.
fn packed_sequences(engine: &Engine) -> Result {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(3, 2, 25, 25, 16),
        packed: Some(Packed {
            tokens_q: 30,
            tokens_k: 30,
        }),
        layouts: Layouts::all(Layout::Bshd),
        causal: Some(CausalAlignment::LowerRight),
        ..Default::default()
    };
    let x = numbers(30 * 2 * 16, 0);
    let cu_seqlens = Some(&[0, 5, 5, 30][..]);
    let inputs = HostInputs {
        cu_seqlens_q: cu_seqlens,
        cu_seqlens_k: cu_seqlens,
        ..HostInputs::new(&x, &x, &x)
    };
    compare("packed sequences", engine, &descriptor, &inputs, 1e-5)
}

/// The lse of all rows, and what the rows 10 to 12 look at.
fn weights_of_some_rows(engine: &Engine) -> Result {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 2, 50, 50, 16),
        outputs: Outputs {
            lse: true,
            weights: true,
            rows: Some([10, 13]),
            ..Default::default()
        },
        ..Default::default()
    };
    let x = numbers(2 * 50 * 16, 0);
    compare(
        "weights of some rows",
        engine,
        &descriptor,
        &HostInputs::new(&x, &x, &x),
        1e-5,
    )
}

/// Attention over the first 15 keys and over the other 25, joined by their lse.
fn keys_in_two_parts(engine: &Engine) -> Result {
    let (query, key, value) = (numbers(2 * 7 * 16, 0), numbers(2 * 40 * 16, 1), numbers(2 * 40 * 16, 2));
    let (mut out_parts, mut lse_parts) = (Vec::new(), Vec::new());
    for rows in [0..15, 15..40] {
        let descriptor = AttentionDescriptor {
            shape: AttentionShape::new(1, 2, 7, rows.len() as u32, 16),
            outputs: Outputs {
                lse: true,
                ..Default::default()
            },
            ..Default::default()
        };
        let part = |x: &[f32]| -> Vec<f32> {
            let heads = x.chunks(40 * 16).map(|head| &head[rows.start * 16..rows.end * 16]);
            heads.collect::<Vec<_>>().concat()
        };
        let output = engine.attention(&descriptor, &HostInputs::new(&query, &part(&key), &part(&value)))?;
        out_parts.extend(output.out);
        lse_parts.extend(output.lse.unwrap_or_default());
    }
    let merged = engine.merge_states(&MergeStatesDescriptor::new(2, 1, 2, 7, 16), &out_parts, &lse_parts)?;
    let whole = Problem::new(&AttentionDescriptor {
        shape: AttentionShape::new(1, 2, 7, 40, 16),
        ..Default::default()
    })?;
    let want = reference::attention(&whole, &HostInputs::new(&query, &key, &value))?;
    report(
        "keys in two parts",
        &[(&merged.out, &want.out), (&merged.lse, &want.lse)],
        1e-5,
    )
}

/// Queries at positions 16 to 19, keys at 0 to 19, turned as they are loaded.
fn rotary_embedding(engine: &Engine) -> Result {
    let frequencies = RopeFrequencies::new(&RopeConfig::new(16))?;
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 2, 4, 20, 16),
        causal: Some(CausalAlignment::LowerRight),
        rope: Some(AttentionRope {
            frequencies: &frequencies,
            pairing: RopePairing::HalfSplit,
            query: Some(RopePositions::Offset(16)),
            key: Some(RopePositions::Offset(0)),
        }),
        ..Default::default()
    };
    let (query, key) = (numbers(2 * 4 * 16, 0), numbers(2 * 20 * 16, 1));
    let inputs = HostInputs::new(&query, &key, &key);
    compare("rotary embedding", engine, &descriptor, &inputs, 1e-5)
}

/// Three weights of ten dropped, the same ones on every device.
fn dropout(engine: &Engine) -> Result {
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(1, 2, 20, 20, 16),
        dropout: Some(Dropout {
            probability: 0.3,
            keep: DropoutKeep::Philox { seed: 42, offset: 0 },
        }),
        ..Default::default()
    };
    let x = numbers(2 * 20 * 16, 0);
    compare("dropout", engine, &descriptor, &HostInputs::new(&x, &x, &x), 1e-5)
}

/// Three new tokens behind a past of six, inputs of three axes.
fn an_onnx_node(engine: &Engine) -> Result {
    let plan = OnnxPlan::new(&OnnxAttention {
        is_causal: true,
        q_num_heads: Some(4),
        kv_num_heads: Some(2),
        past_key: Some(&[1, 2, 6, 8]),
        past_value: Some(&[1, 2, 6, 8]),
        present: true,
        ..OnnxAttention::new(23, &[1, 3, 32], &[1, 3, 16], &[1, 3, 16])
    })?;
    let (q, k, v) = (numbers(3 * 32, 0), numbers(3 * 16, 1), numbers(3 * 16, 2));
    let (past_key, past_value) = (numbers(2 * 6 * 8, 3), numbers(2 * 6 * 8, 4));
    // They are present_key and present_value, too.
    let (key, value) = (plan.key(Some(&past_key), &k)?, plan.value(Some(&past_value), &v)?);
    let inputs = HostInputs::new(&q, &*key, &*value);
    compare("an ONNX node", engine, &plan.descriptor(), &inputs, 1e-5)
}

fn compare(
    name: &str,
    engine: &Engine,
    descriptor: &AttentionDescriptor<'_>,
    inputs: &HostInputs<'_>,
    tolerance: f64,
) -> Result {
    compare_with(name, engine, descriptor, inputs, tolerance, &ReferenceMods::default())
}

/// Everything that was asked for, beside the reference.
fn compare_with(
    name: &str,
    engine: &Engine,
    descriptor: &AttentionDescriptor<'_>,
    inputs: &HostInputs<'_>,
    tolerance: f64,
    mods: &ReferenceMods<'_>,
) -> Result {
    let AttentionOutput { out, lse, weights, .. } = engine.attention(descriptor, inputs)?;
    let want = reference::attention_with(Precision::F64, &Problem::new(descriptor)?, inputs, mods)?;
    let mut pairs = vec![(&out, &want.out)];
    pairs.extend(lse.as_ref().map(|lse| (lse, &want.lse)));
    pairs.extend(weights.as_ref().map(|weights| (weights, &want.weights)));
    report(name, &pairs, tolerance)
}

fn report(name: &str, pairs: &[(&Vec<f32>, &Vec<f64>)], tolerance: f64) -> Result {
    let mut largest = 0f64;
    for (got, want) in pairs {
        if got.len() != want.len() {
            return Err(format!("{name}: {} numbers, expected {}", got.len(), want.len()).into());
        }
        for (&got, &want) in got.iter().zip(*want) {
            let difference = (f64::from(got) - want).abs();
            if difference.is_nan() || difference > tolerance {
                return Err(format!("{name}: {got}, the reference says {want}").into());
            }
            largest = largest.max(difference);
        }
    }
    println!("{name:<26} within {largest:.1e} of the reference");
    Ok(())
}

/// Numbers that look like any.
fn numbers(count: usize, seed: u32) -> Vec<f32> {
    (0..count)
        .map(|i| ((i as f32 + 100.0 * seed as f32) * 0.7312).sin() * 1.3)
        .collect()
}
