//! Which positions are open, said in several ways.

use wgpu_attention::{AttentionDescriptor, Broadcast, Capture, CaptureElement, CausalAlignment, KeyPadding, Window};

use super::*;

fn window(left: Option<u32>, right: Option<u32>, alignment: CausalAlignment) -> Option<Window> {
    Some(Window { left, right, alignment })
}

#[test]
fn a_window_without_bounds_is_none() {
    for_cases(16, |case| {
        let unbounded = AttentionDescriptor {
            window: window(None, None, case.alignment),
            ..case.causal()
        };
        // Equal problems have equal plans, kernels and parameters.
        prop_assert_eq!(problem(&unbounded), problem(&case.causal()));
        Ok(())
    });
}

#[test]
fn a_window_wider_than_the_sequence_closes_nothing() {
    for_cases(8, |case| {
        // From the first row to the last key, or the other way round, whatever the alignment.
        let least = case.shape.seqlen_q.max(case.shape.seqlen_k) - 1;
        let whole = Request::random(case.plain(), case.seed);
        for (left, right) in [
            (Some(least), Some(least)),
            (Some(least), None),
            (None, Some(least)),
            (Some(u32::MAX), Some(u32::MAX)),
        ] {
            let windowed = AttentionDescriptor {
                window: window(left, right, case.alignment),
                ..case.plain()
            };
            assert_same(case, [&whole, &whole.with(windowed)])?;
        }
        Ok(())
    });
}

#[test]
fn a_window_up_to_the_own_position_is_causal() {
    for_cases(10, |case| {
        let causal = AttentionDescriptor {
            causal: Some(case.alignment),
            ..case.plain()
        };
        let windowed = AttentionDescriptor {
            window: window(None, Some(0), case.alignment),
            ..case.plain()
        };
        let causal = Request::random(causal, case.seed);
        assert_same(case, [&causal, &causal.with(windowed)])
    });
}

/// A mask as an operand, as negative infinity in a bias, and as a function of the caller's own.
#[test]
fn a_mask_may_be_bytes_a_bias_or_a_function() {
    for_cases(8, |case| {
        let masked = AttentionDescriptor {
            mask: Some(Broadcast::new(case.positions())),
            ..case.causal()
        };
        let masked = Request::random(masked, case.seed);
        let bytes = masked.inputs.mask.clone().unwrap();
        let without = OwnedInputs {
            mask: None,
            ..masked.inputs.clone()
        };

        let bias = bytes
            .iter()
            .map(|&byte| if byte == 0 { f32::NEG_INFINITY } else { 0.0 });
        let biased = Request::new(
            AttentionDescriptor {
                bias: Some(Broadcast::new(case.positions())),
                ..case.causal()
            },
            OwnedInputs {
                bias: Some(Numbers::F32(bias.collect())),
                ..without.clone()
            },
        );
        assert_same(case, [&masked, &biased])?;

        let [_, heads, rows, keys] = case.positions();
        let (words, sizes): (Vec<u32>, _) = (bytes.iter().map(|&byte| byte.into()).collect(), [heads, rows, keys]);
        let captures = [capture("allowed", words.len()), capture("sizes", sizes.len())];
        let mask_mod = |[batch, head, q_idx, kv_idx]: [u32; 4]| {
            bytes[(((batch * heads + head) * rows + q_idx) * keys + kv_idx) as usize] != 0
        };
        let modified = Request {
            mods: Mods {
                mask_mod: Some(&mask_mod),
                ..Default::default()
            },
            ..Request::new(
                AttentionDescriptor {
                    mods: wgpu_attention::Mods {
                        mask_mod: Some(
                            "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return allowed[((batch * sizes[0] + head) * sizes[1] + q_idx) * sizes[2] + kv_idx] != 0u;
}",
                        ),
                        captures: &captures,
                        ..Default::default()
                    },
                    ..case.causal()
                },
                OwnedInputs {
                    captures: vec![
                        bytemuck::cast_slice(&words).to_vec(),
                        bytemuck::cast_slice(&sizes).to_vec(),
                    ],
                    ..without
                },
            )
        };
        assert_same(case, [&masked, &modified])
    });
}

fn capture(name: &'static str, len: usize) -> Capture<'static> {
    Capture {
        name,
        element: CaptureElement::U32,
        len: len as u32,
    }
}

/// Without rules that count from the end, a length is a padding of ones and then zeros. What lies behind is NaN.
#[test]
fn lengths_are_boolean_key_padding() {
    for_cases(10, |case| {
        let padded = |kind| AttentionDescriptor {
            key_padding: Some(kind),
            ..case.plain()
        };
        let by_length = Request::random(padded(KeyPadding::Lengths), case.seed);
        let lengths = by_length.inputs.lengths.clone().unwrap();
        let bytes = lengths
            .iter()
            .flat_map(|&length| (0..case.shape.seqlen_k).map(move |key| u8::from(key < length)));
        let by_byte = Request::new(
            padded(KeyPadding::Boolean),
            OwnedInputs {
                lengths: None,
                padding_bytes: Some(bytes.collect()),
                ..by_length.inputs.clone()
            },
        );
        assert_same(case, [&by_length, &by_byte])
    });
}
