//! `sdpa` cases: scaled dot-product attention, forward.

use anyhow::{Context as _, bail};
use wgpu_attention::{
    AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DTypes, Dropout, DropoutKeep, HostInputs, Outputs,
    Window,
};

use super::oracle::{Array, CaseTensors, Numbers};
use super::{Computed, Target};

/// Runs a case; an error is an unreadable case, or the library's refusal.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let [q, k, v] = [tensors.numbers("q")?, tensors.numbers("k")?, tensors.numbers("v")?];
    let [batch, heads, seqlen_q, head_dim] = four_axes(&q, "q")?;
    let [k_batch, kv_heads, seqlen_k, k_head_dim] = four_axes(&k, "k")?;
    let [v_batch, v_heads, v_seqlen, head_dim_v] = four_axes(&v, "v")?;
    if (k_batch, k_head_dim) != (batch, head_dim) || (v_batch, v_heads, v_seqlen) != (batch, kv_heads, seqlen_k) {
        bail!(
            "q {:?}, k {:?} and v {:?} do not fit together",
            q.shape,
            k.shape,
            v.shape
        );
    }
    let boolean = tensors.boolean_mask("mask")?;
    let float = if boolean.is_none() {
        tensors.optional_numbers("mask")?
    } else {
        None
    };
    let sinks = tensors.optional_floats("sinks")?;
    let keep = if tensors.has("dropout_keep") {
        Some(tensors.booleans("dropout_keep")?)
    } else {
        None
    };
    let dropout = match &keep {
        None => None,
        Some(_) => Some(Dropout {
            probability: case.number("dropout_p")?.unwrap_or(0.0) as f32,
            keep: DropoutKeep::Given,
        }),
    };
    let descriptor = AttentionDescriptor {
        shape: AttentionShape {
            batch,
            heads,
            kv_heads,
            seqlen_q,
            seqlen_k,
            head_dim,
            head_dim_v,
        },
        dtypes: DTypes {
            query: q.host().dtype(),
            key: k.host().dtype(),
            value: v.host().dtype(),
            out: q.host().dtype(),
            bias: float.as_ref().map(|bias| bias.host().dtype()).unwrap_or_default(),
        },
        mask: boolean
            .as_ref()
            .map(|mask| Broadcast::right_aligned(&mask.shape))
            .transpose()?,
        bias: float
            .as_ref()
            .map(|bias| Broadcast::right_aligned(&bias.shape))
            .transpose()?,
        sinks: sinks.is_some(),
        dropout,
        outputs: Outputs {
            lse: true,
            weights: case.outputs.contains_key("probs"),
            ..Default::default()
        },
        algorithm: target.algorithm(),
        ..rules(tensors)?
    };
    let inputs = HostInputs {
        mask: boolean.as_ref().map(|mask| &mask.data[..]),
        bias: float.as_ref().map(|bias| bias.host()),
        sinks: sinks.as_ref().map(|sinks| &sinks.data[..]),
        dropout_mask: keep.as_ref().map(|keep| &keep.data[..]),
        ..HostInputs::new(q.host(), k.host(), v.host())
    };
    let output = target.attention(&descriptor, &inputs)?;

    let mut computed = Computed::new();
    let leading = &q.shape[..q.shape.len() - 2];
    let shaped = |last: &[u32]| [leading, last].concat();
    computed.insert(
        "o",
        Array {
            shape: shaped(&[seqlen_q, head_dim_v]),
            data: output.out,
        },
    );
    if let Some(lse) = output.lse {
        computed.insert(
            "lse",
            Array {
                shape: shaped(&[seqlen_q]),
                data: lse,
            },
        );
    }
    if let Some(weights) = output.weights {
        computed.insert(
            "probs",
            Array {
                shape: shaped(&[seqlen_q, seqlen_k]),
                data: weights,
            },
        );
    }
    Ok(computed)
}

/// What a case's attributes say of scale, softcap and which keys a query sees.
pub fn rules(tensors: &CaseTensors<'_>) -> anyhow::Result<AttentionDescriptor<'static>> {
    let case = tensors.case;
    let causal = match case.attrs.get("causal").and_then(|value| value.as_str()) {
        None | Some("none") => None,
        Some(name) => Some(alignment(name)?),
    };
    Ok(AttentionDescriptor {
        scale: case.number("scale")?.map(|scale| scale as f32),
        softcap: case
            .number("softcap")?
            .filter(|&softcap| softcap != 0.0)
            .map(|softcap| softcap as f32),
        causal,
        window: window(tensors)?,
        ..Default::default()
    })
}

fn alignment(name: &str) -> anyhow::Result<CausalAlignment> {
    match name {
        "top_left" => Ok(CausalAlignment::UpperLeft),
        "bottom_right" => Ok(CausalAlignment::LowerRight),
        other => bail!("unknown alignment {other:?}"),
    }
}

fn window(tensors: &CaseTensors<'_>) -> anyhow::Result<Option<Window>> {
    let Some(window) = tensors.case.attrs.get("window").filter(|window| !window.is_null()) else {
        return Ok(None);
    };
    let reach = |side: &str| match window.get(side).and_then(|reach| reach.as_i64()) {
        Some(-1) => Ok(None),
        Some(keys) => Ok(Some(u32::try_from(keys)?)),
        None => bail!("the window has no {side}"),
    };
    let name = window.get("align").and_then(|align| align.as_str());
    Ok(Some(Window {
        left: reach("left")?,
        right: reach("right")?,
        alignment: alignment(name.context("the window has no align")?)?,
    }))
}

/// `[batch, heads, rows, channels]` of an operand with two axes (no batch, no head), three (no head grouping: each entry
/// a sequence of one head), four, or five (the leading two a batch).
fn four_axes(array: &Numbers, role: &str) -> anyhow::Result<[u32; 4]> {
    match array.shape[..] {
        [rows, channels] => Ok([1, 1, rows, channels]),
        [batch, rows, channels] => Ok([batch, 1, rows, channels]),
        [batch, heads, rows, channels] => Ok([batch, heads, rows, channels]),
        [outer, batch, heads, rows, channels] => Ok([outer * batch, heads, rows, channels]),
        _ => bail!("{role} has shape {:?}, expected two to five axes", array.shape),
    }
}
