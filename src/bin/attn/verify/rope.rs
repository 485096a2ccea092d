//! `rope` and `onnx.RotaryEmbedding` cases: rotary embedding, forward.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};
use wgpu_attention::{
    Layout, RopeAngles, RopeConfig, RopeDTypes, RopeDescriptor, RopeFrequencies, RopeHostInputs, RopeLayouts,
    RopeLlama3, RopeLongRope, RopePairing, RopePositions, RopeProblem, RopeScaling, RopeYarn, reference,
};

use super::merge::dtype;
use super::oracle::{Array, Case, CaseTensors};
use super::{Computed, Target};

/// Runs a `rope` case: frequencies by a rule of Hugging Face configs, and what they do to `x [batch, heads, rows, channels]`.
pub fn run(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let x = tensors.floats("x")?;
    let sizes = x.axes("x")?;
    let ids = positions(tensors)?.context("no input position_ids")?;
    anyhow::ensure!(
        ids.shape == [sizes[0], sizes[2]],
        "position_ids has shape {:?} for an x of shape {:?}",
        ids.shape,
        x.shape
    );
    let frequencies = frequencies(case, &ids.data)?;
    let descriptor = RopeDescriptor {
        positions: RopePositions::Ids,
        pairing: pairing(case.flag("interleaved")?),
        dtypes: RopeDTypes::all(dtype(&case.dtype)?),
        ..RopeDescriptor::new(sizes, RopeAngles::Frequencies(&frequencies))
    };
    let inputs = RopeHostInputs {
        x: &x.data,
        position_ids: Some(&ids.data),
        ..Default::default()
    };
    let y = rotate(target, &descriptor, &inputs)?;
    let inv_freq: Vec<f32> = frequencies.inv_freq().iter().map(|&value| value as f32).collect();
    Ok(Computed::from([
        (
            "inv_freq",
            Array {
                shape: vec![inv_freq.len() as u32],
                data: inv_freq,
            },
        ),
        (
            "y",
            Array {
                shape: x.shape,
                data: y,
            },
        ),
    ]))
}

/// Runs a `RotaryEmbedding` node: tables by position with `position_ids`, by row without; three axes or four.
pub fn run_onnx(tensors: &CaseTensors<'_>, target: &Target) -> anyhow::Result<Computed> {
    let case = tensors.case;
    let x = tensors.floats("input")?;
    let (cos, sin) = (tensors.floats("cos_cache")?, tensors.floats("sin_cache")?);
    let ids = positions(tensors)?;
    let (sizes, layout) = match x.shape[..] {
        [batch, heads, seqlen, head_dim] => ([batch, heads, seqlen, head_dim], Layout::Bhsd),
        [batch, seqlen, channels] => {
            let heads = case.size("num_heads")?.filter(|&heads| heads > 0);
            let heads = heads.context("an input of three axes needs the attribute num_heads")?;
            anyhow::ensure!(channels.is_multiple_of(heads), "{channels} channels of {heads} heads");
            ([batch, heads, seqlen, channels / heads], Layout::Bshd)
        }
        _ => bail!("input has shape {:?}, expected three or four axes", x.shape),
    };
    let rotary_dim = match case.size("rotary_embedding_dim")? {
        None | Some(0) => sizes[3],
        Some(rotary_dim) => rotary_dim,
    };
    let angles = match (&ids, &cos.shape[..]) {
        (Some(_), &[max_positions, pairs]) if pairs == rotary_dim / 2 => RopeAngles::CacheByPosition {
            rotary_dim,
            max_positions,
        },
        (None, &[batch, seqlen, pairs]) if [batch, seqlen, pairs] == [sizes[0], sizes[2], rotary_dim / 2] => {
            RopeAngles::CacheByRow { rotary_dim }
        }
        _ => bail!(
            "cos_cache has shape {:?} for an input of shape {:?}",
            cos.shape,
            x.shape
        ),
    };
    let storage = dtype(&case.dtype)?;
    let descriptor = RopeDescriptor {
        positions: RopePositions::Ids,
        pairing: pairing(
            case.number("interleaved")?
                .is_some_and(|interleaved| interleaved != 0.0),
        ),
        layouts: RopeLayouts::all(layout),
        dtypes: RopeDTypes::all(storage),
        ..RopeDescriptor::new(sizes, angles)
    };
    let inputs = RopeHostInputs {
        x: &x.data,
        position_ids: ids.as_ref().map(|ids| &ids.data[..]),
        cos: Some(&cos.data),
        sin: Some(&sin.data),
    };
    let data = rotate(target, &descriptor, &inputs)?;
    Ok(Computed::from([("output", Array { shape: x.shape, data })]))
}

/// Rotates on the case's target.
pub fn rotate(
    target: &Target,
    descriptor: &RopeDescriptor<'_>,
    inputs: &RopeHostInputs<'_>,
) -> wgpu_attention::Result<Vec<f32>> {
    match target {
        Target::Gpu { engine, .. } => engine.rope(descriptor, inputs),
        Target::Reference => {
            let rotated = reference::rope(&RopeProblem::new(descriptor)?, inputs)?;
            Ok(rotated.into_iter().map(|value| value as f32).collect())
        }
    }
}

/// The positions, if the case has them.
pub fn positions(tensors: &CaseTensors<'_>) -> anyhow::Result<Option<Array<i32>>> {
    if !tensors.has("position_ids") {
        return Ok(None);
    }
    let Array { shape, data } = tensors.integers("position_ids")?;
    let data = data.into_iter().map(i32::try_from).collect::<Result<_, _>>();
    let data = data.context("position_ids holds a number beyond 32 bits")?;
    Ok(Some(Array { shape, data }))
}

fn pairing(interleaved: bool) -> RopePairing {
    match interleaved {
        true => RopePairing::Interleaved,
        false => RopePairing::HalfSplit,
    }
}

/// By the attribute `rope`, which holds what a Hugging Face config does.
fn frequencies(case: &Case, positions: &[i32]) -> anyhow::Result<RopeFrequencies> {
    let parameters = match case.attrs.get("rope") {
        Some(Value::Object(parameters)) => Parameters(parameters),
        other => bail!("attribute rope is {other:?}, no object"),
    };
    let rotary_dim = case.size("rotary_dim")?.context("no attribute rotary_dim")?;
    let (long_factor, short_factor) = (parameters.list("long_factor")?, parameters.list("short_factor")?);
    let factor = || parameters.number("factor")?.context("no factor");
    let original_max_position_embeddings = parameters.size("original_max_position_embeddings")?;
    let scaling = match parameters.0.get("rope_type").and_then(Value::as_str) {
        None | Some("default") => RopeScaling::Default,
        Some("linear") => RopeScaling::Linear { factor: factor()? },
        Some("dynamic") => RopeScaling::Dynamic { factor: factor()? },
        Some("proportional") => RopeScaling::Proportional {
            factor: parameters.number("factor")?.unwrap_or(1.0),
        },
        Some("yarn") => RopeScaling::Yarn(RopeYarn {
            factor: parameters.number("factor")?,
            original_max_position_embeddings,
            attention_factor: parameters.number("attention_factor")?,
            beta_fast: parameters.number("beta_fast")?,
            beta_slow: parameters.number("beta_slow")?,
            mscale: parameters.number("mscale")?,
            mscale_all_dim: parameters.number("mscale_all_dim")?,
            truncate: parameters.0.get("truncate").and_then(Value::as_bool).unwrap_or(true),
        }),
        Some("longrope") => RopeScaling::LongRope(RopeLongRope {
            long_factor: &long_factor,
            short_factor: &short_factor,
            factor: parameters.number("factor")?,
            original_max_position_embeddings,
            attention_factor: parameters.number("attention_factor")?,
        }),
        Some("llama3") => RopeScaling::Llama3(RopeLlama3 {
            factor: factor()?,
            low_freq_factor: parameters.number("low_freq_factor")?.context("no low_freq_factor")?,
            high_freq_factor: parameters.number("high_freq_factor")?.context("no high_freq_factor")?,
            original_max_position_embeddings,
        }),
        Some(other) => bail!("unknown rope_type {other:?}"),
    };
    let largest = positions.iter().copied().max().unwrap_or(0);
    let config = RopeConfig {
        partial_rotary_factor: match scaling {
            RopeScaling::Proportional { .. } => parameters.number("partial_rotary_factor")?.unwrap_or(1.0),
            _ => 1.0,
        },
        theta: parameters.number("rope_theta")?.unwrap_or(10_000.0),
        scaling,
        max_position_embeddings: case.size("max_position_embeddings")?,
        seq_len: u32::try_from(largest).ok().map(|largest| largest + 1),
        ..RopeConfig::new(rotary_dim)
    };
    Ok(RopeFrequencies::new(&config)?)
}

/// The numbers of a config; absent and null are `None`.
struct Parameters<'a>(&'a Map<String, Value>);

impl Parameters<'_> {
    fn number(&self, name: &str) -> anyhow::Result<Option<f64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .with_context(|| format!("{name} is {value}, no number")),
        }
    }

    fn size(&self, name: &str) -> anyhow::Result<Option<u32>> {
        let Some(number) = self.number(name)? else {
            return Ok(None);
        };
        let whole = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        anyhow::ensure!(whole, "{name} is {number}, no size");
        Ok(Some(number as u32))
    }

    fn list(&self, name: &str) -> anyhow::Result<Vec<f64>> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(value) => {
                serde_json::from_value(value.clone()).with_context(|| format!("{name} is no list of numbers"))
            }
        }
    }
}
