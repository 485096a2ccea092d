//! `mha_module` and `self_attention_layer` cases: attention with its projections, forward.

use anyhow::{Context as _, bail};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use wgpu_attention::{
    Broadcast, HeadWeights, HostKeyPadding, KeyPadding, MultiHeadAttention, MultiHeadCall, MultiHeadDescriptor,
    MultiHeadInputs, MultiHeadOutput, MultiHeadParameters, reference,
};

use super::oracle::{Array, CaseTensors, MaskArray};
use super::{Computed, Outcome, Target};

/// `torch.nn.MultiheadAttention`.
pub fn run_module(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let query = tensors.floats("query")?;
    let key = tensors.optional_floats("key")?;
    let value = tensors.optional_floats("value")?;
    let unbatched = case.flag("unbatched")?;
    let sequence_first = !case.flag("batch_first")? && !unbatched;
    let sizes = |array: &Array<f32>, role: &str| -> anyhow::Result<(u32, u32)> {
        if unbatched {
            let [rows, _] = array.axes(role)?;
            return Ok((1, rows));
        }
        let [first, second, _] = array.axes(role)?;
        Ok(if sequence_first {
            (second, first)
        } else {
            (first, second)
        })
    };
    let (batch, seqlen_q) = sizes(&query, "query")?;
    let (_, seqlen_k) = sizes(key.as_ref().unwrap_or(&query), "key")?;

    let embed_dim = case.size("embed_dim")?.context("no attribute embed_dim")?;
    let heads = case.size("num_heads")?.context("no attribute num_heads")?;
    let descriptor = MultiHeadDescriptor {
        key_dim: case.size("kdim")?.unwrap_or(embed_dim),
        value_dim: case.size("vdim")?.unwrap_or(embed_dim),
        add_zero_attn: case.flag("add_zero_attn")?,
        ..MultiHeadDescriptor::new(embed_dim, heads)
    };
    let parameters = module_parameters(tensors, &descriptor)?;

    // PyTorch's masks for this module say which keys to ignore; ours say which to attend to.
    let (mask, bias) = match tensors.mask("attn_mask")? {
        None => (None, None),
        Some(MaskArray::Boolean(mask)) => (Some(inverted(mask)), None),
        Some(MaskArray::Float(bias)) => (None, Some(bias)),
    };
    let (padding_kind, padding_bytes, padding_values) = match tensors.mask("key_padding_mask")? {
        None => (None, None, None),
        Some(MaskArray::Boolean(mask)) => (Some(KeyPadding::Boolean), Some(inverted(mask).data), None),
        Some(MaskArray::Float(values)) => (Some(KeyPadding::Additive), None, Some(values.data)),
    };
    let broadcast = |shape: &[u32]| match *shape {
        [rows, keys] => Ok(Broadcast::new([1, 1, rows, keys])),
        [sequences, rows, keys] if sequences == batch * heads => Ok(Broadcast::new([batch, heads, rows, keys])),
        _ => bail!(
            "attn_mask has shape {shape:?}, expected two axes, or three of which the first is {}",
            batch * heads
        ),
    };
    let per_head = !case.flag("average_attn_weights")?;
    let call = MultiHeadCall {
        seqlen_q,
        seqlen_k,
        sequence_first,
        mask: mask.as_ref().map(|mask| broadcast(&mask.shape)).transpose()?,
        bias: bias.as_ref().map(|bias| broadcast(&bias.shape)).transpose()?,
        key_padding: padding_kind,
        weights: match (case.outputs.contains_key("attn_weights"), per_head) {
            (false, _) => HeadWeights::None,
            (true, true) => HeadWeights::PerHead,
            (true, false) => HeadWeights::Averaged,
        },
        algorithm: target.algorithm(),
        ..MultiHeadCall::self_attention(batch, seqlen_q)
    };
    let inputs = MultiHeadInputs {
        query: &query.data,
        key: key.as_ref().map(|key| &key.data[..]),
        value: value.as_ref().map(|value| &value.data[..]),
        mask: mask.as_ref().map(|mask| &mask.data[..]),
        bias: bias.as_ref().map(|bias| &bias.data[..]),
        key_padding: padding_bytes
            .as_deref()
            .map(HostKeyPadding::Boolean)
            .or(padding_values.as_deref().map(HostKeyPadding::Additive)),
    };
    let (output, appended) = forward(target, &descriptor, &parameters, &call, &inputs)?;

    let mut computed = Computed::new();
    let mut shape = query.shape.clone();
    if let Some(channels) = shape.last_mut() {
        *channels = embed_dim;
    }
    computed.insert(
        "output",
        Array {
            shape,
            data: output.output,
        },
    );
    if let Some(weights) = output.weights {
        let keys = seqlen_k + appended;
        let leading: &[u32] = match (unbatched, per_head) {
            (true, false) => &[],
            (true, true) => &[heads],
            (false, false) => &[batch],
            (false, true) => &[batch, heads],
        };
        computed.insert(
            "attn_weights",
            Array {
                shape: [leading, &[seqlen_q, keys]].concat(),
                data: weights,
            },
        );
    }
    Ok(computed)
}

/// One attention block of an encoder.
pub fn run_layer(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Result<Computed, Outcome>> {
    let case = tensors.case;
    let hidden = tensors.floats("hidden")?;
    let [batch, seqlen, embed_dim] = hidden.axes("hidden")?;
    let heads = case.size("num_heads")?.context("no attribute num_heads")?;
    if case.number("scale")?.is_some() {
        return Ok(Err(Outcome::Unsupported("a scale of a projected block's own".into())));
    }
    let attend = tensors.booleans("attend")?;
    let weight = |name: &str| tensors.floats(name).map(|array| array.data);
    let bias = |name: &str| tensors.optional_floats(name).map(|array| array.map(|array| array.data));
    let parameters = MultiHeadParameters {
        query_weight: weight("q.weight")?,
        key_weight: weight("k.weight")?,
        value_weight: weight("v.weight")?,
        out_weight: weight("out.weight")?,
        query_bias: bias("q.bias")?,
        key_bias: bias("k.bias")?,
        value_bias: bias("v.bias")?,
        out_bias: bias("out.bias")?,
        appended: None,
    };
    let wanted = case.outputs.contains_key("probs");
    let call = MultiHeadCall {
        key_padding: Some(KeyPadding::Boolean),
        weights: if wanted {
            HeadWeights::PerHead
        } else {
            HeadWeights::None
        },
        algorithm: target.algorithm(),
        ..MultiHeadCall::self_attention(batch, seqlen)
    };
    let inputs = MultiHeadInputs {
        key_padding: Some(HostKeyPadding::Boolean(&attend.data)),
        ..MultiHeadInputs::self_attention(&hidden.data)
    };
    let descriptor = MultiHeadDescriptor::new(embed_dim, heads);
    let (output, _) = forward(target, &descriptor, &parameters, &call, &inputs)?;
    let mut computed = Computed::new();
    computed.insert(
        "context",
        Array {
            shape: hidden.shape.clone(),
            data: output.context,
        },
    );
    computed.insert(
        "output",
        Array {
            shape: hidden.shape,
            data: output.output,
        },
    );
    if let Some(weights) = output.weights {
        computed.insert(
            "probs",
            Array {
                shape: vec![batch, heads, seqlen, seqlen],
                data: weights,
            },
        );
    }
    Ok(Ok(computed))
}

/// Runs a block; also says how many keys it appended.
fn forward(
    target: &Target,
    descriptor: &MultiHeadDescriptor<'_>,
    parameters: &MultiHeadParameters,
    call: &MultiHeadCall,
    inputs: &MultiHeadInputs<'_>,
) -> anyhow::Result<(MultiHeadOutput, u32)> {
    match target {
        Target::Reference => {
            let result = reference::multi_head(descriptor, parameters, call, inputs)?;
            let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect::<Vec<_>>();
            let output = MultiHeadOutput {
                output: single(result.output),
                context: single(result.context),
                weights: (call.weights != HeadWeights::None).then(|| single(result.weights)),
            };
            Ok((
                output,
                u32::from(parameters.appended.is_some()) + u32::from(descriptor.add_zero_attn),
            ))
        }
        Target::Gpu { engine, .. } => {
            let block = MultiHeadAttention::new(engine, descriptor, parameters)?;
            Ok((block.forward(call, inputs)?, block.appended_keys()))
        }
    }
}

/// The `param.` inputs, through the same reader that users' files go through.
fn module_parameters(
    tensors: &CaseTensors<'_>,
    descriptor: &MultiHeadDescriptor<'_>,
) -> anyhow::Result<MultiHeadParameters> {
    let mut arrays = Vec::new();
    for role in tensors.case.inputs.keys() {
        if let Some(name) = role.strip_prefix("param.") {
            arrays.push((name, tensors.floats(role)?));
        }
    }
    let mut views = Vec::new();
    for (name, array) in &arrays {
        let shape = array.shape.iter().map(|&size| size as usize).collect();
        views.push((
            *name,
            TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(&array.data))?,
        ));
    }
    let file = safetensors::serialize(views, None)?;
    Ok(MultiHeadParameters::from_safetensors(&file, "", descriptor)?)
}

fn inverted(mut mask: Array<u8>) -> Array<u8> {
    for byte in &mut mask.data {
        *byte = u8::from(*byte == 0);
    }
    mask
}
