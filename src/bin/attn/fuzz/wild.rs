//! Descriptors that follow no rule.

use wgpu_attention::{
    Broadcast, CausalAlignment, Dropout, DropoutKeep, KeyPadding, Layout, Packed, Problem, ScoreStage, Strides, Window,
};

use super::case::{Call, Case, Kind};
use super::data::Data;
use super::draw::Draw;
use super::mods::BROKEN_SCORE_MODS;

/// More elements than this are neither drawn nor computed.
const MAX_ELEMENTS: u64 = 1 << 18;

/// Changes some fields of a right case to anything.
pub fn mutate(case: &mut Case, draw: &mut Draw) {
    case.kind = Kind::Wild;
    for _ in 0..draw.range(1, 4) {
        change(case, draw);
    }
    // Nobody checks the contents of buffers: only slices may hold anything.
    if draw.chance(0.7) {
        case.call = Call::Host;
    }
    case.data = match Problem::new(&case.descriptor) {
        Ok(problem) if feasible(&problem) => Data::random(&problem, &case.descriptor, draw),
        _ => Data::default(),
    };
    // A buffer that is too long is right.
    if draw.chance(0.1) && matches!(case.call, Call::Host) && !case.data.arrays.is_empty() {
        let index = draw.index(case.data.arrays.len());
        case.data.arrays[index].1.resize(draw.chance(0.5));
    }
}

/// Whether sequences of the shape's lengths can hold the tokens, and are few enough to look at one by one.
pub fn feasible(problem: &Problem) -> bool {
    let shape = problem.shape();
    let spans = problem.operands().filter_map(|operand| problem.extent(operand));
    let small = spans.map(|extent| extent.span()).sum::<u64>() <= MAX_ELEMENTS;
    small
        && shape.flops() < 1e7
        && problem.packed().is_none_or(|packed| {
            let most = |seqlen: u32| u64::from(shape.batch) * u64::from(seqlen);
            u64::from(packed.tokens_q) <= most(shape.seqlen_q) && u64::from(packed.tokens_k) <= most(shape.seqlen_k)
        })
}

fn change(case: &mut Case, draw: &mut Draw) {
    let descriptor = &mut case.descriptor;
    let shape = &mut descriptor.shape;
    match draw.range(0, 19) {
        0 => shape.batch = draw.wild(),
        1 => shape.heads = draw.wild(),
        2 => shape.kv_heads = draw.wild(),
        3 => shape.seqlen_q = draw.wild(),
        4 => shape.seqlen_k = draw.wild(),
        5 if draw.chance(0.2) => shape.head_dim = draw.wild(),
        6 if draw.chance(0.2) => shape.head_dim_v = draw.wild(),
        7 => descriptor.appended_keys = draw.wild(),
        8 => descriptor.scale = Some(wild_float(draw)),
        9 if descriptor.softcap.is_some() => descriptor.softcap = Some(wild_float(draw)),
        10 => {
            if let Some(dropout) = &mut descriptor.dropout {
                *dropout = Dropout {
                    probability: wild_float(draw),
                    keep: draw.pick(&[
                        DropoutKeep::Given,
                        DropoutKeep::Philox {
                            seed: 0,
                            offset: u32::MAX,
                        },
                    ]),
                };
            }
        }
        11 => {
            let strides = Strides {
                batch: draw.wild(),
                head: draw.wild(),
                row: draw.wild(),
            };
            let layouts = &mut descriptor.layouts;
            let layout = draw.pick(&[Layout::Bhsd, Layout::Bshd, Layout::Strided(strides)]);
            match draw.range(0, 4) {
                0 => layouts.query = layout,
                1 => layouts.key = layout,
                2 => layouts.value = layout,
                3 => layouts.out = layout,
                _ => {
                    // Everything is broadcast, so that huge problems fit into little memory.
                    let nothing = Strides {
                        batch: 0,
                        head: 0,
                        row: 0,
                    };
                    (layouts.query, layouts.key, layouts.value) = (
                        Layout::Strided(nothing),
                        Layout::Strided(nothing),
                        Layout::Strided(nothing),
                    );
                }
            }
        }
        12 => {
            let full = [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k];
            let broadcast = Broadcast {
                shape: full.map(|size| if draw.chance(0.5) { size } else { draw.wild() }),
                strides: draw.maybe(0.5, |draw| [0; 4].map(|_: u32| draw.wild())),
            };
            match draw.chance(0.5) {
                true => descriptor.mask = descriptor.mask.map(|_| broadcast),
                false => descriptor.bias = descriptor.bias.map(|_| broadcast),
            }
        }
        13 => {
            if let Some(mask) = &mut descriptor.block_mask {
                (mask.batch, mask.heads) = (draw.range(0, 3), draw.range(0, 3));
                (mask.block_q, mask.block_kv) = (draw.wild(), draw.wild());
            }
        }
        14 => {
            if let Some(window) = &mut descriptor.window {
                let wild = Some(draw.wild());
                *window = Window {
                    left: draw.pick(&[None, wild]),
                    right: draw.pick(&[wild, Some(0)]),
                    alignment: window.alignment,
                };
            }
        }
        15 => {
            descriptor.packed = descriptor.packed.map(|_| Packed {
                tokens_q: draw.wild(),
                tokens_k: draw.wild(),
            });
        }
        16 => descriptor.outputs.rows = Some([draw.wild(), draw.wild()]),
        17 if draw.chance(0.2) => descriptor.mods.score_mod = Some(draw.pick(BROKEN_SCORE_MODS)),
        18 if draw.chance(0.3) => flip(case, draw),
        _ => shape.seqlen_q = draw.pick(&[0, shape.seqlen_q.saturating_add(1)]),
    }
}

/// Asks for something more, or less.
fn flip(case: &mut Case, draw: &mut Draw) {
    let descriptor = &mut case.descriptor;
    match draw.range(0, 7) {
        0 => descriptor.causal = draw.pick(&[None, Some(CausalAlignment::LowerRight)]),
        1 => descriptor.alibi_slopes ^= true,
        2 => descriptor.sinks ^= true,
        3 => descriptor.outputs.lse ^= true,
        4 => descriptor.outputs.weights ^= true,
        5 => descriptor.outputs.scores = draw.pick(&[None, Some(ScoreStage::Biased)]),
        6 => descriptor.key_padding = draw.pick(&[None, Some(KeyPadding::Boolean), Some(KeyPadding::Lengths)]),
        _ => {
            descriptor.packed = Some(Packed {
                tokens_q: draw.range(0, 20),
                tokens_k: draw.range(0, 20),
            });
        }
    }
}

fn wild_float(draw: &mut Draw) -> f32 {
    draw.pick(&[
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.0 - f32::EPSILON / 2.0,
        f32::MIN_POSITIVE,
        f32::MIN_POSITIVE / 2.0,
        1e-20,
        1e20,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ])
}
