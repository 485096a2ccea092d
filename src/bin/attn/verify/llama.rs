//! `rope_causal_gqa` and `llama_attention_block` cases: the attention of a decoder with rotary embedding and shared key and
//! value heads, from its queries and keys on or from the hidden state on. On a GPU nothing comes back in between.

use anyhow::{Context as _, bail};
use wgpu_attention::{
    AttentionDescriptor, AttentionShape, Engine, HostInputs, Inputs, Layout, Layouts, LinearDescriptor,
    LinearHostInputs, LinearInputs, Outputs, RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies, RopeHostInputs,
    RopeInputs, RopeLayouts, RopePositions, Tensor, reference,
};

use super::oracle::{Array, Case, CaseTensors};
use super::{Computed, Target, rope, sdpa};

/// Runs a `rope_causal_gqa` case: `q [heads, rows, channels]`, and as many rows of fewer heads of `k` and `v`.
pub fn run_attention(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let [q, k, v] = [tensors.floats("q")?, tensors.floats("k")?, tensors.floats("v")?];
    let ([heads, seqlen, head_dim], [kv_heads, ..]) = (q.axes::<3>("q")?, k.axes::<3>("k")?);
    let layer = Layer::new(tensors, [heads, kv_heads, seqlen, head_dim], Layout::Bhsd)?;
    anyhow::ensure!(
        k.shape == [kv_heads, seqlen, head_dim] && v.shape == k.shape,
        "q {:?}, k {:?} and v {:?} do not fit together",
        q.shape,
        k.shape,
        v.shape
    );
    let outputs = match target {
        Target::Gpu { engine, .. } => {
            let [query, key, value] = [
                engine.upload(&q.data)?,
                engine.upload(&k.data)?,
                engine.upload(&v.data)?,
            ];
            let attended = layer.attend(engine, target, [query, key, value])?;
            [
                engine.read(&attended.query)?,
                engine.read(&attended.key)?,
                engine.read(&attended.out)?,
                engine.read(&attended.lse)?,
                engine.read(&attended.weights)?,
            ]
        }
        Target::Reference => layer.attend_on_host(target, [&q.data, &k.data, &v.data])?,
    };
    let shapes: [(&str, &[u32]); 5] = [
        ("q_rot", &q.shape),
        ("k_rot", &k.shape),
        ("o", &q.shape),
        ("lse", &[heads, seqlen]),
        ("probs", &[heads, seqlen, seqlen]),
    ];
    let computed = shapes.into_iter().zip(outputs).map(|((role, shape), data)| {
        let shape = shape.to_vec();
        (role, Array { shape, data })
    });
    Ok(computed.collect())
}

/// Runs a `llama_attention_block` case: `hidden [rows, channels]` through all four projections.
pub fn run_block(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let hidden = tensors.floats("hidden")?;
    let [seqlen, embed_dim] = hidden.axes("hidden")?;
    let size = |name: &str| case.size(name)?.with_context(|| format!("no attribute {name}"));
    let (heads, kv_heads, head_dim) = (size("q_heads")?, size("kv_heads")?, size("head_dim")?);
    let layer = Layer::new(tensors, [heads, kv_heads, seqlen, head_dim], Layout::Bshd)?;
    let mut projections = Vec::new();
    for (role, in_features, out_heads) in [
        ("q.weight", embed_dim, Some(heads)),
        ("k.weight", embed_dim, Some(kv_heads)),
        ("v.weight", embed_dim, Some(kv_heads)),
        ("o.weight", heads.saturating_mul(head_dim), None),
    ] {
        let weight = tensors.floats(role)?;
        let out_features = out_heads.map_or(embed_dim, |heads| heads.saturating_mul(head_dim));
        anyhow::ensure!(
            weight.shape == [out_features, in_features],
            "{role} has shape {:?}, expected {:?}",
            weight.shape,
            [out_features, in_features]
        );
        projections.push((LinearDescriptor::new(seqlen, in_features, out_features), weight.data));
    }
    let [query, key, value, out] = &projections[..] else {
        bail!("four projections make a block");
    };
    let (context, output) = match target {
        Target::Gpu { engine, .. } => {
            let project = |(descriptor, weight): &(LinearDescriptor, Vec<f32>), x: &Tensor| {
                let weight = engine.upload(weight)?;
                engine.prepare_linear(descriptor)?.run(&LinearInputs::new(x, &weight))
            };
            let x = engine.upload(&hidden.data)?;
            let attended = layer.attend(
                engine,
                target,
                [project(query, &x)?, project(key, &x)?, project(value, &x)?],
            )?;
            let output = project(out, &attended.out)?;
            (engine.read(&attended.out)?, engine.read(&output)?)
        }
        Target::Reference => {
            let project = |(descriptor, weight): &(LinearDescriptor, Vec<f32>), x: &[f32]| {
                let inputs = LinearHostInputs { x, weight, bias: None };
                let projected = reference::linear(descriptor, &inputs)?;
                Ok::<Vec<f32>, wgpu_attention::Error>(projected.into_iter().map(|value| value as f32).collect())
            };
            let x = &hidden.data;
            let projected = [project(query, x)?, project(key, x)?, project(value, x)?];
            let [_, _, context, ..] = layer.attend_on_host(target, projected.each_ref().map(|data| &data[..]))?;
            let output = project(out, &context)?;
            (context, output)
        }
    };
    let context_shape = vec![seqlen, heads * head_dim];
    let array = |shape, data| Array { shape, data };
    Ok(Computed::from([
        ("context", array(context_shape, context)),
        ("output", array(hidden.shape, output)),
    ]))
}

/// Rotation and attention, of one sequence.
struct Layer {
    frequencies: RopeFrequencies,
    positions: Vec<i32>,
    /// `[heads, kv_heads, seqlen, head_dim]`.
    sizes: [u32; 4],
    layout: Layout,
    rules: AttentionDescriptor<'static>,
}

/// What a layer computed, on the GPU.
struct Attended {
    query: Tensor,
    key: Tensor,
    out: Tensor,
    lse: Tensor,
    weights: Tensor,
}

impl Layer {
    fn new(tensors: &CaseTensors<'_>, sizes: [u32; 4], layout: Layout) -> anyhow::Result<Self> {
        let positions = rope::positions(tensors)?.context("no input position_ids")?;
        Ok(Self {
            frequencies: frequencies(tensors.case, sizes[3])?,
            positions: positions.data,
            sizes,
            layout,
            rules: sdpa::rules(tensors)?,
        })
    }

    fn rotation(&self, heads: u32) -> RopeDescriptor<'_> {
        let [.., seqlen, head_dim] = self.sizes;
        RopeDescriptor {
            positions: RopePositions::SharedIds,
            layouts: RopeLayouts::all(self.layout),
            ..RopeDescriptor::new([1, heads, seqlen, head_dim], RopeAngles::Frequencies(&self.frequencies))
        }
    }

    fn attention(&self, target: &Target) -> AttentionDescriptor<'static> {
        let [heads, kv_heads, seqlen, head_dim] = self.sizes;
        AttentionDescriptor {
            shape: AttentionShape {
                kv_heads,
                ..AttentionShape::new(1, heads, seqlen, seqlen, head_dim)
            },
            layouts: Layouts::all(self.layout),
            outputs: Outputs {
                lse: true,
                weights: true,
                ..Default::default()
            },
            algorithm: target.algorithm(),
            ..self.rules.clone()
        }
    }

    /// Rotates query and key in place and attends.
    fn attend(&self, engine: &Engine, target: &Target, tensors: [Tensor; 3]) -> wgpu_attention::Result<Attended> {
        let [query, key, value] = tensors;
        let position_ids = engine.upload_bytes(bytemuck::cast_slice(&self.positions))?;
        for (tensor, heads) in [(&query, self.sizes[0]), (&key, self.sizes[1])] {
            let rope = engine.prepare_rope(&RopeDescriptor {
                in_place: true,
                ..self.rotation(heads)
            })?;
            let inputs = RopeInputs {
                position_ids: Some((&position_ids).into()),
                ..RopeInputs::in_place()
            };
            engine.run(&rope.bind(&inputs, tensor)?)?;
        }
        let attention = engine.prepare(&self.attention(target))?;
        let outputs = attention.run(&Inputs::new(&query, &key, &value))?;
        let handed_out =
            |tensor: Option<Tensor>, operand| tensor.ok_or(wgpu_attention::Error::MissingOperand { operand });
        Ok(Attended {
            query,
            key,
            out: outputs.out,
            lse: handed_out(outputs.lse, wgpu_attention::Operand::Lse)?,
            weights: handed_out(outputs.weights, wgpu_attention::Operand::Weights)?,
        })
    }

    /// `[query, key, out, lse, weights]` by the reference.
    fn attend_on_host(
        &self,
        target: &Target,
        [query, key, value]: [&[f32]; 3],
    ) -> wgpu_attention::Result<[Vec<f32>; 5]> {
        let rotated = |x, heads| {
            let inputs = RopeHostInputs {
                x,
                position_ids: Some(&self.positions),
                ..Default::default()
            };
            rope::rotate(target, &self.rotation(heads), &inputs)
        };
        let (query, key) = (rotated(query, self.sizes[0])?, rotated(key, self.sizes[1])?);
        let inputs = HostInputs::new(&query, &key, value);
        let output = target.attention(&self.attention(target), &inputs)?;
        let (lse, weights) = (output.lse.unwrap_or_default(), output.weights.unwrap_or_default());
        Ok([query, key, output.out, lse, weights])
    }
}

fn frequencies(case: &Case, head_dim: u32) -> anyhow::Result<RopeFrequencies> {
    match case.attrs.get("rope").and_then(|rope| rope.as_str()) {
        Some("half split") => {}
        other => bail!("attribute rope is {other:?}, expected \"half split\""),
    }
    let theta = case.number("rope_theta")?.context("no attribute rope_theta")?;
    Ok(RopeFrequencies::new(&RopeConfig {
        theta,
        ..RopeConfig::new(head_dim)
    })?)
}
