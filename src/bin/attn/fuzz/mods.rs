//! The caller's own functions in cases: WGSL with the same function in Rust, and texts that are broken.

use wgpu_attention::reference::{ReferenceMods, ValueMod};
use wgpu_attention::{Capture, CaptureElement, Mods};

/// A text and its twin in Rust.
type Twin<F> = (&'static str, F);
type MaskMod = &'static (dyn Fn([u32; 4]) -> bool + Sync);
type ScoreMod = &'static (dyn Fn(f64, [u32; 4]) -> f64 + Sync);

/// What the functions read: one number a head, and one a position.
pub const CAPTURES: &[Capture<'static>] = &[
    Capture {
        name: "slope",
        element: CaptureElement::F32,
        len: 64,
    },
    Capture {
        name: "document",
        element: CaptureElement::I32,
        len: 1024,
    },
];

fn slope(head: u32) -> f32 {
    [0.5, 0.25, 0.125, -0.25][head as usize % 4]
}

fn document(position: u32) -> i32 {
    position as i32 / 17
}

/// The bytes of a capture of this list.
pub fn capture_bytes(index: usize) -> Vec<u8> {
    match index {
        0 => (0..64).flat_map(|head| slope(head).to_le_bytes()).collect(),
        _ => (0..1024).flat_map(|at| document(at).to_le_bytes()).collect(),
    }
}

/// Functions of a score.
pub const SCORE_MODS: &[Twin<ScoreMod>] = &[
    (
        "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    let distance = f32(i32(q_idx) - i32(kv_idx));
    return select(score - slope[head] * distance, NEGATIVE_INFINITY, kv_idx % 7u == 3u && batch == 0u);
}",
        &|score, [batch, head, q_idx, kv_idx]| match kv_idx % 7 == 3 && batch == 0 {
            true => f64::NEG_INFINITY,
            false => score - f64::from(slope(head)) * (f64::from(q_idx) - f64::from(kv_idx)),
        },
    ),
    (
        "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return score * 0.5 + 0.125 * f32(head) - 0.03125 * f32(kv_idx % 8u);
}",
        &|score, [_, head, _, kv_idx]| score * 0.5 + 0.125 * f64::from(head) - 0.03125 * f64::from(kv_idx % 8),
    ),
    (
        "// Half of them turned around.
fn odd(number: u32) -> bool { return number % 2u == 1u; }
fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return select(score, -score, odd(q_idx + kv_idx));
}",
        &|score, [_, _, q_idx, kv_idx]| if (q_idx + kv_idx) % 2 == 1 { -score } else { score },
    ),
];

/// Functions that say what is open.
pub const MASK_MODS: &[Twin<MaskMod>] = &[
    (
        "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return document[q_idx] == document[kv_idx];
}",
        &|[_, _, q_idx, kv_idx]| document(q_idx) == document(kv_idx),
    ),
    (
        "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return (q_idx * 3u + kv_idx + head) % 4u != 0u;
}",
        &|[_, head, q_idx, kv_idx]| (q_idx * 3 + kv_idx + head) % 4 != 0,
    ),
    (
        "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    return q_idx % 3u != 1u && kv_idx % 2u == batch % 2u;
}",
        &|[batch, _, q_idx, kv_idx]| q_idx % 3 != 1 && kv_idx % 2 == batch % 2,
    ),
];

/// Functions of a weight.
pub const PROB_MODS: &[Twin<ScoreMod>] = &[
    (
        "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return prob * prob + select(0.0, 0.25, q_idx == kv_idx);
}",
        &|prob, [_, _, q_idx, kv_idx]| prob * prob + if q_idx == kv_idx { 0.25 } else { 0.0 },
    ),
    (
        "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return prob * slope[head];
}",
        &|prob, [_, head, _, _]| prob * f64::from(slope(head)),
    ),
    (
        "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {
    return select(prob, 0.0, kv_idx % 3u == 2u);
}",
        &|prob, [_, _, _, kv_idx]| if kv_idx % 3 == 2 { 0.0 } else { prob },
    ),
];

/// The twins of a descriptor's functions; `None` when one has no twin, so that there is nothing to compare with.
pub fn twins(mods: &Mods<'_>) -> Option<ReferenceMods<'static>> {
    Some(ReferenceMods {
        score_mod: twin(mods.score_mod, SCORE_MODS)?.map(|twin| twin as ValueMod<'static>),
        mask_mod: twin(mods.mask_mod, MASK_MODS)?.map(|twin| twin as &dyn Fn([u32; 4]) -> bool),
        prob_mod: twin(mods.prob_mod, PROB_MODS)?.map(|twin| twin as ValueMod<'static>),
    })
}

fn twin<F: Copy>(text: Option<&str>, twins: &[Twin<F>]) -> Option<Option<F>> {
    match text {
        None => Some(None),
        Some(text) => Some(Some(twins.iter().find(|(wgsl, _)| *wgsl == text)?.1)),
    }
}

/// Texts that are no score_mod, whatever else they are.
pub const BROKEN_SCORE_MODS: &[&str] = &[
    "",
    "fn score_mod(score: f32) -> f32 { return score; }",
    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return slop[head]; }",
    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score;",
    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score; }}",
    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return kv_idx; }",
    "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> u32 { return kv_idx; }",
    "fn load_query() {} fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return score; }",
    "/* never closed",
    "fn other() {}",
    "\u{0}",
    "ζωή",
];

/// Texts that are no mask_mod.
pub const BROKEN_MASK_MODS: &[&str] = &[
    "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool { return 1; }",
    "fn mask_mod(batch: u32, head: u32, q_idx: u32) -> bool { return true; }",
    "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool { return mask_mod(batch, head, q_idx, kv_idx); }",
    "}",
];

/// Texts that are no prob_mod.
pub const BROKEN_PROB_MODS: &[&str] = &[
    "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 { return vec2<f32>(prob); }",
    "fn prob_mod(prob: f32) { }",
    "@",
];

/// Lists of captures that no descriptor may have, with what is wrong: a name, too many of them, or an empty one.
pub const BROKEN_CAPTURES: &[(&[Capture<'static>], &str)] = &[
    (&[named("")], "Unsupported"),
    (&[named("a b")], "Unsupported"),
    (&[named("__x")], "Unsupported"),
    (&[named("x"), named("x")], "Unsupported"),
    (&[named("ö")], "Unsupported"),
    (&[named("x"); 17], "Unsupported"),
    (&[Capture { len: 0, ..named("x") }], "ZeroSize"),
];

const fn named(name: &'static str) -> Capture<'static> {
    Capture {
        name,
        element: CaptureElement::U32,
        len: 4,
    }
}
