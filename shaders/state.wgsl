// Purpose: the attention state of a row, (row_max, row_sum, acc), and the numbers that stand for closed positions.
// Source: Milakov & Gimelshein, "Online normalizer calculation for softmax" (2018); Dao, "FlashAttention-2" (2023), 3.1.
//
// WGSL has no infinities in constant expressions and lets implementations assume that none occur, so a closed score is a
// finite number of its own, and no open score may equal it.

// Score of a closed position: the lowest finite f32.
const CLOSED: f32 = -3.4028234663852886e38;
// The lowest score that an open position can have: one step above CLOSED.
const LOWEST_OPEN: f32 = -3.4028232635611926e38;
// Weight of a closed position: minus zero, equal to zero in every sum, but told apart from an open weight that underflowed.
const CLOSED_WEIGHT_BITS: u32 = 0x80000000u;
const LOG2_E: f32 = 1.4426950408889634;

// Keeps an open score apart from CLOSED. NaN passes.
fn open_score(score: f32) -> f32 {
    return select(score, LOWEST_OPEN, score < LOWEST_OPEN);
}

// exp(x) for x <= 0 that underflows to 0 without ever meeting an infinity. NaN passes.
fn exp_below(x: f32) -> f32 {
    return exp2(select(x, -200.0, x < -200.0) * LOG2_E);
}

// The unnormalised weight of a score against the row's maximum.
fn weight_of(score: f32, row_max: f32) -> f32 {
    return select(exp_below(score - row_max), bitcast<f32>(CLOSED_WEIGHT_BITS), score == CLOSED);
}

fn is_closed_weight(weight: vec4<f32>) -> vec4<bool> {
    return bitcast<vec4<u32>>(weight) == vec4<u32>(CLOSED_WEIGHT_BITS);
}
