//! From a mould to a descriptor: sizes, strides and parameters, all of them right.

use wgpu_attention::{
    AttentionDescriptor, AttentionShape, BlockMaskShape, Broadcast, CausalAlignment, Dropout, DropoutKeep, KeyPadding,
    Layout, Layouts, Mods, Outputs, Packed, Strides, Window,
};

use super::draw::Draw;
use super::mods::CAPTURES;
use super::mould::{DropoutKind, LayoutKind, Mould};

/// Multiply-adds of a case: few, since the reference computes them in plain loops.
const MAX_WORK: f64 = 6e5;

/// A descriptor that makes sense.
pub fn descriptor(mould: &Mould, draw: &mut Draw) -> AttentionDescriptor<'static> {
    let shape = shape(mould, draw);
    let appended_keys = appended_keys(mould, shape.seqlen_k, draw);
    let full = [shape.batch, shape.heads, shape.seqlen_q, shape.seqlen_k - appended_keys];
    let packed = mould.packed.then(|| Packed {
        tokens_q: tokens(shape.batch * shape.seqlen_q, draw),
        tokens_k: tokens(shape.batch * shape.seqlen_k, draw),
    });
    AttentionDescriptor {
        label: draw.maybe(0.1, |_| "fuzz"),
        shape,
        dtypes: mould.dtypes,
        scale: draw.maybe(0.4, |draw| draw.pick(&[0.0, -0.5, 0.1, 1.0, 0.3])),
        softcap: mould.softcap.then(|| draw.pick(&[0.01, 1.0, 5.0, 30.0, 1e4])),
        causal: mould.causal.map(|alignment| turned(mould, alignment, draw)),
        window: mould
            .window
            .map(|alignment| window(turned(mould, alignment, draw), draw)),
        mask: mould.mask.then(|| broadcast(full, draw)),
        bias: mould.bias.then(|| broadcast(full, draw)),
        alibi_slopes: mould.alibi_slopes,
        sinks: mould.sinks,
        key_padding: mould.key_padding,
        block_mask: mould.blocks.map(|sizes| block_mask(sizes, &shape, draw)),
        mods: mods(mould),
        dropout: mould.dropout.map(|kind| dropout(kind, draw)),
        appended_keys,
        layouts: layouts(mould, &shape, packed, draw),
        packed,
        outputs: outputs(mould, shape.seqlen_q, draw),
        algorithm: mould.algorithm,
        rope: mould.rope.map(|kind| kind.request(draw)),
    }
}

fn shape(mould: &Mould, draw: &mut Draw) -> AttentionShape {
    let kv_heads = draw.pick(&[1, 1, 1, 2, 2, 3]);
    let mut shape = AttentionShape {
        batch: draw.pick(&[1, 1, 1, 2, 2, 3]),
        heads: kv_heads * draw.pick(&[1, 1, 2, 3]),
        kv_heads,
        seqlen_q: match mould.few_rows {
            true => draw.range(1, 8),
            false => seqlen(draw).max(draw.range(9, 16)),
        },
        seqlen_k: seqlen(draw),
        head_dim: mould.head_dim,
        head_dim_v: mould.head_dim_v,
    };
    while shape.flops() > MAX_WORK {
        if shape.batch > 1 {
            shape.batch -= 1;
        } else if shape.heads > kv_heads {
            shape.heads -= kv_heads;
        } else if shape.kv_heads > 1 {
            (shape.heads, shape.kv_heads) = (1, 1);
        } else if shape.seqlen_q > shape.seqlen_k.max(16) {
            // Still more than 8.
            shape.seqlen_q = shape.seqlen_q.div_ceil(2);
        } else if shape.seqlen_k > 1 {
            shape.seqlen_k = shape.seqlen_k.div_ceil(2);
        } else {
            break;
        }
    }
    shape
}

fn seqlen(draw: &mut Draw) -> u32 {
    match draw.range(0, 19) {
        0..=6 => draw.range(1, 12),
        7..=16 => draw.range(1, 70),
        _ => draw.pick(&[8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257]),
    }
}

/// Some or all keys at the end, where no feature stands against it.
fn appended_keys(mould: &Mould, seqlen_k: u32, draw: &mut Draw) -> u32 {
    let excluded = mould.packed || mould.blocks.is_some() || mould.key_padding == Some(KeyPadding::Lengths);
    if excluded || draw.chance(0.8) {
        return 0;
    }
    let needs_one = mould.mask || mould.bias || mould.key_padding.is_some();
    let most = if needs_one { seqlen_k - 1 } else { seqlen_k };
    draw.range(0, 3).min(most)
}

fn tokens(most: u32, draw: &mut Draw) -> u32 {
    if draw.chance(0.2) { most } else { draw.range(1, most) }
}

/// The other alignment where no kernel differs by it.
fn turned(mould: &Mould, alignment: CausalAlignment, draw: &mut Draw) -> CausalAlignment {
    if mould.packed || mould.key_padding == Some(KeyPadding::Lengths) {
        return alignment;
    }
    draw.pick(&[CausalAlignment::UpperLeft, CausalAlignment::LowerRight])
}

fn window(alignment: CausalAlignment, draw: &mut Draw) -> Window {
    let mut reach = || match draw.range(0, 9) {
        0..=6 => draw.range(0, 40),
        7 => 0,
        8 => draw.range(0, 300),
        _ => u32::MAX,
    };
    let (left, right) = (reach(), reach());
    let side = draw.range(0, 3);
    Window {
        left: (side != 0).then_some(left),
        right: (side != 1).then_some(right),
        alignment,
    }
}

fn broadcast(full: [u32; 4], draw: &mut Draw) -> Broadcast {
    let shape = full.map(|size| if draw.chance(0.35) { 1 } else { size });
    Broadcast {
        shape,
        strides: draw.maybe(0.3, |draw| match draw.range(0, 2) {
            0 => [0, 0, draw.range(0, 3), draw.range(0, 2)],
            1 => {
                let row = shape[3] + draw.range(0, 3);
                let head = shape[2] * row + draw.range(0, 3);
                [shape[1] * head, head, row, 1]
            }
            // Keys before rows.
            _ => [shape[1] * shape[2] * shape[3], shape[2] * shape[3], 1, shape[2]],
        }),
    }
}

fn block_mask([block_q, block_kv]: [u32; 2], shape: &AttentionShape, draw: &mut Draw) -> BlockMaskShape {
    BlockMaskShape {
        batch: draw.pick(&[1, shape.batch]),
        heads: draw.pick(&[1, shape.heads]),
        block_q,
        block_kv,
    }
}

fn mods(mould: &Mould) -> Mods<'static> {
    let there = mould.score_mod.is_some() || mould.mask_mod.is_some() || mould.prob_mod.is_some();
    Mods {
        score_mod: mould.score_mod,
        mask_mod: mould.mask_mod,
        prob_mod: mould.prob_mod,
        captures: if there { CAPTURES } else { &[] },
    }
}

fn dropout(kind: DropoutKind, draw: &mut Draw) -> Dropout {
    Dropout {
        probability: draw.pick(&[0.1, 0.3, 0.5, 0.9, 0.999, 1e-8]),
        keep: match kind {
            DropoutKind::Given => DropoutKeep::Given,
            DropoutKind::Generated => DropoutKeep::Philox {
                seed: draw.word(),
                offset: draw.word() as u32,
            },
        },
    }
}

fn outputs(mould: &Mould, seqlen_q: u32, draw: &mut Draw) -> Outputs {
    let looks = mould.weights || mould.scores.is_some();
    // With a prob_mod all rows' weights are made.
    let all = mould.prob_mod.is_some() && mould.weights;
    Outputs {
        lse: mould.lse,
        weights: mould.weights,
        scores: mould.scores,
        rows: (looks && mould.some_rows && !all).then(|| {
            let begin = draw.range(0, seqlen_q - 1);
            [begin, draw.range(begin + 1, seqlen_q)]
        }),
    }
}

fn layouts(mould: &Mould, shape: &AttentionShape, packed: Option<Packed>, draw: &mut Draw) -> Layouts {
    let [rows_q, rows_k] = match packed {
        None => [shape.seqlen_q, shape.seqlen_k],
        Some(packed) => [packed.tokens_q, packed.tokens_k],
    };
    let [query, key, value, out] = mould.layouts;
    Layouts {
        query: layout(query, [shape.heads, rows_q, shape.head_dim], draw),
        key: layout(key, [shape.kv_heads, rows_k, shape.head_dim], draw),
        value: layout(value, [shape.kv_heads, rows_k, shape.head_dim_v], draw),
        out: layout(out, [shape.heads, rows_q, shape.head_dim_v], draw),
    }
}

fn layout(kind: LayoutKind, [heads, rows, channels]: [u32; 3], draw: &mut Draw) -> Layout {
    let (unit, most_units) = match kind {
        LayoutKind::Bhsd => return Layout::Bhsd,
        LayoutKind::Bshd => return Layout::Bshd,
        LayoutKind::Shared => {
            let stride = |draw: &mut Draw| if draw.chance(0.5) { 0 } else { 4 * draw.range(0, 10) };
            return Layout::Strided(Strides {
                batch: stride(draw),
                head: stride(draw),
                row: stride(draw),
            });
        }
        LayoutKind::Padded => (4, 2),
        LayoutKind::Odd => (1, 5),
    };
    let rows_inside = draw.chance(0.5);
    let mut padded = |size: u32| size.next_multiple_of(unit) + unit * draw.range(0, most_units);
    let mut inner = padded(channels);
    if kind == LayoutKind::Odd && inner.is_multiple_of(4) {
        inner += 1;
    }
    let [head, row, batch] = if rows_inside {
        let head = padded(rows * inner);
        [head, inner, padded(heads * head)]
    } else {
        let row = padded(heads * inner);
        [inner, row, padded(rows * row)]
    };
    Layout::Strided(Strides { batch, head, row })
}
