//! Reading an oracle folder: `manifest.json` and safetensors files, as the folder's README says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;
use wgpu_attention::HostTensor;

/// The folder's table of contents.
#[derive(Deserialize)]
pub struct Manifest {
    format: u32,
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Clone, Deserialize)]
pub struct Case {
    pub name: String,
    pub set: String,
    pub file: String,
    pub op: String,
    #[serde(default)]
    pub features: Vec<String>,
    pub dtype: String,
    #[serde(default)]
    pub attrs: BTreeMap<String, Value>,
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    #[serde(default)]
    pub tol: BTreeMap<String, CaseTolerance>,
    #[serde(default)]
    pub optional: bool,
}

/// How far an output may be off: `|got - want| <= atol + rtol * |want|`.
#[derive(Clone, Copy, Default, Deserialize)]
pub struct CaseTolerance {
    pub atol: f64,
    pub rtol: f64,
}

impl Case {
    /// An attribute that is a number; absent and null are `None`.
    pub fn number(&self, name: &str) -> anyhow::Result<Option<f64>> {
        match self.attrs.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .with_context(|| format!("attribute {name} is {value}, no number")),
        }
    }

    /// An attribute that is a text; absent and null are `None`.
    pub fn text(&self, name: &str) -> anyhow::Result<Option<&str>> {
        match self.attrs.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_str()
                .map(Some)
                .with_context(|| format!("attribute {name} is {value}, no text")),
        }
    }

    /// An attribute that is true or false; absent and null are false.
    pub fn flag(&self, name: &str) -> anyhow::Result<bool> {
        match self.attrs.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(value) => value
                .as_bool()
                .with_context(|| format!("attribute {name} is {value}, not true or false")),
        }
    }

    /// An attribute that is a size.
    pub fn size(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let Some(number) = self.number(name)? else {
            return Ok(None);
        };
        let whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        anyhow::ensure!(whole, "attribute {name} is {number}, no size");
        Ok(Some(number as u32))
    }
}

/// A tensor of a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Array<T> {
    pub shape: Vec<u32>,
    pub data: Vec<T>,
}

impl<T> Array<T> {
    /// The shape as a fixed number of axes.
    pub fn axes<const N: usize>(&self, role: &str) -> anyhow::Result<[u32; N]> {
        <[u32; N]>::try_from(&self.shape[..])
            .map_err(|_| anyhow::anyhow!("{role} has shape {:?}, expected {N} axes", self.shape))
    }
}

/// A boolean or a float mask.
pub enum MaskArray {
    Boolean(Array<u8>),
    Float(Array<f32>),
}

/// Numbers in the type that they are stored in.
pub struct Numbers {
    pub shape: Vec<u32>,
    data: NumberData,
}

enum NumberData {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Numbers {
    /// For a call.
    pub fn host(&self) -> HostTensor<'_> {
        match &self.data {
            NumberData::F32(data) => data.into(),
            NumberData::F16(data) => data.into(),
            NumberData::Bf16(data) => data.into(),
        }
    }
}

/// An oracle folder; files are read when first asked for.
pub struct Folder {
    path: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Folder {
    /// Reads the manifest.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Manifest)> {
        let manifest = path.join("manifest.json");
        let text = fs::read(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).with_context(|| format!("{} is no oracle manifest", manifest.display()))?;
        anyhow::ensure!(
            manifest.format == 1,
            "the manifest has format {}, expected 1",
            manifest.format
        );
        Ok((
            Self {
                path: path.to_owned(),
                files: BTreeMap::new(),
            },
            manifest,
        ))
    }

    /// The tensors of a case.
    pub fn tensors<'a>(&'a mut self, case: &'a Case) -> anyhow::Result<CaseTensors<'a>> {
        if !self.files.contains_key(&case.file) {
            let plain = Path::new(&case.file).components().count() == 1;
            anyhow::ensure!(plain, "the file {:?} is not in the folder", case.file);
            let path = self.path.join(&case.file);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            self.files.insert(case.file.clone(), bytes);
        }
        let tensors = SafeTensors::deserialize(&self.files[&case.file])
            .with_context(|| format!("{} is no safetensors file", case.file))?;
        Ok(CaseTensors { case, tensors })
    }
}

/// The tensors of one case, by role.
pub struct CaseTensors<'a> {
    pub case: &'a Case,
    tensors: SafeTensors<'a>,
}

impl CaseTensors<'_> {
    /// Whether an input is there.
    pub fn has(&self, role: &str) -> bool {
        self.case.inputs.contains_key(role)
    }

    /// An input as it is stored.
    pub fn view(&self, role: &str) -> anyhow::Result<TensorView<'_>> {
        let name = self.case.inputs.get(role).with_context(|| format!("no input {role}"))?;
        self.tensors
            .tensor(name)
            .with_context(|| format!("{role}: no tensor {name}"))
    }

    /// An input that must be there.
    pub fn floats(&self, role: &str) -> anyhow::Result<Array<f32>> {
        self.optional_floats(role)?.with_context(|| format!("no input {role}"))
    }

    /// An input of numbers.
    pub fn optional_floats(&self, role: &str) -> anyhow::Result<Option<Array<f32>>> {
        self.find(&self.case.inputs, role, |tensor| {
            Ok(match tensor.0 {
                Dtype::F32 => bytemuck::pod_collect_to_vec(tensor.1),
                Dtype::F16 => collect(tensor.1, |bytes| f16::from_le_bytes(bytes).to_f32()),
                Dtype::BF16 => collect(tensor.1, |bytes| bf16::from_le_bytes(bytes).to_f32()),
                other => bail!("{role} is {other:?}, expected a float type"),
            })
        })
    }

    /// An input that must be there, in the type that it is stored in (`f64` becomes `f32`).
    pub fn numbers(&self, role: &str) -> anyhow::Result<Numbers> {
        self.optional_numbers(role)?.with_context(|| format!("no input {role}"))
    }

    /// An input in the type that it is stored in (`f64` becomes `f32`).
    pub fn optional_numbers(&self, role: &str) -> anyhow::Result<Option<Numbers>> {
        let Some(name) = self.case.inputs.get(role) else {
            return Ok(None);
        };
        let tensor = self
            .tensors
            .tensor(name)
            .with_context(|| format!("{role}: no tensor {name}"))?;
        let data = tensor.data();
        let data = match tensor.dtype() {
            Dtype::F64 => NumberData::F32(collect(data, |bytes| f64::from_le_bytes(bytes) as f32)),
            Dtype::F32 => NumberData::F32(collect(data, f32::from_le_bytes)),
            Dtype::F16 => NumberData::F16(collect(data, f16::from_le_bytes)),
            Dtype::BF16 => NumberData::Bf16(collect(data, bf16::from_le_bytes)),
            other => bail!("{role} is {other:?}, expected a float type"),
        };
        let sizes = tensor.shape().iter().map(|&size| u32::try_from(size));
        let shape = sizes
            .collect::<Result<_, _>>()
            .with_context(|| format!("{role} is too large"))?;
        Ok(Some(Numbers { shape, data }))
    }

    /// An input of indexes or lengths, none below 0.
    pub fn words(&self, role: &str) -> anyhow::Result<Array<u32>> {
        let words = self.find(&self.case.inputs, role, |(dtype, data)| {
            let words: Vec<i64> = match dtype {
                Dtype::I32 => collect(data, |bytes| i32::from_le_bytes(bytes).into()),
                Dtype::I64 => collect(data, i64::from_le_bytes),
                other => bail!("{role} is {other:?}, expected an integer type"),
            };
            let words = words.into_iter().map(u32::try_from);
            words
                .collect::<Result<_, _>>()
                .with_context(|| format!("{role} holds a number below 0 or too large"))
        })?;
        words.with_context(|| format!("no input {role}"))
    }

    /// An input of whole numbers that must be there.
    pub fn integers(&self, role: &str) -> anyhow::Result<Array<i64>> {
        let found = self.find(&self.case.inputs, role, |tensor| {
            Ok(match tensor.0 {
                Dtype::I64 => bytemuck::pod_collect_to_vec(tensor.1),
                Dtype::I32 => collect(tensor.1, |bytes| i64::from(i32::from_le_bytes(bytes))),
                other => bail!("{role} is {other:?}, expected I32 or I64"),
            })
        })?;
        found.with_context(|| format!("no input {role}"))
    }

    /// An input of booleans as bytes.
    pub fn booleans(&self, role: &str) -> anyhow::Result<Array<u8>> {
        match self.mask(role)? {
            Some(MaskArray::Boolean(mask)) => Ok(mask),
            Some(MaskArray::Float(_)) => bail!("{role} is a float tensor, expected BOOL"),
            None => bail!("no input {role}"),
        }
    }

    /// A mask if it is boolean.
    pub fn boolean_mask(&self, role: &str) -> anyhow::Result<Option<Array<u8>>> {
        Ok(match self.mask(role)? {
            Some(MaskArray::Boolean(mask)) => Some(mask),
            _ => None,
        })
    }

    /// An input that is a boolean or a float mask.
    pub fn mask(&self, role: &str) -> anyhow::Result<Option<MaskArray>> {
        let Some(name) = self.case.inputs.get(role) else {
            return Ok(None);
        };
        let dtype = self
            .tensors
            .tensor(name)
            .with_context(|| format!("{role}: no tensor {name}"))?
            .dtype();
        if dtype != Dtype::BOOL {
            return Ok(self.optional_floats(role)?.map(MaskArray::Float));
        }
        let mask = self.find(&self.case.inputs, role, |tensor| Ok(tensor.1.to_vec()))?;
        Ok(mask.map(MaskArray::Boolean))
    }

    /// An expected output in `f64`.
    pub fn expected(&self, role: &str) -> anyhow::Result<Array<f64>> {
        let found = self.find(&self.case.outputs, role, |tensor| {
            Ok(match tensor.0 {
                Dtype::F64 => bytemuck::pod_collect_to_vec(tensor.1),
                Dtype::F32 => collect(tensor.1, |bytes| f64::from(f32::from_le_bytes(bytes))),
                Dtype::F16 => collect(tensor.1, |bytes| f16::from_le_bytes(bytes).to_f64()),
                Dtype::BF16 => collect(tensor.1, |bytes| bf16::from_le_bytes(bytes).to_f64()),
                Dtype::I32 => collect(tensor.1, |bytes| f64::from(i32::from_le_bytes(bytes))),
                Dtype::I64 => collect(tensor.1, |bytes| i64::from_le_bytes(bytes) as f64),
                other => bail!("output {role} is {other:?}, expected a float type"),
            })
        })?;
        found.with_context(|| format!("no output {role}"))
    }

    fn find<T>(
        &self,
        roles: &BTreeMap<String, String>,
        role: &str,
        read: impl Fn((Dtype, &[u8])) -> anyhow::Result<Vec<T>>,
    ) -> anyhow::Result<Option<Array<T>>> {
        let Some(name) = roles.get(role) else { return Ok(None) };
        let tensor = self
            .tensors
            .tensor(name)
            .with_context(|| format!("{role}: no tensor {name}"))?;
        let sizes = tensor.shape().iter().map(|&size| u32::try_from(size));
        let shape = sizes
            .collect::<Result<_, _>>()
            .with_context(|| format!("{role} is too large"))?;
        Ok(Some(Array {
            shape,
            data: read((tensor.dtype(), tensor.data()))?,
        }))
    }
}

fn collect<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| convert(chunk)).collect()
}
