//! Configs that make no frequencies: errors name what was wrong.

use wgpu_attention::{Error, RopeConfig, RopeFrequencies, RopeLlama3, RopeLongRope, RopeScaling, RopeYarn};

use crate::frequencies::{LONG, LONG_ROPE, YARN, config, long_rope, yarn};

/// The parameter that an error names.
fn refused(config: &RopeConfig<'_>) -> &'static str {
    match RopeFrequencies::new(config) {
        Err(
            Error::OutOfRange { parameter, .. }
            | Error::MissingParameter { parameter }
            | Error::ListLength { parameter, .. },
        ) => parameter,
        Err(Error::ZeroSize { dimension }) => dimension,
        Err(Error::RotaryDim { .. }) => "rotary_dim",
        Err(Error::Unsupported { .. }) => "unsupported",
        other => panic!("{config:?}: {other:?}"),
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    let plain = RopeConfig::new(8);
    assert_eq!(refused(&RopeConfig::new(0)), "head_dim");
    assert_eq!(refused(&RopeConfig::new(7)), "rotary_dim");
    assert_eq!(refused(&RopeConfig::new(65_538)), "rotary_dim");
    for partial_rotary_factor in [0.0, -0.5, 1.5, f64::NAN] {
        let config = RopeConfig {
            partial_rotary_factor,
            ..plain
        };
        assert_eq!(refused(&config), "partial_rotary_factor");
    }
    // 3 channels, and none.
    for partial_rotary_factor in [0.4, 0.1] {
        let config = RopeConfig {
            partial_rotary_factor,
            ..plain
        };
        assert_eq!(refused(&config), "rotary_dim");
    }
    for wrong in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(refused(&RopeConfig { theta: wrong, ..plain }), "theta");
        let llama3 = RopeLlama3 {
            factor: wrong,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: None,
        };
        for scaling in [
            RopeScaling::Linear { factor: wrong },
            RopeScaling::Dynamic { factor: wrong },
            RopeScaling::Proportional { factor: wrong },
            RopeScaling::Llama3(llama3),
            RopeScaling::Yarn(RopeYarn {
                factor: Some(wrong),
                ..YARN
            }),
            RopeScaling::LongRope(RopeLongRope {
                factor: Some(wrong),
                ..LONG_ROPE
            }),
        ] {
            assert_eq!(refused(&config(12, 2048, None, scaling)), "factor");
        }
        for scaling in [
            RopeScaling::Yarn(RopeYarn {
                attention_factor: Some(wrong),
                ..YARN
            }),
            RopeScaling::LongRope(RopeLongRope {
                attention_factor: Some(wrong),
                ..LONG_ROPE
            }),
        ] {
            assert_eq!(refused(&config(12, 2048, None, scaling)), "attention_factor");
        }
    }
}

#[test]
fn wrong_values_of_single_rules_are_refused_by_name() {
    let length = "original_max_position_embeddings";
    let llama3 = |low_freq_factor, high_freq_factor| {
        let scaling = RopeScaling::Llama3(RopeLlama3 {
            factor: 8.0,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: None,
        });
        config(8, 8192, None, scaling)
    };
    assert_eq!(refused(&llama3(0.0, 4.0)), "low_freq_factor");
    assert_eq!(refused(&llama3(1.0, f64::NAN)), "high_freq_factor");
    assert_eq!(refused(&llama3(4.0, 4.0)), "high_freq_factor");
    assert_eq!(
        refused(&RopeConfig {
            max_position_embeddings: None,
            ..llama3(1.0, 4.0)
        }),
        length
    );
    assert_eq!(refused(&config(8, 0, None, llama3(1.0, 4.0).scaling)), length);

    for (scaling, what) in [
        (
            RopeYarn {
                beta_fast: Some(-1.0),
                ..YARN
            },
            "beta_fast",
        ),
        (
            RopeYarn {
                beta_slow: Some(f64::NAN),
                ..YARN
            },
            "beta_slow",
        ),
        (
            RopeYarn {
                beta_slow: Some(33.0),
                ..YARN
            },
            "beta_fast",
        ),
        (
            RopeYarn {
                mscale: Some(-1.0),
                ..YARN
            },
            "mscale",
        ),
        (
            RopeYarn {
                mscale_all_dim: Some(f64::INFINITY),
                ..YARN
            },
            "mscale_all_dim",
        ),
        (
            RopeYarn {
                original_max_position_embeddings: Some(0),
                ..YARN
            },
            length,
        ),
    ] {
        assert_eq!(refused(&yarn(8, 2048, scaling)), what);
    }
    assert_eq!(
        refused(&RopeConfig {
            theta: 1.0,
            ..yarn(8, 2048, YARN)
        }),
        "theta"
    );
    let silent = RopeConfig {
        max_position_embeddings: None,
        ..yarn(8, 0, RopeYarn { factor: None, ..YARN })
    };
    assert_eq!(refused(&silent), "factor");

    assert_eq!(
        refused(&long_rope(
            2048,
            None,
            RopeLongRope {
                long_factor: &LONG[1..],
                ..LONG_ROPE
            }
        )),
        "long_factor"
    );
    assert_eq!(
        refused(&long_rope(
            2048,
            None,
            RopeLongRope {
                short_factor: &[],
                ..LONG_ROPE
            }
        )),
        "short_factor"
    );
    let holed = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0];
    assert_eq!(
        refused(&long_rope(
            2048,
            None,
            RopeLongRope {
                long_factor: &holed,
                ..LONG_ROPE
            }
        )),
        "long_factor"
    );
    let one = RopeLongRope {
        original_max_position_embeddings: Some(1),
        ..LONG_ROPE
    };
    assert_eq!(refused(&long_rope(2048, None, one)), length);
    assert_eq!(
        refused(&RopeConfig {
            max_position_embeddings: None,
            ..long_rope(1, None, LONG_ROPE)
        }),
        "factor"
    );

    let dynamic = RopeScaling::Dynamic { factor: 2.0 };
    assert_eq!(
        refused(&RopeConfig {
            scaling: dynamic,
            ..RopeConfig::new(8)
        }),
        "max_position_embeddings"
    );
    assert_eq!(refused(&config(8, 0, None, dynamic)), "max_position_embeddings");
    assert_eq!(refused(&config(2, 2048, None, dynamic)), "unsupported");
    // Powers beyond what f64 holds.
    assert_eq!(
        refused(&RopeConfig {
            theta: 1e-308,
            ..config(128, 2048, None, RopeScaling::Linear { factor: 1e-9 })
        }),
        "inv_freq"
    );
}
