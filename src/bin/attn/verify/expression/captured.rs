//! Inputs that expressions read.

use anyhow::{Context as _, bail, ensure};
use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use wgpu_attention::{Capture, CaptureElement};

use super::types::Type;

/// An input of a case, contiguous, the last axis fastest.
#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    /// Its name in the case.
    pub role: String,
    /// Its sizes; none is 0.
    pub shape: Vec<u32>,
    /// Its elements.
    pub values: Values,
}

/// The elements of a captured input.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// As the CPU reference reads them; the GPU reads them rounded to `f32`.
    Float(Vec<f64>),
    /// Integers.
    Int(Vec<i32>),
    /// Booleans.
    Bool(Vec<bool>),
}

impl Captured {
    /// Reads a tensor of floats, integers or booleans.
    pub fn read(role: &str, tensor: &TensorView<'_>) -> anyhow::Result<Self> {
        let bytes = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F64 => Values::Float(collect(bytes, f64::from_le_bytes)),
            Dtype::F32 => Values::Float(collect(bytes, |bytes| f32::from_le_bytes(bytes).into())),
            Dtype::F16 => Values::Float(collect(bytes, |bytes| f16::from_le_bytes(bytes).into())),
            Dtype::BF16 => Values::Float(collect(bytes, |bytes| bf16::from_le_bytes(bytes).into())),
            Dtype::I32 => Values::Int(collect(bytes, i32::from_le_bytes)),
            Dtype::I64 => Values::Int(narrow(role, &collect(bytes, i64::from_le_bytes))?),
            Dtype::BOOL => Values::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
            other => bail!("{role} is {other:?}, expected F64, F32, F16, BF16, I64, I32 or BOOL"),
        };
        let sizes = tensor.shape().iter().map(|&size| u32::try_from(size));
        let shape: Vec<u32> = sizes
            .collect::<Result<_, _>>()
            .with_context(|| format!("{role} has shape {:?}, expected 32-bit sizes", tensor.shape()))?;
        ensure!(
            !shape.contains(&0),
            "{role} has shape {shape:?}, expected no size of 0: its elements are indexed"
        );
        let elements: usize = tensor.shape().iter().product();
        ensure!(
            elements <= i32::MAX as usize,
            "{role} has {elements} elements, expected 32-bit indexes"
        );
        Ok(Self {
            role: role.to_owned(),
            shape,
            values,
        })
    }

    /// What the WGSL calls it. The prefix keeps it apart from the engine's own names, such as `bias` and `mask`.
    pub fn wgsl_name(&self) -> String {
        format!("captured_{}", self.role)
    }

    /// What the WGSL's array holds: booleans are `u32`, 0 or 1.
    pub fn element(&self) -> CaptureElement {
        match self.values {
            Values::Float(_) => CaptureElement::F32,
            Values::Int(_) => CaptureElement::I32,
            Values::Bool(_) => CaptureElement::U32,
        }
    }

    /// The capture of a call, under the name that [`wgsl_name`](Self::wgsl_name) gave.
    pub fn capture<'a>(&self, wgsl_name: &'a str) -> Capture<'a> {
        Capture {
            name: wgsl_name,
            element: self.element(),
            len: self.shape.iter().product(),
        }
    }

    /// The elements as the WGSL reads them, for a storage buffer: four bytes each.
    pub fn bytes(&self) -> Vec<u8> {
        match &self.values {
            Values::Float(values) => values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect(),
            Values::Int(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Values::Bool(values) => values
                .iter()
                .flat_map(|&value| u32::from(value).to_le_bytes())
                .collect(),
        }
    }

    pub(super) fn element_type(&self) -> Type {
        match self.values {
            Values::Float(_) => Type::Float,
            Values::Int(_) => Type::Int,
            Values::Bool(_) => Type::Bool,
        }
    }
}

fn narrow(role: &str, wide: &[i64]) -> anyhow::Result<Vec<i32>> {
    wide.iter()
        .map(|&value| i32::try_from(value).with_context(|| format!("{role} has the element {value}, expected an i32")))
        .collect()
}

fn collect<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
}
