//! `onnx.Attention` cases, by the mapping of `wgpu_attention::onnx`.

use half::{bf16, f16};
use wgpu_attention::onnx::{OnnxAttention, OnnxMask, OnnxMaskKind, OnnxPlan};
use wgpu_attention::{AttentionDescriptor, DTypes, HostInputs, HostKeyPadding, HostTensor, Outputs};

use super::oracle::{Array, CaseTensors, Numbers};
use super::{Computed, Target};

/// Runs a case; an error is an unreadable case, or the library's refusal.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let whole = |name: &str, absent: i64| anyhow::Ok(case.number(name)?.map_or(absent, |number| number as i64));
    let [q, k, v] = [tensors.numbers("Q")?, tensors.numbers("K")?, tensors.numbers("V")?];
    let [past_key, past_value] = ["past_key", "past_value"].map(|role| tensors.optional_numbers(role));
    let (past_key, past_value) = (past_key?, past_value?);
    let boolean = tensors.boolean_mask("attn_mask")?;
    let float = match &boolean {
        Some(_) => None,
        None => tensors.optional_numbers("attn_mask")?,
    };
    let nonpad = match tensors.has("nonpad_kv_seqlen") {
        true => Some(tensors.integers("nonpad_kv_seqlen")?),
        false => None,
    };
    let attn_mask = match (&boolean, &float) {
        (Some(mask), _) => Some((OnnxMaskKind::Boolean, &mask.shape)),
        (_, Some(mask)) => Some((OnnxMaskKind::Float, &mask.shape)),
        _ => None,
    };
    let shape = |numbers: &'_ Option<Numbers>| numbers.as_ref().map(|numbers| numbers.shape.clone());
    let (past_key_shape, past_value_shape) = (shape(&past_key), shape(&past_value));
    let opset = case.size("opset")?.unwrap_or(23);
    let plan = OnnxPlan::new(&OnnxAttention {
        is_causal: whole("is_causal", 0)? != 0,
        left_window_size: whole("left_window_size", -1)?,
        right_window_size: whole("right_window_size", -1)?,
        scale: case.number("scale")?.map(|scale| scale as f32),
        softcap: case.number("softcap")?.unwrap_or(0.0) as f32,
        softmax_precision: case.number("softmax_precision")?.map(|precision| precision as i64),
        qk_matmul_output_mode: whole("qk_matmul_output_mode", 0)?,
        q_num_heads: case.size("q_num_heads")?,
        kv_num_heads: case.size("kv_num_heads")?,
        attn_mask: attn_mask.map(|(kind, shape)| OnnxMask { kind, shape }),
        past_key: past_key_shape.as_deref(),
        past_value: past_value_shape.as_deref(),
        nonpad_kv_seqlen: nonpad.as_ref().map(|lengths| &lengths.shape[..]),
        present: case.outputs.contains_key("present_key"),
        qk_matmul_output: case.outputs.contains_key("qk_matmul_output"),
        ..OnnxAttention::new(opset, &q.shape, &k.shape, &v.shape)
    })?;
    let planned = plan.descriptor();
    let key = Data::cached(past_key.as_ref(), &k, |past, new| match (past, new) {
        (Past::F32(past), HostTensor::F32(new)) => Ok(Data::F32(plan.key(past, new)?.into_owned())),
        (Past::F16(past), HostTensor::F16(new)) => Ok(Data::F16(plan.key(past, new)?.into_owned())),
        (Past::Bf16(past), HostTensor::Bf16(new)) => Ok(Data::Bf16(plan.key(past, new)?.into_owned())),
        _ => anyhow::bail!("past_key is of another type than K"),
    })?;
    let value = Data::cached(past_value.as_ref(), &v, |past, new| match (past, new) {
        (Past::F32(past), HostTensor::F32(new)) => Ok(Data::F32(plan.value(past, new)?.into_owned())),
        (Past::F16(past), HostTensor::F16(new)) => Ok(Data::F16(plan.value(past, new)?.into_owned())),
        (Past::Bf16(past), HostTensor::Bf16(new)) => Ok(Data::Bf16(plan.value(past, new)?.into_owned())),
        _ => anyhow::bail!("past_value is of another type than V"),
    })?;
    let bias = match &float {
        None => None,
        Some(mask) => Some(match mask.host() {
            HostTensor::F32(mask) => plan
                .bias_data(Some(mask), f32::NEG_INFINITY)?
                .map(|bias| Data::F32(bias.into_owned())),
            HostTensor::F16(mask) => plan
                .bias_data(Some(mask), f16::NEG_INFINITY)?
                .map(|bias| Data::F16(bias.into_owned())),
            HostTensor::Bf16(mask) => plan
                .bias_data(Some(mask), bf16::NEG_INFINITY)?
                .map(|bias| Data::Bf16(bias.into_owned())),
        }),
    }
    .flatten();
    let nonpad = nonpad.as_ref().map(|lengths| &lengths.data[..]);
    let mask = plan.mask_data(boolean.as_ref().map(|mask| &mask.data[..]), nonpad)?;
    let lengths = plan.key_lengths(nonpad)?;
    let descriptor = AttentionDescriptor {
        dtypes: DTypes {
            query: q.host().dtype(),
            key: key.host().dtype(),
            value: value.host().dtype(),
            out: q.host().dtype(),
            bias: bias.as_ref().map(|bias| bias.host().dtype()).unwrap_or_default(),
        },
        outputs: Outputs {
            lse: true,
            ..planned.outputs
        },
        algorithm: target.algorithm(),
        ..planned
    };
    let inputs = HostInputs {
        mask: mask.as_deref(),
        bias: bias.as_ref().map(Data::host),
        key_padding: lengths.as_deref().map(HostKeyPadding::Lengths),
        ..HostInputs::new(q.host(), key.host(), value.host())
    };
    let output = target.attention(&descriptor, &inputs)?;

    let mut computed = Computed::new();
    computed.insert(
        "Y",
        Array {
            shape: plan.y_shape(),
            data: output.out,
        },
    );
    for (role, shape, data) in [
        ("present_key", plan.present_key_shape(), &key),
        ("present_value", plan.present_value_shape(), &value),
    ] {
        if case.outputs.contains_key(role) {
            let numbers = data.host();
            let data = (0..numbers.len()).map(|index| numbers.at(index)).collect();
            let shape = shape.into();
            computed.insert(role, Array { shape, data });
        }
    }
    if let Some(data) = output.scores.or(output.weights) {
        let shape = plan.qk_matmul_output_shape().into();
        computed.insert("qk_matmul_output", Array { shape, data });
    }
    Ok(computed)
}

/// Numbers made for a call.
enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

/// A past, or none, in the type of what is new.
enum Past<'a> {
    F32(Option<&'a [f32]>),
    F16(Option<&'a [f16]>),
    Bf16(Option<&'a [bf16]>),
}

impl Data {
    fn cached<'a>(
        past: Option<&'a Numbers>,
        new: &'a Numbers,
        join: impl Fn(Past<'a>, HostTensor<'a>) -> anyhow::Result<Self>,
    ) -> anyhow::Result<Self> {
        let new = new.host();
        let past = match (past.map(Numbers::host), new) {
            (Some(HostTensor::F32(past)), _) => Past::F32(Some(past)),
            (Some(HostTensor::F16(past)), _) => Past::F16(Some(past)),
            (Some(HostTensor::Bf16(past)), _) => Past::Bf16(Some(past)),
            (None, HostTensor::F32(_)) => Past::F32(None),
            (None, HostTensor::F16(_)) => Past::F16(None),
            (None, HostTensor::Bf16(_)) => Past::Bf16(None),
        };
        join(past, new)
    }

    fn host(&self) -> HostTensor<'_> {
        match self {
            Data::F32(data) => data.into(),
            Data::F16(data) => data.into(),
            Data::Bf16(data) => data.into(),
        }
    }
}
