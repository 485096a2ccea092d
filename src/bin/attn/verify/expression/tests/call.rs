//! Expressions as the functions of an attention call.

use wgpu_attention::reference::{Precision, ReferenceMods};
use wgpu_attention::{AttentionDescriptor, AttentionShape, HostInputs, Mods, Outputs, Problem, ScoreStage, reference};

use super::*;

#[test]
fn a_call_takes_what_expressions_become() {
    let fixture = Fixture::new();
    let score = fixture.expression(Hook::Score, "select(-inf, s + table[buckets[q][kv]][h], q + 9 >= kv)");
    let mask = fixture.expression(
        Hook::Mask,
        "(kv < len[b] || buckets[q][kv] == 3) && blocks[q / 16][kv / 16]",
    );
    let captured = all_captured(&[&score, &mask]);
    let names: Vec<_> = captured.iter().map(|captured| captured.wgsl_name()).collect();
    let captures: Vec<_> = captured
        .iter()
        .zip(&names)
        .map(|(captured, name)| captured.capture(name))
        .collect();
    let bytes: Vec<_> = captured.iter().map(|captured| captured.bytes()).collect();
    let bytes: Vec<_> = bytes.iter().map(|bytes| &bytes[..]).collect();
    let [score_text, mask_text] = [score.wgsl(), mask.wgsl()];
    let descriptor = AttentionDescriptor {
        shape: AttentionShape::new(2, 4, 32, 32, 4),
        mods: Mods {
            score_mod: Some(&score_text),
            mask_mod: Some(&mask_text),
            captures: &captures,
            ..Default::default()
        },
        outputs: Outputs {
            scores: Some(ScoreStage::Biased),
            ..Default::default()
        },
        ..Default::default()
    };
    let x: Vec<f32> = (0..2 * 4 * 32 * 4).map(|i| (i as f32 * 0.37).sin()).collect();
    let inputs = HostInputs {
        captures: &bytes,
        ..HostInputs::new(&x, &x, &x)
    };
    let (score_function, mask_function) = (score.value_function(), mask.mask_function());
    let mods = ReferenceMods {
        score_mod: Some(&score_function),
        mask_mod: Some(&mask_function),
        prob_mod: None,
    };
    let problem = Problem::new(&descriptor).unwrap();
    let want = reference::attention_with(Precision::F64, &problem, &inputs, &mods).unwrap();
    let got = device::ENGINE.attention(&descriptor, &inputs).unwrap();
    let closed = want.scores.iter().filter(|score| **score == f64::NEG_INFINITY).count();
    assert!((1000..7000).contains(&closed), "{closed} of {}", want.scores.len());
    for (got, want) in [(got.out, want.out), (got.scores.unwrap(), want.scores)] {
        assert_eq!(got.len(), want.len());
        for (&got, &want) in got.iter().zip(&want) {
            let got = f64::from(got);
            assert!(
                got == want || (want.is_finite() && (got - want).abs() <= 1e-5),
                "{got}, expected {want}"
            );
        }
    }
}
