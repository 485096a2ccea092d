//! The weights of a multi-head block: PyTorch's names and layout.

use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Operand, Result};

/// The parameters of `nn.MultiheadAttention` on the host. Every weight is `[out_features, in_features]`, row by row: a
/// projection is `y = x Wᵀ + b`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MultiHeadParameters {
    /// W_q, `[embed_dim, embed_dim]`.
    pub query_weight: Vec<f32>,
    /// W_k, `[embed_dim, key_dim]`.
    pub key_weight: Vec<f32>,
    /// W_v, `[embed_dim, value_dim]`.
    pub value_weight: Vec<f32>,
    /// W_o, `[embed_dim, embed_dim]`.
    pub out_weight: Vec<f32>,
    /// `[embed_dim]`.
    pub query_bias: Option<Vec<f32>>,
    /// `[embed_dim]`.
    pub key_bias: Option<Vec<f32>>,
    /// `[embed_dim]`.
    pub value_bias: Option<Vec<f32>>,
    /// `[embed_dim]`.
    pub out_bias: Option<Vec<f32>>,
    /// A learned key and value, `[embed_dim]` each, that every query sees after the others (PyTorch's `add_bias_kv`).
    pub appended: Option<[Vec<f32>; 2]>,
}

/// The sizes of a multi-head block.
///
/// The lesson's shape, 8 heads of 64 channels, is `MultiHeadDescriptor::new(512, 8)`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MultiHeadDescriptor<'a> {
    /// Name for debugging.
    pub label: Option<&'a str>,
    /// Channels of query and output; each head has `embed_dim / heads`.
    pub embed_dim: u32,
    /// Number of heads.
    pub heads: u32,
    /// Channels of the key input.
    pub key_dim: u32,
    /// Channels of the value input.
    pub value_dim: u32,
    /// Append a key and a value of zeros that every query sees (PyTorch's `add_zero_attn`).
    pub add_zero_attn: bool,
}

impl MultiHeadDescriptor<'_> {
    /// Keys and values with as many channels as queries, nothing appended.
    pub const fn new(embed_dim: u32, heads: u32) -> Self {
        Self {
            label: None,
            embed_dim,
            heads,
            key_dim: embed_dim,
            value_dim: embed_dim,
            add_zero_attn: false,
        }
    }

    /// Channels of one head.
    pub fn head_dim(&self) -> u32 {
        self.embed_dim.checked_div(self.heads).unwrap_or(0)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (dimension, size) in [
            ("embed_dim", self.embed_dim),
            ("heads", self.heads),
            ("key_dim", self.key_dim),
            ("value_dim", self.value_dim),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
        }
        if !self.embed_dim.is_multiple_of(self.heads) {
            return Err(Error::EmbedDimNotDivisible {
                embed_dim: self.embed_dim,
                heads: self.heads,
            });
        }
        Ok(())
    }
}

impl MultiHeadParameters {
    /// Reads the parameters of one `nn.MultiheadAttention` from a safetensors file's bytes. `prefix` is what stands before
    /// `in_proj_weight` in the names, `"encoder.layers.0.self_attn."` for instance, or nothing.
    ///
    /// # Errors
    /// [`Error::StateDict`] names the tensor that is missing, or of a wrong shape or type (`F32` is the only one read).
    pub fn from_safetensors(bytes: &[u8], prefix: &str, descriptor: &MultiHeadDescriptor<'_>) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::StateDict {
            name: "(the file)".into(),
            problem: error.to_string(),
        })?;
        Self::from_state_dict(&tensors, prefix, descriptor)
    }

    /// As [`from_safetensors`](Self::from_safetensors), from a file that is parsed already.
    pub fn from_state_dict(
        tensors: &SafeTensors<'_>,
        prefix: &str,
        descriptor: &MultiHeadDescriptor<'_>,
    ) -> Result<Self> {
        descriptor.validate()?;
        let dict = StateDict { tensors, prefix };
        let embed = descriptor.embed_dim as usize;
        let (key_dim, value_dim) = (descriptor.key_dim as usize, descriptor.value_dim as usize);
        let [query_weight, key_weight, value_weight] = match dict.find("in_proj_weight", &[3 * embed, embed])? {
            Some(stacked) => thirds(&stacked),
            None => [
                dict.get("q_proj_weight", &[embed, embed])?,
                dict.get("k_proj_weight", &[embed, key_dim])?,
                dict.get("v_proj_weight", &[embed, value_dim])?,
            ],
        };
        let [query_bias, key_bias, value_bias] = match dict.find("in_proj_bias", &[3 * embed])? {
            Some(stacked) => thirds(&stacked).map(Some),
            None => [None, None, None],
        };
        let appended = match dict.find("bias_k", &[1, 1, embed])? {
            Some(key) => Some([key, dict.get("bias_v", &[1, 1, embed])?]),
            None => None,
        };
        let parameters = Self {
            query_weight,
            key_weight,
            value_weight,
            out_weight: dict.get("out_proj.weight", &[embed, embed])?,
            query_bias,
            key_bias,
            value_bias,
            out_bias: dict.find("out_proj.bias", &[embed])?,
            appended,
        };
        parameters.validate(descriptor)?;
        Ok(parameters)
    }

    /// Keys that a block with these parameters appends to those of a call.
    pub(crate) fn appended_keys(&self, descriptor: &MultiHeadDescriptor<'_>) -> u32 {
        u32::from(self.appended.is_some()) + u32::from(descriptor.add_zero_attn)
    }

    pub(crate) fn validate(&self, descriptor: &MultiHeadDescriptor<'_>) -> Result<()> {
        descriptor.validate()?;
        let embed = u64::from(descriptor.embed_dim);
        let mut lengths = vec![
            (self.query_weight.len(), embed * embed),
            (self.key_weight.len(), embed * u64::from(descriptor.key_dim)),
            (self.value_weight.len(), embed * u64::from(descriptor.value_dim)),
            (self.out_weight.len(), embed * embed),
        ];
        let biases = [&self.query_bias, &self.key_bias, &self.value_bias, &self.out_bias];
        lengths.extend(biases.into_iter().flatten().map(|bias| (bias.len(), embed)));
        lengths.extend(self.appended.iter().flatten().map(|row| (row.len(), embed)));
        for (actual, expected) in lengths {
            if actual as u64 != expected {
                return Err(Error::Length {
                    operand: Operand::Projection,
                    actual: actual as u64,
                    expected,
                });
            }
        }
        Ok(())
    }
}

fn thirds(stacked: &[f32]) -> [Vec<f32>; 3] {
    let third = stacked.len() / 3;
    [0, 1, 2].map(|index| stacked[index * third..(index + 1) * third].to_vec())
}

struct StateDict<'a> {
    tensors: &'a SafeTensors<'a>,
    prefix: &'a str,
}

impl StateDict<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.find(name, shape)?.ok_or_else(|| Error::StateDict {
            name: format!("{}{name}", self.prefix),
            problem: format!("is missing, expected shape {shape:?}"),
        })
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let name = format!("{}{name}", self.prefix);
        let Ok(tensor) = self.tensors.tensor(&name) else {
            return Ok(None);
        };
        if tensor.dtype() != Dtype::F32 {
            let problem = format!("is {:?}, expected F32", tensor.dtype());
            return Err(Error::StateDict { name, problem });
        }
        if tensor.shape() != shape {
            let problem = format!("has shape {:?}, expected {shape:?}", tensor.shape());
            return Err(Error::StateDict { name, problem });
        }
        Ok(Some(bytemuck::pod_collect_to_vec(tensor.data())))
    }
}
