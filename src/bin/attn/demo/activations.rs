//! The embedded activations of a real encoder: see README.md beside this file.

use anyhow::Context as _;
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("minilm.safetensors");

/// Layers that are embedded.
pub const LAYERS: [u32; 3] = [0, 2, 4];

/// Queries, keys and values of one layer, `[heads, tokens, head_dim]`.
pub struct Activations {
    pub tokens: Vec<String>,
    pub sentence: String,
    pub model: String,
    pub heads: u32,
    pub head_dim: u32,
    pub query: Vec<f32>,
    pub key: Vec<f32>,
    pub value: Vec<f32>,
}

impl Activations {
    /// Those of one of [`LAYERS`].
    pub fn of_layer(layer: u32) -> anyhow::Result<Self> {
        let (_, metadata) = SafeTensors::read_metadata(FILE)?;
        let notes = metadata.metadata().as_ref().context("the embedded file has no notes")?;
        let note = |name: &str| {
            notes
                .get(name)
                .with_context(|| format!("the embedded file has no {name}"))
        };
        let tokens: Vec<String> = note("tokens")?.split(' ').map(str::to_owned).collect();
        let tensors = SafeTensors::deserialize(FILE)?;
        let numbers = |name: &str| -> anyhow::Result<(Vec<usize>, Vec<f32>)> {
            let tensor = tensors
                .tensor(&format!("layer{layer}.{name}"))
                .with_context(|| format!("layer {layer} is not embedded; there are {LAYERS:?}"))?;
            Ok((tensor.shape().to_vec(), bytemuck::pod_collect_to_vec(tensor.data())))
        };
        let (shape, query) = numbers("query")?;
        let [heads, rows, head_dim] = shape[..] else {
            anyhow::bail!("queries of shape {shape:?}")
        };
        anyhow::ensure!(rows == tokens.len(), "{rows} rows, but {} tokens", tokens.len());
        Ok(Self {
            sentence: note("sentence")?.clone(),
            model: note("model")?.clone(),
            tokens,
            heads: u32::try_from(heads)?,
            head_dim: u32::try_from(head_dim)?,
            query,
            key: numbers("key")?.1,
            value: numbers("value")?.1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layer_is_there() {
        for layer in LAYERS {
            let activations = Activations::of_layer(layer).unwrap();
            assert_eq!(activations.tokens.len(), 8);
            assert_eq!(
                activations.query.len(),
                (activations.heads * 8 * activations.head_dim) as usize
            );
        }
        assert!(Activations::of_layer(1).is_err());
    }
}
