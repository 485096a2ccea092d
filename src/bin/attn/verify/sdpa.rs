//! `sdpa` cases: scaled dot-product attention, forward.

use anyhow::bail;
use wgpu_attention::{AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, HostInputs, Outputs};

use super::oracle::{Array, CaseTensors, MaskArray};
use super::{Computed, Outcome, Target};

/// Runs a case; `Err` is an unreadable case.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Result<Computed, Outcome>> {
    let case = tensors.case;
    if let Some(reason) = unsupported(tensors)? {
        return Ok(Err(Outcome::Unsupported(reason)));
    }
    let [q, k, v] = [tensors.floats("q")?, tensors.floats("k")?, tensors.floats("v")?];
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
    let mask = tensors.mask("mask")?;
    let (boolean, float) = match &mask {
        None => (None, None),
        Some(MaskArray::Boolean(mask)) => (Some(mask), None),
        Some(MaskArray::Float(bias)) => (None, Some(bias)),
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
        scale: case.number("scale")?.map(|scale| scale as f32),
        causal: causal(tensors)?,
        mask: boolean.map(|mask| Broadcast::right_aligned(&mask.shape)).transpose()?,
        bias: float.map(|bias| Broadcast::right_aligned(&bias.shape)).transpose()?,
        outputs: Outputs {
            lse: true,
            weights: case.outputs.contains_key("probs"),
        },
        algorithm: target.algorithm(case.outputs.contains_key("probs")),
        ..Default::default()
    };
    let inputs = HostInputs {
        query: &q.data,
        key: &k.data,
        value: &v.data,
        mask: boolean.map(|mask| &mask.data[..]),
        bias: float.map(|bias| &bias.data[..]),
        key_padding: None,
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
    Ok(Ok(computed))
}

fn unsupported(tensors: &CaseTensors<'_>) -> anyhow::Result<Option<String>> {
    let case = tensors.case;
    let reason = if case.dtype != "f32" {
        Some(format!("storage type {}", case.dtype))
    } else if case.number("softcap")?.is_some_and(|softcap| softcap != 0.0) {
        Some("softcap".into())
    } else if case.attrs.get("window").is_some_and(|window| !window.is_null()) {
        Some("sliding window".into())
    } else {
        let roles = [("sinks", "attention sinks"), ("dropout_keep", "dropout")];
        roles
            .into_iter()
            .find_map(|(role, feature)| tensors.has(role).then(|| feature.to_owned()))
    };
    Ok(reason)
}

fn causal(tensors: &CaseTensors<'_>) -> anyhow::Result<Option<CausalAlignment>> {
    match tensors.case.attrs.get("causal").and_then(|value| value.as_str()) {
        None | Some("none") => Ok(None),
        Some("top_left") => Ok(Some(CausalAlignment::UpperLeft)),
        Some("bottom_right") => Ok(Some(CausalAlignment::LowerRight)),
        Some(other) => bail!("unknown causal rule {other:?}"),
    }
}

/// `[batch, heads, rows, channels]` of an operand with two axes (no batch, no head), three (no head grouping: each entry
/// a sequence of one head), four, or five (the leading two a batch).
fn four_axes(array: &Array<f32>, role: &str) -> anyhow::Result<[u32; 4]> {
    match array.shape[..] {
        [rows, channels] => Ok([1, 1, rows, channels]),
        [batch, rows, channels] => Ok([batch, 1, rows, channels]),
        [batch, heads, rows, channels] => Ok([batch, heads, rows, channels]),
        [outer, batch, heads, rows, channels] => Ok([outer * batch, heads, rows, channels]),
        _ => bail!("{role} has shape {:?}, expected two to five axes", array.shape),
    }
}
