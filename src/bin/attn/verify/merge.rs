//! `merge_states` cases: partial attention results joined by their log-sum-exp.

use anyhow::bail;
use wgpu_attention::{DType, MergeStatesDescriptor, reference};

use super::oracle::{Array, CaseTensors};
use super::{Computed, Target};

/// Runs a case: `o_parts [parts, heads, seqlen_q, head_dim_v]` and `lse_parts`, which may have a batch behind the parts.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let (out_parts, lse_parts) = (tensors.floats("o_parts")?, tensors.floats("lse_parts")?);
    let (parts, batch, heads, seqlen_q, head_dim_v) = match out_parts.shape[..] {
        [parts, heads, rows, channels] => (parts, 1, heads, rows, channels),
        [parts, batch, heads, rows, channels] => (parts, batch, heads, rows, channels),
        _ => bail!("o_parts has shape {:?}, expected four or five axes", out_parts.shape),
    };
    let out_shape = &out_parts.shape[1..];
    if out_parts.shape[..out_parts.shape.len() - 1] != lse_parts.shape {
        let (out, lse) = (&out_parts.shape, &lse_parts.shape);
        bail!("o_parts {out:?} and lse_parts {lse:?} do not fit together");
    }
    let dtype = dtype(&tensors.case.dtype)?;
    let descriptor = MergeStatesDescriptor {
        parts_dtype: dtype,
        out_dtype: dtype,
        ..MergeStatesDescriptor::new(parts, batch, heads, seqlen_q, head_dim_v)
    };
    let (out, lse) = match target {
        Target::Gpu { engine, .. } => {
            let merged = engine.merge_states(&descriptor, &out_parts.data, &lse_parts.data)?;
            (merged.out, merged.lse)
        }
        Target::Reference => {
            let merged = reference::merge_states(&descriptor, &out_parts.data, &lse_parts.data)?;
            let single = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
            (single(merged.out), single(merged.lse))
        }
    };
    let lse_shape = &out_shape[..out_shape.len() - 1];
    let array = |shape: &[u32], data| Array {
        shape: shape.to_vec(),
        data,
    };
    Ok(Computed::from([
        ("o", array(out_shape, out)),
        ("lse", array(lse_shape, lse)),
    ]))
}

/// A storage type by the name that the folder uses.
pub fn dtype(name: &str) -> anyhow::Result<DType> {
    let known = DType::ALL.into_iter().find(|dtype| dtype.to_string() == name);
    match known {
        Some(dtype) => Ok(dtype),
        None => bail!("unknown storage type {name:?}"),
    }
}
