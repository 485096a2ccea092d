//! How fast each pair of channels turns: inverse frequencies and the scaling rules of Hugging Face configs, in `f64`.
//!
//! The formulas are those of `modeling_rope_utils.py` in Hugging Face transformers 5.24, which computes them in `f32`.

use crate::error::{Error, Result};

/// The part of a model's config that rotary embedding depends on, under the names that Hugging Face configs use.
///
/// ```
/// use wgpu_attention::{RopeConfig, RopeFrequencies, RopeLlama3, RopeScaling};
///
/// // Llama 3.1: heads of 128.
/// let frequencies = RopeFrequencies::new(&RopeConfig {
///     theta: 500_000.0,
///     max_position_embeddings: Some(131_072),
///     scaling: RopeScaling::Llama3(RopeLlama3 {
///         factor: 8.0,
///         low_freq_factor: 1.0,
///         high_freq_factor: 4.0,
///         original_max_position_embeddings: Some(8192),
///     }),
///     ..RopeConfig::new(128)
/// })?;
/// assert_eq!(frequencies.inv_freq().len(), 64);
/// assert_eq!(frequencies.inv_freq()[0], 1.0);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig<'a> {
    /// Channels of one head.
    pub head_dim: u32,
    /// Share of the channels that rotate: the first `floor(head_dim * partial_rotary_factor)` of them, which must be even.
    pub partial_rotary_factor: f64,
    /// Base of the wavelengths, `rope_theta`.
    pub theta: f64,
    /// The scaling rule, `rope_type` with its parameters.
    pub scaling: RopeScaling<'a>,
    /// The longest sequence that the model was made for. Dynamic scaling needs it, and others whose own length or factor is
    /// `None`.
    pub max_position_embeddings: Option<u32>,
    /// Length of the sequence at hand, the largest position plus 1. Dynamic scaling and LongRoPE depend on it; `None` is a
    /// sequence within the original length.
    pub seq_len: Option<u32>,
}

impl RopeConfig<'static> {
    /// The original embedding: all channels rotate, `theta` is 10,000, nothing is scaled.
    pub const fn new(head_dim: u32) -> Self {
        Self {
            head_dim,
            partial_rotary_factor: 1.0,
            theta: 10_000.0,
            scaling: RopeScaling::Default,
            max_position_embeddings: None,
            seq_len: None,
        }
    }
}

/// The scaling rules, `rope_type` in Hugging Face configs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RopeScaling<'a> {
    /// `default`: `inv_freq[i] = theta^(-2i / rotary_dim)`.
    #[default]
    Default,
    /// `linear`: every frequency divided by `factor`, which stretches the positions.
    Linear {
        /// How much longer sequences become.
        factor: f64,
    },
    /// `dynamic`: sequences longer than `max_position_embeddings` get a larger base, the longer the larger. (Hugging Face
    /// keeps the base of the longest sequence so far; here it follows from [`RopeConfig::seq_len`] alone.)
    Dynamic {
        /// How much longer sequences become.
        factor: f64,
    },
    /// `yarn`: fast pairs stay, slow ones are divided by the factor, and those between are blended.
    Yarn(RopeYarn),
    /// `longrope`: a factor for every pair, one list for short and one for long sequences.
    LongRope(RopeLongRope<'a>),
    /// `llama3`: as YaRN, with the bounds given as wavelengths.
    Llama3(RopeLlama3),
    /// `proportional`: the wavelengths of all `head_dim` channels, of which the first `partial_rotary_factor` rotate with the
    /// half split's partners and the others have frequency 0. `rotary_dim` is `head_dim`.
    Proportional {
        /// How much longer sequences become; 1 where a config has none.
        factor: f64,
    },
}

/// Parameters of [`RopeScaling::Yarn`]. `None` where a config is silent; `beta_fast`, `beta_slow`, `mscale` and `mscale_all_dim`
/// of 0 count as `None`, as they do in Hugging Face's code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeYarn {
    /// How much longer sequences become; `None` is `max_position_embeddings / original_max_position_embeddings`.
    pub factor: Option<f64>,
    /// The sequence length before scaling; `None` is `max_position_embeddings`.
    pub original_max_position_embeddings: Option<u32>,
    /// Factor of cos and sin; `None` follows from `factor`, `mscale` and `mscale_all_dim`.
    pub attention_factor: Option<f64>,
    /// Rotations over the original length above which a pair stays as it is; `None` is 32.
    pub beta_fast: Option<f64>,
    /// Rotations over the original length below which a pair is divided by the factor; `None` is 1.
    pub beta_slow: Option<f64>,
    /// Weight of `ln(factor)` in the numerator of the attention factor, if `mscale_all_dim` is there too.
    pub mscale: Option<f64>,
    /// Weight of `ln(factor)` in its denominator, if `mscale` is there too.
    pub mscale_all_dim: Option<f64>,
    /// Whether the bounds between which pairs are blended are rounded outwards to whole pairs.
    pub truncate: bool,
}

impl Default for RopeYarn {
    fn default() -> Self {
        Self {
            factor: None,
            original_max_position_embeddings: None,
            attention_factor: None,
            beta_fast: None,
            beta_slow: None,
            mscale: None,
            mscale_all_dim: None,
            truncate: true,
        }
    }
}

/// Parameters of [`RopeScaling::LongRope`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RopeLongRope<'a> {
    /// Divisors for sequences longer than the original length, `[rotary_dim / 2]`.
    pub long_factor: &'a [f64],
    /// Divisors for all others, `[rotary_dim / 2]`.
    pub short_factor: &'a [f64],
    /// How much longer sequences become, for the attention factor only; `None` is
    /// `max_position_embeddings / original_max_position_embeddings`.
    pub factor: Option<f64>,
    /// The sequence length before scaling; `None` is `max_position_embeddings`.
    pub original_max_position_embeddings: Option<u32>,
    /// Factor of cos and sin; `None` is `sqrt(1 + ln(factor) / ln(original length))`, and 1 for a factor of at most 1.
    pub attention_factor: Option<f64>,
}

/// Parameters of [`RopeScaling::Llama3`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeLlama3 {
    /// Divisor of the slow frequencies.
    pub factor: f64,
    /// Pairs that turn less often than this over the original length are slow.
    pub low_freq_factor: f64,
    /// Pairs that turn more often than this over the original length stay as they are; above `low_freq_factor`.
    pub high_freq_factor: f64,
    /// The sequence length before scaling; `None` is `max_position_embeddings`.
    pub original_max_position_embeddings: Option<u32>,
}

/// The angle by which each pair of channels turns from one position to the next, and the factor of cos and sin.
///
/// The formulas are computed in `f64` and not rounded. A model's own code may have rounded its frequencies to `f32`, which moves
/// angles by 4e-3 at position 131,072; give such ones to [`from_inv_freq`](Self::from_inv_freq).
#[derive(Clone, Debug, PartialEq)]
pub struct RopeFrequencies {
    inv_freq: Vec<f64>,
    attention_scaling: f64,
}

/// The most channels that rotate.
const MAX_ROTARY_DIM: u32 = 1 << 16;

impl RopeFrequencies {
    /// Computes them from a config.
    ///
    /// # Errors
    /// Names the parameter that is missing or out of range.
    pub fn new(config: &RopeConfig<'_>) -> Result<Self> {
        let rotary_dim = rotary_dim(config)?;
        positive("theta", config.theta)?;
        let (inv_freq, attention_scaling) = match &config.scaling {
            RopeScaling::Default => (powers(config.theta, rotary_dim), 1.0),
            RopeScaling::Linear { factor } => {
                let factor = positive("factor", *factor)?;
                (divided(powers(config.theta, rotary_dim), factor), 1.0)
            }
            RopeScaling::Dynamic { factor } => (dynamic(config, rotary_dim, *factor)?, 1.0),
            RopeScaling::Yarn(yarn) => scale_yarn(config, rotary_dim, yarn)?,
            RopeScaling::LongRope(longrope) => scale_longrope(config, rotary_dim, longrope)?,
            RopeScaling::Llama3(llama3) => (scale_llama3(config, rotary_dim, llama3)?, 1.0),
            RopeScaling::Proportional { factor } => (proportional(config, *factor)?, 1.0),
        };
        Self::from_inv_freq(inv_freq, attention_scaling)
    }

    /// Frequencies of the caller's own, in radians a position, and the factor of cos and sin.
    ///
    /// ```
    /// use wgpu_attention::RopeFrequencies;
    ///
    /// let frequencies = RopeFrequencies::from_inv_freq(vec![1.0, 0.25], 1.0)?;
    /// assert_eq!(frequencies.rotary_dim(), 4);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are none or more than 32,768, or if a number is NaN or infinite, or the factor not above 0.
    pub fn from_inv_freq(inv_freq: Vec<f64>, attention_scaling: f64) -> Result<Self> {
        if inv_freq.is_empty() || inv_freq.len() > MAX_ROTARY_DIM as usize / 2 {
            return Err(Error::ListLength {
                parameter: "inv_freq",
                actual: inv_freq.len(),
                expected: format!("1 to {}", MAX_ROTARY_DIM / 2),
            });
        }
        for &value in &inv_freq {
            if !value.is_finite() {
                return Err(Error::OutOfRange {
                    parameter: "inv_freq",
                    value,
                    expected: "finite numbers",
                });
            }
        }
        positive("attention_scaling", attention_scaling)?;
        Ok(Self {
            inv_freq,
            attention_scaling,
        })
    }

    /// Radians that each pair turns by from one position to the next, `[rotary_dim / 2]`.
    pub fn inv_freq(&self) -> &[f64] {
        &self.inv_freq
    }

    /// Factor of cos and sin, which scores carry squared. 1 except for YaRN and LongRoPE.
    pub fn attention_scaling(&self) -> f64 {
        self.attention_scaling
    }

    /// Number of channels that rotate.
    pub fn rotary_dim(&self) -> u32 {
        // At most MAX_ROTARY_DIM.
        2 * self.inv_freq.len() as u32
    }
}

/// Channels that rotate by the config's share; all for the proportional rule.
fn rotary_dim(config: &RopeConfig<'_>) -> Result<u32> {
    let RopeConfig {
        head_dim,
        partial_rotary_factor,
        ..
    } = *config;
    if head_dim == 0 {
        return Err(Error::ZeroSize { dimension: "head_dim" });
    }
    if !(partial_rotary_factor > 0.0 && partial_rotary_factor <= 1.0) {
        return Err(Error::OutOfRange {
            parameter: "partial_rotary_factor",
            value: partial_rotary_factor,
            expected: "a number above 0 and at most 1",
        });
    }
    let rotary_dim = match config.scaling {
        RopeScaling::Proportional { .. } => head_dim,
        _ => (f64::from(head_dim) * partial_rotary_factor) as u32,
    };
    validate_rotary_dim(rotary_dim, head_dim)?;
    Ok(rotary_dim)
}

/// Fails unless the channels that rotate make pairs within the head.
pub(crate) fn validate_rotary_dim(rotary_dim: u32, head_dim: u32) -> Result<()> {
    let limit = head_dim.min(MAX_ROTARY_DIM);
    match rotary_dim >= 2 && rotary_dim.is_multiple_of(2) && rotary_dim <= limit {
        true => Ok(()),
        false => Err(Error::RotaryDim { rotary_dim, limit }),
    }
}

fn positive(parameter: &'static str, value: f64) -> Result<f64> {
    match value.is_finite() && value > 0.0 {
        true => Ok(value),
        false => Err(Error::OutOfRange {
            parameter,
            value,
            expected: "a finite number above 0",
        }),
    }
}

/// The original length of a sequence: the rule's own, else the config's.
fn original_length(config: &RopeConfig<'_>, own: Option<u32>) -> Result<f64> {
    let parameter = "original_max_position_embeddings";
    let length = own
        .or(config.max_position_embeddings)
        .ok_or(Error::MissingParameter { parameter })?;
    positive(parameter, length.into())
}

/// The factor, or what the two lengths say it is.
fn factor_or_ratio(config: &RopeConfig<'_>, factor: Option<f64>, original: f64) -> Result<f64> {
    match (factor, config.max_position_embeddings) {
        (Some(factor), _) => positive("factor", factor),
        (None, Some(length)) => positive("max_position_embeddings", f64::from(length) / original),
        (None, None) => Err(Error::MissingParameter { parameter: "factor" }),
    }
}

/// `theta^(-2i / rotary_dim)`.
fn powers(theta: f64, rotary_dim: u32) -> Vec<f64> {
    (0..rotary_dim / 2)
        .map(|pair| theta.powf(f64::from(2 * pair) / f64::from(rotary_dim)).recip())
        .collect()
}

fn divided(mut inv_freq: Vec<f64>, factor: f64) -> Vec<f64> {
    inv_freq.iter_mut().for_each(|frequency| *frequency /= factor);
    inv_freq
}

fn dynamic(config: &RopeConfig<'_>, rotary_dim: u32, factor: f64) -> Result<Vec<f64>> {
    positive("factor", factor)?;
    let parameter = "max_position_embeddings";
    let length = config
        .max_position_embeddings
        .ok_or(Error::MissingParameter { parameter })?;
    let length = positive(parameter, length.into())?;
    if rotary_dim == 2 {
        return Err(Error::Unsupported {
            what: "dynamic scaling of 2 channels".into(),
            why: "its exponent is rotary_dim / (rotary_dim - 2); use another rule".into(),
        });
    }
    let seq_len = config.seq_len.map_or(length, f64::from).max(length);
    let growth = factor * seq_len / length - (factor - 1.0);
    let theta = config.theta * growth.powf(f64::from(rotary_dim) / f64::from(rotary_dim - 2));
    Ok(powers(theta, rotary_dim))
}

fn scale_yarn(config: &RopeConfig<'_>, rotary_dim: u32, yarn: &RopeYarn) -> Result<(Vec<f64>, f64)> {
    let original = original_length(config, yarn.original_max_position_embeddings)?;
    let factor = factor_or_ratio(config, yarn.factor, original)?;
    let given = |parameter, value: Option<f64>| match value {
        None | Some(0.0) => Ok(None),
        Some(value) => positive(parameter, value).map(Some),
    };
    let beta_fast = given("beta_fast", yarn.beta_fast)?.unwrap_or(32.0);
    let beta_slow = given("beta_slow", yarn.beta_slow)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        return Err(Error::OutOfRange {
            parameter: "beta_fast",
            value: beta_fast,
            expected: "at least beta_slow",
        });
    }
    if config.theta == 1.0 {
        return Err(Error::OutOfRange {
            parameter: "theta",
            value: config.theta,
            expected: "a number other than 1 for YaRN, which divides by its logarithm",
        });
    }
    let scale = |mscale: f64| {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * mscale * factor.ln() + 1.0
        }
    };
    let mscale = given("mscale", yarn.mscale)?;
    let mscale_all_dim = given("mscale_all_dim", yarn.mscale_all_dim)?;
    let attention_factor = match (yarn.attention_factor, mscale, mscale_all_dim) {
        (Some(attention_factor), ..) => positive("attention_factor", attention_factor)?,
        (None, Some(mscale), Some(mscale_all_dim)) => scale(mscale) / scale(mscale_all_dim),
        _ => scale(1.0),
    };

    // The pair, as a fraction, that turns so many times over the original length.
    let dim = f64::from(rotary_dim);
    let pair_of =
        |rotations: f64| (dim * (original / (rotations * 2.0 * std::f64::consts::PI)).ln()) / (2.0 * config.theta.ln());
    let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    low = low.max(0.0);
    high = high.min(dim - 1.0);
    if low == high {
        high += 0.001; // as Hugging Face does, against a division by 0
    }
    let blended = (0..).zip(powers(config.theta, rotary_dim)).map(|(pair, frequency)| {
        let ramp = ((f64::from(pair) - low) / (high - low)).clamp(0.0, 1.0);
        frequency / factor * ramp + frequency * (1.0 - ramp)
    });
    Ok((blended.collect(), attention_factor))
}

fn scale_longrope(config: &RopeConfig<'_>, rotary_dim: u32, longrope: &RopeLongRope<'_>) -> Result<(Vec<f64>, f64)> {
    let original = original_length(config, longrope.original_max_position_embeddings)?;
    for (parameter, list) in [
        ("long_factor", longrope.long_factor),
        ("short_factor", longrope.short_factor),
    ] {
        if list.len() != rotary_dim as usize / 2 {
            return Err(Error::ListLength {
                parameter,
                actual: list.len(),
                expected: format!("rotary_dim / 2, which is {}", rotary_dim / 2),
            });
        }
        for &value in list {
            positive(parameter, value)?;
        }
    }
    let attention_factor = match longrope.attention_factor {
        Some(attention_factor) => positive("attention_factor", attention_factor)?,
        None => match factor_or_ratio(config, longrope.factor, original)? {
            factor if factor <= 1.0 => 1.0,
            _ if original == 1.0 => {
                return Err(Error::OutOfRange {
                    parameter: "original_max_position_embeddings",
                    value: original,
                    expected: "at least 2 for LongRoPE, which divides by its logarithm",
                });
            }
            factor => (1.0 + factor.ln() / original.ln()).sqrt(),
        },
    };
    let divisors = match config.seq_len {
        Some(seq_len) if f64::from(seq_len) > original => longrope.long_factor,
        _ => longrope.short_factor,
    };
    let frequencies = powers(config.theta, rotary_dim).into_iter().zip(divisors);
    let scaled = frequencies.map(|(frequency, divisor)| frequency / divisor);
    Ok((scaled.collect(), attention_factor))
}

fn scale_llama3(config: &RopeConfig<'_>, rotary_dim: u32, llama3: &RopeLlama3) -> Result<Vec<f64>> {
    let original = original_length(config, llama3.original_max_position_embeddings)?;
    let factor = positive("factor", llama3.factor)?;
    let low = positive("low_freq_factor", llama3.low_freq_factor)?;
    let high = positive("high_freq_factor", llama3.high_freq_factor)?;
    if high <= low {
        return Err(Error::OutOfRange {
            parameter: "high_freq_factor",
            value: high,
            expected: "more than low_freq_factor",
        });
    }
    let scale = |frequency: f64| {
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength < original / high {
            frequency
        } else if wavelength > original / low {
            frequency / factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    };
    Ok(powers(config.theta, rotary_dim).into_iter().map(scale).collect())
}

fn proportional(config: &RopeConfig<'_>, factor: f64) -> Result<Vec<f64>> {
    let factor = positive("factor", factor)?;
    let rotating = (config.partial_rotary_factor * f64::from(config.head_dim) / 2.0).floor() as usize;
    let mut inv_freq = divided(powers(config.theta, config.head_dim), factor);
    inv_freq
        .iter_mut()
        .skip(rotating)
        .for_each(|frequency| *frequency = 0.0);
    Ok(inv_freq)
}
