//! Storage types: a narrow number is the same number.

use half::{bf16, f16};
use wgpu_attention::{Broadcast, DTypes};

use super::*;

/// The same numbers as singles.
fn widened(numbers: &Numbers) -> Numbers {
    Numbers::F32(match numbers {
        Numbers::F32(numbers) => numbers.clone(),
        Numbers::F16(numbers) => numbers.iter().copied().map(f16::to_f32).collect(),
        Numbers::Bf16(numbers) => numbers.iter().copied().map(bf16::to_f32).collect(),
    })
}

#[test]
fn narrow_inputs_are_their_numbers_widened() {
    for_cases(6, |case| {
        for dtype in [DType::F16, DType::Bf16] {
            let singles = AttentionDescriptor {
                bias: Some(Broadcast::new(case.positions())),
                ..case.causal()
            };
            let narrow = AttentionDescriptor {
                dtypes: DTypes {
                    out: DType::F32,
                    bias: dtype,
                    ..DTypes::all(dtype)
                },
                ..singles.clone()
            };
            let narrow = Request::random(narrow, case.seed);
            let widened = OwnedInputs {
                query: widened(&narrow.inputs.query),
                key: widened(&narrow.inputs.key),
                value: widened(&narrow.inputs.value),
                bias: narrow.inputs.bias.as_ref().map(widened),
                ..narrow.inputs.clone()
            };
            assert_same(case, [&Request::new(singles, widened), &narrow])?;
        }
        Ok(())
    });
}
