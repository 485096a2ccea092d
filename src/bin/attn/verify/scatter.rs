//! `onnx.TensorScatter` cases: new rows into a cache.

use anyhow::bail;
use wgpu_attention::{ScatterMode, TensorScatterDescriptor, reference};

use super::merge::dtype;
use super::oracle::{Array, CaseTensors};
use super::{Computed, Target};

/// Runs a case.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let (past, update) = (tensors.floats("past_cache")?, tensors.floats("update")?);
    let indices = match tensors.has("write_indices") {
        true => Some(tensors.integers("write_indices")?),
        false => None,
    };
    let mode = match case.attrs.get("mode").and_then(|mode| mode.as_str()) {
        None | Some("linear") => ScatterMode::Linear,
        Some("circular") => ScatterMode::Circular,
        Some(other) => bail!("unknown mode {other:?}"),
    };
    let axis = match case.number("axis")? {
        None => -2,
        Some(axis) if axis.fract() == 0.0 => axis as i64,
        Some(axis) => bail!("attribute axis is {axis}, no whole number"),
    };
    let descriptor = TensorScatterDescriptor {
        dtype: dtype(&case.dtype)?,
        mode,
        write_indices: indices.is_some(),
        ..TensorScatterDescriptor::from_shapes(&past.shape, &update.shape, axis)?
    };
    let indices = indices.as_ref().map(|indices| &indices.data[..]);
    let data = match target {
        Target::Gpu { engine, .. } => engine.tensor_scatter(&descriptor, &past.data, &update.data, indices)?,
        Target::Reference => reference::tensor_scatter(&descriptor, &past.data, &update.data, indices)?,
    };
    let shape = past.shape;
    Ok(Computed::from([("present_cache", Array { shape, data })]))
}
