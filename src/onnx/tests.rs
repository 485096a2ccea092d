//! Nodes that break the operator's rules, and the operands of those that do not. The rule for positions is tested beside it.

use super::*;
use crate::error::{Error, Operand};

fn refused(node: &OnnxAttention<'_>) -> String {
    OnnxPlan::new(node).unwrap_err().to_string()
}

/// Two sequences, four query heads and two key/value heads of 8 channels, three queries, five keys; values of 6 channels.
fn node(opset: u32) -> OnnxAttention<'static> {
    OnnxAttention::new(opset, &[2, 4, 3, 8], &[2, 2, 5, 8], &[2, 2, 5, 6])
}

/// The same in three axes.
fn packed(opset: u32) -> OnnxAttention<'static> {
    OnnxAttention {
        q_num_heads: Some(4),
        kv_num_heads: Some(2),
        ..OnnxAttention::new(opset, &[2, 3, 32], &[2, 5, 16], &[2, 5, 12])
    }
}

fn mask(kind: OnnxMaskKind, shape: &[u32]) -> Option<OnnxMask<'_>> {
    Some(OnnxMask { kind, shape })
}

#[test]
fn sizes_and_layouts() {
    for (node, layout, y) in [
        (node(25), Layout::Bhsd, vec![2, 4, 3, 6]),
        (packed(25), Layout::Bshd, vec![2, 3, 24]),
    ] {
        let plan = OnnxPlan::new(&node).unwrap();
        let shape = AttentionShape {
            kv_heads: 2,
            head_dim_v: 6,
            ..AttentionShape::new(2, 4, 3, 5, 8)
        };
        let want = AttentionDescriptor {
            shape,
            layouts: Layouts::all(layout),
            ..Default::default()
        };
        assert_eq!(plan.descriptor(), want);
        assert_eq!(plan.y_shape(), y);
        assert_eq!(plan.qk_matmul_output_shape(), [2, 4, 3, 5]);
    }
    // Inputs of four axes may repeat the number of heads, before opset 25.
    let repeated = OnnxAttention {
        q_num_heads: Some(4),
        kv_num_heads: Some(2),
        ..node(24)
    };
    assert!(OnnxPlan::new(&repeated).is_ok());
}

#[test]
fn the_fourth_output() {
    use ScoreStage::{Biased, Capped, Scaled};
    for (mode, want) in [(0, Some(Scaled)), (1, Some(Capped)), (2, Some(Biased)), (3, None)] {
        let connected = OnnxAttention {
            qk_matmul_output_mode: mode,
            qk_matmul_output: true,
            softcap: 2.0,
            scale: Some(0.5),
            ..node(23)
        };
        let descriptor = OnnxPlan::new(&connected).unwrap().descriptor();
        assert_eq!(
            (descriptor.outputs.scores, descriptor.outputs.weights),
            (want, mode == 3)
        );
        assert_eq!((descriptor.softcap, descriptor.scale), (Some(2.0), Some(0.5)));
        let unconnected = OnnxAttention {
            qk_matmul_output: false,
            ..connected
        };
        assert_eq!(
            OnnxPlan::new(&unconnected).unwrap().descriptor().outputs,
            Outputs::default()
        );
    }
}

#[test]
fn scores_that_masks_do_not_reach_are_those_of_all_keys() {
    let scored = |mode| OnnxAttention {
        is_causal: true,
        nonpad_kv_seqlen: Some(&[2]),
        qk_matmul_output: true,
        qk_matmul_output_mode: mode,
        ..OnnxAttention::new(24, &[2, 1, 2, 1], &[2, 1, 3, 1], &[2, 1, 3, 1])
    };
    let lengths = [2, 3];
    // Behind the end of a sequence there are none: a mask must close what a length would.
    let scaled = OnnxPlan::new(&scored(0)).unwrap();
    let descriptor = scaled.descriptor();
    assert_eq!((descriptor.key_padding, descriptor.causal), (None, None));
    assert_eq!(descriptor.mask, Some(Broadcast::new([2, 1, 2, 3])));
    assert_eq!(scaled.key_lengths(Some(&lengths)).unwrap(), None);
    let want = [1, 0, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1];
    assert_eq!(
        scaled.mask_data(None, Some(&lengths)).unwrap().unwrap(),
        want.as_slice()
    );

    let biased = OnnxPlan::new(&scored(2)).unwrap();
    assert_eq!(biased.descriptor().key_padding, Some(KeyPadding::Lengths));
    assert_eq!(biased.mask_data(None, Some(&lengths)).unwrap(), None);
    assert_eq!(biased.key_lengths(Some(&lengths)).unwrap(), Some(vec![2, 3]));
}

#[test]
fn what_breaks_the_rules_is_named() {
    let key = |shape| OnnxAttention { key: shape, ..node(24) };
    let with_past = OnnxAttention {
        past_key: Some(&[2, 2, 7, 8]),
        past_value: Some(&[2, 2, 7, 6]),
        ..node(24)
    };
    let with_lengths = OnnxAttention {
        nonpad_kv_seqlen: Some(&[2]),
        ..node(24)
    };
    for (node, message) in [
        (node(22), "ONNX opset is 22, expected 23 or later"),
        (
            OnnxAttention {
                qk_matmul_output_mode: 4,
                ..node(24)
            },
            "ONNX qk_matmul_output_mode is 4, expected 0 to 3",
        ),
        (
            OnnxAttention {
                softmax_precision: Some(7),
                ..node(24)
            },
            "ONNX softmax_precision is 7, expected 1, 10, 11 or 16",
        ),
        (
            OnnxAttention {
                scale: Some(-0.5),
                ..node(24)
            },
            "ONNX scale is -0.5, expected a finite number, 0 or more",
        ),
        (
            OnnxAttention {
                softcap: f32::NAN,
                ..node(24)
            },
            "ONNX softcap is NaN, expected a finite number, 0 or more",
        ),
        (
            OnnxAttention {
                left_window_size: -2,
                ..node(25)
            },
            "ONNX left_window_size is -2, expected -1 or more",
        ),
        (
            OnnxAttention {
                right_window_size: 0,
                ..node(24)
            },
            "ONNX right_window_size is 0, expected none before opset 25",
        ),
        (
            OnnxAttention {
                past_value: None,
                ..with_past
            },
            "ONNX past_key and past_value is one of them, expected both or neither",
        ),
        (
            OnnxAttention {
                opset: 23,
                ..with_lengths
            },
            "ONNX nonpad_kv_seqlen is an input, expected none before opset 24",
        ),
        (
            OnnxAttention {
                nonpad_kv_seqlen: Some(&[2]),
                ..with_past
            },
            "ONNX nonpad_kv_seqlen is an input beside past_key, expected one of the two",
        ),
        (
            OnnxAttention {
                opset: 25,
                present: true,
                ..with_lengths
            },
            "ONNX nonpad_kv_seqlen is an input beside present_key, expected one of the two since opset 25",
        ),
        (
            OnnxAttention {
                nonpad_kv_seqlen: Some(&[2, 1]),
                ..node(24)
            },
            "ONNX nonpad_kv_seqlen is [2, 1], expected [2]",
        ),
        (
            OnnxAttention {
                q_num_heads: Some(4),
                ..node(25)
            },
            "ONNX q_num_heads is 4, expected none with inputs of four axes since opset 25",
        ),
        (
            OnnxAttention {
                kv_num_heads: Some(4),
                ..node(24)
            },
            "ONNX kv_num_heads is 4, expected 2, as in K",
        ),
        (
            OnnxAttention {
                kv_num_heads: None,
                ..packed(24)
            },
            "ONNX kv_num_heads is nothing, expected a number: the inputs have three axes",
        ),
        (
            OnnxAttention {
                q_num_heads: Some(5),
                ..packed(24)
            },
            "ONNX Q is [2, 3, 32], expected a last axis that is a multiple of q_num_heads, which is 5",
        ),
        (
            OnnxAttention {
                value: &[2, 2, 5, 6],
                ..packed(24)
            },
            "ONNX V is [2, 2, 5, 6], expected three axes, as many as Q",
        ),
        (
            OnnxAttention {
                query: &[3, 8],
                ..node(24)
            },
            "ONNX Q is [3, 8], expected four axes",
        ),
        (
            key(&[2, 2, 5, 7]),
            "ONNX K is [batch, heads, sequence, size] = [2, 2, 5, 7], expected [2, 2, 5, 8]",
        ),
        (
            key(&[2, 2, 4, 8]),
            "ONNX V is [batch, heads, sequence, size] = [2, 2, 5, 6], expected [2, 2, 4, 6]",
        ),
        (
            OnnxAttention {
                past_value: Some(&[2, 2, 6, 6]),
                ..with_past
            },
            "ONNX past_value is [batch, heads, sequence, size] = [2, 2, 6, 6], expected [2, 2, 7, 6]",
        ),
        (
            OnnxAttention {
                attn_mask: mask(OnnxMaskKind::Float, &[3, 6]),
                ..node(24)
            },
            "ONNX attn_mask is of shape [3, 6], expected one to four axes that broadcast to [2, 4, 3, 5], the last one also shorter",
        ),
        (
            OnnxAttention {
                attn_mask: mask(OnnxMaskKind::Float, &[]),
                ..node(24)
            },
            "ONNX attn_mask is of shape [], expected one to four axes that broadcast to [2, 4, 3, 5], the last one also shorter",
        ),
    ] {
        assert_eq!(refused(&node), message);
    }
    // Sizes that make no attention problem at all.
    assert!(matches!(
        OnnxPlan::new(&key(&[2, 3, 5, 8])),
        Err(Error::OnnxNode { .. })
    ));
    let three_heads = OnnxAttention::new(24, &[2, 4, 3, 8], &[2, 3, 5, 8], &[2, 3, 5, 6]);
    assert!(matches!(
        OnnxPlan::new(&three_heads),
        Err(Error::HeadsNotDivisible { .. })
    ));
    let nothing = OnnxAttention::new(24, &[2, 4, 0, 8], &[2, 2, 5, 8], &[2, 2, 5, 6]);
    assert!(matches!(
        OnnxPlan::new(&nothing),
        Err(Error::ZeroSize { dimension: "seqlen_q" })
    ));
}

#[test]
fn a_short_mask_is_extended_with_closed_keys() {
    let closed = f32::NEG_INFINITY;
    let short = |kind, opset, shape| OnnxAttention {
        attn_mask: mask(kind, shape),
        ..OnnxAttention::new(opset, &[1, 1, 2, 8], &[1, 1, 3, 8], &[1, 1, 3, 8])
    };
    let boolean = OnnxPlan::new(&short(OnnxMaskKind::Boolean, 24, &[2, 2])).unwrap();
    assert_eq!(boolean.descriptor().mask, Some(Broadcast::new([1, 1, 2, 3])));
    assert_eq!(
        boolean.mask_data(Some(&[1, 0, 0, 1]), None).unwrap().unwrap(),
        [1, 0, 0, 0, 1, 0].as_slice()
    );
    assert!(boolean.bias_data(None, closed).unwrap().is_none());

    let float = OnnxPlan::new(&short(OnnxMaskKind::Float, 25, &[2])).unwrap();
    assert_eq!(float.descriptor().bias, Some(Broadcast::new([1, 1, 1, 3])));
    assert_eq!(
        float.bias_data(Some(&[0.5, 2.0]), closed).unwrap().unwrap(),
        [0.5, 2.0, closed].as_slice()
    );
    assert!(float.mask_data(None, None).unwrap().is_none());

    // One key's worth: for all of them in opset 23, for the first alone later.
    let all = OnnxPlan::new(&short(OnnxMaskKind::Float, 23, &[2, 1])).unwrap();
    assert_eq!(
        all.bias_data(Some(&[1.0, 2.0]), closed).unwrap().unwrap(),
        [1.0, 2.0].as_slice()
    );
    let first = OnnxPlan::new(&short(OnnxMaskKind::Float, 24, &[2, 1])).unwrap();
    let want = [1.0, closed, closed, 2.0, closed, closed];
    assert_eq!(
        first.bias_data(Some(&[1.0, 2.0]), closed).unwrap().unwrap(),
        want.as_slice()
    );
}

#[test]
fn a_window_that_only_a_mask_expresses_joins_the_given_mask() {
    // Three queries at positions 4 to 6 behind a past of 4, but one new key only: the window sees i + 4 alone.
    let windowed = |attn_mask| OnnxAttention {
        left_window_size: 0,
        right_window_size: 0,
        past_key: Some(&[2, 1, 4, 1]),
        past_value: Some(&[2, 1, 4, 1]),
        attn_mask,
        ..OnnxAttention::new(25, &[2, 1, 3, 1], &[2, 1, 1, 1], &[2, 1, 1, 1])
    };
    let alone = OnnxPlan::new(&windowed(None)).unwrap();
    assert_eq!(
        (
            alone.descriptor().causal,
            alone.descriptor().window,
            alone.descriptor().key_padding
        ),
        (None, None, None)
    );
    assert_eq!(alone.descriptor().mask, Some(Broadcast::new([1, 1, 3, 5])));
    let want = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(alone.mask_data(None, None).unwrap().unwrap(), want.as_slice());

    let joined = OnnxPlan::new(&windowed(mask(OnnxMaskKind::Boolean, &[2, 1, 1, 5]))).unwrap();
    assert_eq!(joined.descriptor().mask, Some(Broadcast::new([2, 1, 3, 5])));
    let given = [1, 1, 1, 1, 0, 1, 1, 1, 1, 1];
    let want = [[0; 15], want].concat();
    assert_eq!(joined.mask_data(Some(&given), None).unwrap().unwrap(), want.as_slice());

    let beside_bias = OnnxPlan::new(&windowed(mask(OnnxMaskKind::Float, &[5]))).unwrap();
    assert_eq!(beside_bias.descriptor().mask, alone.descriptor().mask);
    assert_eq!(
        beside_bias.mask_data(None, None).unwrap(),
        alone.mask_data(None, None).unwrap()
    );
    assert_eq!(beside_bias.descriptor().bias, Some(Broadcast::new([1, 1, 1, 5])));
}

#[test]
fn present_is_the_past_and_what_is_new() {
    // Two sequences, two heads, one channel; the past has one row, the new part two.
    let past = [1, 2, 3, 4];
    let with_past = OnnxAttention {
        past_key: Some(&[2, 2, 1, 1]),
        past_value: Some(&[2, 2, 1, 1]),
        ..OnnxAttention::new(23, &[2, 2, 2, 1], &[2, 2, 2, 1], &[2, 2, 2, 1])
    };
    let want = [1, 10, 11, 2, 20, 21, 3, 30, 31, 4, 40, 41];
    let plan = OnnxPlan::new(&with_past).unwrap();
    assert_eq!(
        plan.key(Some(&past), &[10, 11, 20, 21, 30, 31, 40, 41]).unwrap(),
        want.as_slice()
    );
    assert_eq!(plan.present_key_shape(), [2, 2, 3, 1]);

    let packed = OnnxAttention {
        q_num_heads: Some(2),
        kv_num_heads: Some(2),
        query: &[2, 2, 2],
        key: &[2, 2, 2],
        value: &[2, 2, 2],
        ..with_past
    };
    let new = [10, 20, 11, 21, 30, 40, 31, 41];
    let plan = OnnxPlan::new(&packed).unwrap();
    assert_eq!(plan.value(Some(&past), &new).unwrap(), want.as_slice());
    assert_eq!(
        (plan.descriptor().layouts.query, plan.descriptor().layouts.key),
        (Layout::Bshd, Layout::Bhsd)
    );
    assert_eq!(plan.present_value_shape(), [2, 2, 3, 1]);

    // Without a past: as it lies, unless the present is wanted, which has four axes.
    let without = OnnxAttention {
        past_key: None,
        past_value: None,
        ..packed
    };
    assert_eq!(
        OnnxPlan::new(&without).unwrap().key(None, &new).unwrap(),
        new.as_slice()
    );
    let present = OnnxAttention {
        present: true,
        ..without
    };
    let want = [10, 11, 20, 21, 30, 31, 40, 41];
    assert_eq!(
        OnnxPlan::new(&present).unwrap().key(None, &new).unwrap(),
        want.as_slice()
    );
}

#[test]
fn wrong_data_is_an_error() {
    let lengths = OnnxPlan::new(&OnnxAttention {
        nonpad_kv_seqlen: Some(&[2]),
        ..node(24)
    })
    .unwrap();
    assert_eq!(lengths.key_lengths(Some(&[0, 5])).unwrap(), Some(vec![0, 5]));
    for (given, message) in [
        (
            Some(&[0, 6][..]),
            "ONNX nonpad_kv_seqlen is [0, 6], expected 0 to 5 for each sequence",
        ),
        (
            Some(&[-1, 5]),
            "ONNX nonpad_kv_seqlen is [-1, 5], expected 0 to 5 for each sequence",
        ),
        (Some(&[1]), "key_padding has 1 elements, expected 2"),
        (None, "key_padding is missing: the descriptor asks for it"),
    ] {
        assert_eq!(lengths.key_lengths(given).unwrap_err().to_string(), message);
    }
    let plan = OnnxPlan::new(&OnnxAttention {
        attn_mask: mask(OnnxMaskKind::Boolean, &[3, 5]),
        ..node(24)
    })
    .unwrap();
    let missing = |operand| move |error: Error| matches!(error, Error::MissingOperand { operand: o } if o == operand);
    assert!(plan.mask_data(None, None).is_err_and(missing(Operand::Mask)));
    assert!(plan.mask_data(Some(&[1; 14]), None).is_err());
    assert!(plan.key(None, &[0.0; 159]).is_err());
    assert!(plan.key(Some(&[0.0]), &[0.0; 160]).is_err());
    assert!(plan.key(None, &[0.0; 160]).is_ok());
}
