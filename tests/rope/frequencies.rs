//! Frequencies: against Hugging Face's own functions, and against what the formulas say by hand.

use std::collections::BTreeMap;

use wgpu_attention::{Error, RopeConfig, RopeFrequencies, RopeLlama3, RopeLongRope, RopeScaling, RopeYarn};

/// What `tools/rope-frequencies.py` printed: a name, the attention scaling, the inverse frequencies.
const TABLE: &str = include_str!("frequencies.txt");

pub(crate) const LONG: &[f64] = &[1.0, 1.5, 2.25, 7.5, 20.0, 40.5];
pub(crate) const SHORT: &[f64] = &[1.0, 1.0, 1.05, 1.1, 1.3, 2.0];

pub(crate) const YARN: RopeYarn = RopeYarn {
    factor: Some(4.0),
    original_max_position_embeddings: Some(4096),
    attention_factor: None,
    beta_fast: None,
    beta_slow: None,
    mscale: None,
    mscale_all_dim: None,
    truncate: true,
};

pub(crate) const LONG_ROPE: RopeLongRope<'_> = RopeLongRope {
    long_factor: LONG,
    short_factor: SHORT,
    factor: None,
    original_max_position_embeddings: Some(4096),
    attention_factor: None,
};

pub(crate) fn config(head_dim: u32, length: u32, seq_len: Option<u32>, scaling: RopeScaling<'_>) -> RopeConfig<'_> {
    RopeConfig {
        max_position_embeddings: Some(length),
        seq_len,
        scaling,
        ..RopeConfig::new(head_dim)
    }
}

pub(crate) fn yarn(head_dim: u32, length: u32, yarn: RopeYarn) -> RopeConfig<'static> {
    config(head_dim, length, None, RopeScaling::Yarn(yarn))
}

pub(crate) fn long_rope(length: u32, seq_len: Option<u32>, longrope: RopeLongRope<'_>) -> RopeConfig<'_> {
    config(12, length, seq_len, RopeScaling::LongRope(longrope))
}

/// The configs that the table's script gave to Hugging Face.
fn configs() -> BTreeMap<&'static str, RopeConfig<'static>> {
    let dynamic = |seq_len| config(12, 2048, Some(seq_len), RopeScaling::Dynamic { factor: 2.0 });
    let two = RopeYarn {
        original_max_position_embeddings: Some(2),
        beta_fast: Some(8.0),
        ..YARN
    };
    let deepseek = RopeYarn {
        factor: Some(40.0),
        mscale: Some(0.707),
        ..YARN
    };
    let llama3 = |llama3| RopeScaling::Llama3(llama3);
    BTreeMap::from([
        ("linear", config(8, 2048, None, RopeScaling::Linear { factor: 4.0 })),
        (
            "linear_partial",
            RopeConfig {
                theta: 5e5,
                partial_rotary_factor: 0.4,
                ..config(20, 2048, None, RopeScaling::Linear { factor: 2.5 })
            },
        ),
        ("dynamic_short", dynamic(100)),
        ("dynamic_long", dynamic(5000)),
        ("yarn", yarn(32, 16_384, YARN)),
        ("yarn_ratio", yarn(32, 32_768, RopeYarn { factor: None, ..YARN })),
        (
            "yarn_exact_bounds",
            yarn(
                32,
                16_384,
                RopeYarn {
                    truncate: false,
                    ..YARN
                },
            ),
        ),
        (
            "yarn_betas",
            yarn(
                32,
                16_384,
                RopeYarn {
                    beta_fast: Some(64.0),
                    beta_slow: Some(0.5),
                    ..YARN
                },
            ),
        ),
        (
            "yarn_zero_betas",
            yarn(
                32,
                16_384,
                RopeYarn {
                    beta_fast: Some(0.0),
                    beta_slow: Some(0.0),
                    ..YARN
                },
            ),
        ),
        (
            "yarn_mscale",
            yarn(
                16,
                163_840,
                RopeYarn {
                    mscale_all_dim: Some(1.3),
                    ..deepseek
                },
            ),
        ),
        (
            "yarn_mscale_alone",
            yarn(
                16,
                163_840,
                RopeYarn {
                    mscale_all_dim: Some(0.0),
                    ..deepseek
                },
            ),
        ),
        (
            "yarn_attention_factor",
            yarn(
                16,
                16_384,
                RopeYarn {
                    attention_factor: Some(1.5),
                    ..YARN
                },
            ),
        ),
        (
            "yarn_shrinking",
            yarn(
                16,
                16_384,
                RopeYarn {
                    factor: Some(0.5),
                    ..YARN
                },
            ),
        ),
        (
            "yarn_one_bound",
            yarn(
                8,
                64,
                RopeYarn {
                    beta_slow: Some(0.32),
                    ..two
                },
            ),
        ),
        (
            "yarn_crossed_bounds",
            yarn(
                8,
                64,
                RopeYarn {
                    beta_slow: Some(4.0),
                    ..two
                },
            ),
        ),
        ("longrope_short", long_rope(131_072, Some(4096), LONG_ROPE)),
        ("longrope_long", long_rope(131_072, Some(4097), LONG_ROPE)),
        (
            "longrope_factor",
            long_rope(
                131_072,
                None,
                RopeLongRope {
                    factor: Some(8.0),
                    ..LONG_ROPE
                },
            ),
        ),
        (
            "longrope_attention_factor",
            long_rope(
                131_072,
                Some(9000),
                RopeLongRope {
                    attention_factor: Some(1.25),
                    ..LONG_ROPE
                },
            ),
        ),
        ("longrope_not_longer", long_rope(4096, Some(4097), LONG_ROPE)),
        (
            "llama3",
            RopeConfig {
                theta: 500_000.0,
                ..config(
                    32,
                    131_072,
                    None,
                    llama3(RopeLlama3 {
                        factor: 8.0,
                        low_freq_factor: 1.0,
                        high_freq_factor: 4.0,
                        original_max_position_embeddings: Some(8192),
                    }),
                )
            },
        ),
        (
            "llama3_small",
            config(
                24,
                131_072,
                None,
                llama3(RopeLlama3 {
                    factor: 32.0,
                    low_freq_factor: 2.0,
                    high_freq_factor: 9.0,
                    original_max_position_embeddings: Some(512),
                }),
            ),
        ),
        (
            "proportional",
            RopeConfig {
                theta: 1e6,
                partial_rotary_factor: 0.25,
                ..config(16, 131_072, None, RopeScaling::Proportional { factor: 8.0 })
            },
        ),
    ])
}

fn frequencies(config: &RopeConfig<'_>) -> RopeFrequencies {
    RopeFrequencies::new(config).unwrap_or_else(|error| panic!("{config:?}: {error}"))
}

fn assert_close(what: &str, got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 4e-15 * want.abs(),
        "{what}: {got} instead of {want}"
    );
}

#[test]
fn every_rule_computes_what_hugging_face_does() {
    let configs = configs();
    let names: Vec<_> = TABLE.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(configs.len(), names.len(), "{names:?}");
    for line in TABLE.lines() {
        let (name, numbers) = line.split_once(' ').unwrap();
        let numbers: Vec<f64> = numbers.split(' ').map(|number| number.parse().unwrap()).collect();
        let got = frequencies(&configs[name]);
        assert_close(name, got.attention_scaling(), numbers[0]);
        assert_eq!(got.inv_freq().len(), numbers.len() - 1, "{name}");
        for (got, want) in got.inv_freq().iter().zip(&numbers[1..]) {
            assert_close(name, *got, *want);
        }
    }
}

#[test]
fn the_default_is_a_geometric_row() {
    let got = frequencies(&RopeConfig::new(8));
    for (got, want) in got.inv_freq().iter().zip([1.0, 0.1, 0.01, 0.001]) {
        assert_close("default", *got, want);
    }
    assert_eq!((got.rotary_dim(), got.attention_scaling()), (8, 1.0));
    // GPT-NeoX: a quarter of 64 channels.
    let partial = RopeConfig {
        partial_rotary_factor: 0.25,
        ..RopeConfig::new(64)
    };
    assert_eq!(frequencies(&partial), frequencies(&RopeConfig::new(16)));
}

/// Dynamic scaling leaves the fastest pair alone, and slows the slowest down by exactly the growth: its base is chosen so.
#[test]
fn dynamic_scaling_slows_the_last_pair_by_the_growth() {
    let plain = frequencies(&RopeConfig::new(12));
    let scaled = |seq_len| frequencies(&config(12, 1000, Some(seq_len), RopeScaling::Dynamic { factor: 3.0 }));
    assert_eq!(scaled(1000), plain);
    assert_eq!(scaled(1), plain);
    // 3 * 4000 / 1000 - 2
    let grown = scaled(4000);
    assert_eq!(grown.inv_freq()[0], 1.0);
    assert_close("last", grown.inv_freq()[5], plain.inv_freq()[5] / 10.0);
}

/// Pairs that turn more than beta_fast times over the original length stay, those that turn less than beta_slow are divided.
#[test]
fn yarn_divides_slow_pairs_and_leaves_fast_ones() {
    let plain = frequencies(&RopeConfig::new(64));
    let scaled = frequencies(&yarn(64, 16_384, YARN));
    let turns = |frequency: f64| 4096.0 * frequency / std::f64::consts::TAU;
    let mut blended = 0;
    for (plain, scaled) in plain.inv_freq().iter().zip(scaled.inv_freq()) {
        // The bounds are rounded outwards by less than a pair, which is this much in turns.
        let pair = 10_000f64.powf(1.0 / 32.0);
        if turns(*plain) > 32.0 * pair {
            assert_close("fast", *scaled, *plain);
        } else if turns(*plain) < 1.0 / pair {
            assert_close("slow", *scaled, plain / 4.0);
        } else {
            assert!(*scaled <= *plain && *scaled >= plain / 4.0);
            blended += 1;
        }
    }
    assert!(blended > 5);
    assert_close("attention scaling", scaled.attention_scaling(), 1.0 + 0.1 * 4f64.ln());
}

/// The bounds of llama3 are wavelengths, and the blend meets both sides.
#[test]
fn llama3_blends_by_wavelength() {
    let rule = RopeLlama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: None,
    };
    // One pair whose wavelength is `wavelength`, and one of 2 pi: base^(-1/2) is the second frequency.
    let scaled = |wavelength: f64| {
        let second = std::f64::consts::TAU / wavelength;
        let config = RopeConfig {
            theta: second.powi(-2),
            ..config(4, 8192, None, RopeScaling::Llama3(rule))
        };
        frequencies(&config).inv_freq()[1] / second
    };
    assert_close("short", scaled(2000.0), 1.0);
    assert_close("long", scaled(8200.0), 0.125);
    // 8192 / 4096 = 2 turns: a third of the way from 1 to 4.
    assert!((scaled(4096.0) - (1.0 / 3.0 + 2.0 / 3.0 / 8.0)).abs() < 1e-12);
    assert!((scaled(2_048.000_001) - 1.0).abs() < 1e-6 && (scaled(8_191.999_999) - 0.125).abs() < 1e-6);
}

#[test]
fn longrope_scales_attention_by_the_logarithms() {
    // ln 32 / ln 4096 is 5 / 12.
    let got = frequencies(&long_rope(131_072, None, LONG_ROPE)).attention_scaling();
    assert_close("attention scaling", got, (17.0f64 / 12.0).sqrt());
}

#[test]
fn frequencies_of_ones_own_are_kept() {
    let own = RopeFrequencies::from_inv_freq(vec![0.5, -0.25, 0.0], 2.0).unwrap();
    assert_eq!(own.inv_freq(), [0.5, -0.25, 0.0]);
    assert_eq!((own.rotary_dim(), own.attention_scaling()), (6, 2.0));
    assert!(matches!(
        RopeFrequencies::from_inv_freq(Vec::new(), 1.0),
        Err(Error::ListLength {
            parameter: "inv_freq",
            actual: 0,
            ..
        })
    ));
    assert!(matches!(
        RopeFrequencies::from_inv_freq(vec![0.0; 32_769], 1.0),
        Err(Error::ListLength {
            parameter: "inv_freq",
            ..
        })
    ));
    for value in [f64::NAN, f64::INFINITY] {
        assert!(matches!(
            RopeFrequencies::from_inv_freq(vec![1.0, value], 1.0),
            Err(Error::OutOfRange {
                parameter: "inv_freq",
                ..
            })
        ));
    }
    for scaling in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            RopeFrequencies::from_inv_freq(vec![1.0], scaling),
            Err(Error::OutOfRange {
                parameter: "attention_scaling",
                ..
            })
        ));
    }
}
