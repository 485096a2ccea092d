// Purpose: keys may be closed, and a closed key's value, whatever it is, must not reach the result: 0 * NaN is NaN. So only what is
// finite is multiplied. Where values were not finite, three rounds over the tiles follow: one that counts, of each row and channel,
// the open keys whose value is +inf or NaN, one for -inf or NaN, and the first again, onto what they found. Hook of slot `rounds`:
// defines main, value_part, round_weight, round_kept and what rows begin with. Needs broadcast.wgsl. Counts hold for fewer than 2^23
// keys, and no dispatch has more than 2^22 (plan/tuning/trips.rs).

const EXPONENT: u32 = 0x7f800000u;
const SIGN: u32 = 0x80000000u;
const COUNT_POSITIVE: u32 = 1u;
const COUNT_NEGATIVE: u32 = 2u;
const LAST_ROUND: u32 = 3u;

var<private> round: u32;
// The highest exponents among the values of this lane: EXPONENT if one was not finite.
var<private> exponents: vec4<u32>;

fn is_counting() -> bool {
    return round == COUNT_POSITIVE || round == COUNT_NEGATIVE;
}

// The finite channels, and 0 for the others; in rounds that count, 1 for each that counts, and 0 for the others.
fn value_part(channels: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(channels);
    let own_exponents = bits & vec4<u32>(EXPONENT);
    exponents = max(exponents, own_exponents);
    let finite = bits & vec4<u32>(select(0xffffffffu, 0u, is_counting()));
    let one = select(0u, bitcast<u32>(1.0), is_counting());
    let other_infinity = select(EXPONENT, EXPONENT | SIGN, round == COUNT_POSITIVE);
    let counted = select(vec4<u32>(one), vec4<u32>(0u), bits == vec4<u32>(other_infinity));
    return bitcast<vec4<f32>>(select(finite, counted, own_exponents == vec4<u32>(EXPONENT)));
}

// In rounds that count, an open key weighs 1.
fn round_weight(score: f32, row_max: f32) -> f32 {
    let least = select(-200.0, 0.0, is_counting());
    let below = score - row_max;
    return select(exp2(select(below, least, below < least) * LOG2_E), bitcast<f32>(CLOSED_WEIGHT_BITS), score == CLOSED);
}

// A dropped weight is 0, and 0 * NaN is NaN: so it counts.
fn round_kept(weights: vec4<f32>, kept: vec4<f32>) -> vec4<f32> {
    return select(kept, weights, is_counting());
}

// What the rounds that count found, as the sum of the values that they counted: 0, an infinity or NaN.
fn counted_sum(count: vec4<f32>) -> vec4<f32> {
    let positive = select(vec4<u32>(0u), vec4<u32>(EXPONENT), floor(count) != count);
    let negative = count >= vec4<f32>(1.0);
    let both = negative & (floor(count) != count);
    return bitcast<vec4<f32>>(select(select(positive, vec4<u32>(EXPONENT | SIGN), negative), vec4<u32>(0x7fc00000u), both));
}

// The row's maximum so far; from the second round on it is as it will be in the end.
fn begin_row_max(row_max: f32, before: f32) -> f32 {
    return select(row_max, before, round == 0u);
}

// What turns what an earlier dispatch left, relative to the maximum before, into the begun row's.
fn begin_rescale(row_max: f32, before: f32) -> f32 {
    return select(exp_below(before - row_max), 1.0, is_counting());
}

// With what a channel begins: what an earlier dispatch left, or what of that counts, onto what was found.
fn begin_channels(count: vec4<f32>, resumed: vec4<f32>, rescale: f32) -> vec4<f32> {
    // A half stands for any number of +inf or NaN, so that -inf or NaN can be counted in ones.
    let half = select(vec4<f32>(0.0), vec4<f32>(0.5), (count > vec4<f32>(0.0)) & vec4<bool>(round == COUNT_NEGATIVE));
    return fma(value_part(resumed), vec4<f32>(rescale), select(half, counted_sum(count), round == LAST_ROUND));
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(subgroup_invocation_id) lane: u32) {
    let number = workgroup_number(workgroup);
    if (number >= params.workgroups) {
        return;
    }
    let position = position_of(number);
    if (is_behind_end(position)) {
        return;
    }
    let own = own_of(position, lane);

    // [r * D4 + d]: channels 4 d to 4 d + 3 of row q_first + LANES * r.
    var query_rows: array<vec4<f32>, ROWS * D4>;
    // [r * DV4_CHUNK + d], likewise.
    var acc: array<vec4<f32>, ROWS * DV4_CHUNK>;
    var row_max: array<f32, ROWS>;
    var row_sum: array<f32, ROWS>;
    load_rows(position, own, &query_rows);
    var rounds = 1u;
    for (round = 0u; round < rounds; round++) {
        begin_rows(position, own, &acc, &row_max, &row_sum);
        visit_tiles(position, own, &query_rows, &acc, &row_max, &row_sum);
        if (round == 0u && subgroupAny(any(exponents == vec4<u32>(EXPONENT)))) {
            rounds = LAST_ROUND + 1u;
        }
    }
    store_rows(position, own, &acc, &row_max, &row_sum);
}
