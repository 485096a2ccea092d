//! Every expression of the oracle cases, against the same written in Rust.

use super::*;

type ScoreFunction = fn(&Fixture, f64, [i64; 4]) -> f64;
type MaskFunction = fn(&Fixture, [i64; 4]) -> bool;

#[test]
fn score_expressions_of_the_cases() {
    let cases: &[(&str, ScoreFunction)] = &[
        ("s", |_, s, _| s),
        ("s + 0.5", |_, s, _| s + 0.5),
        ("20.0 * tanh(s / 20.0)", |_, s, _| 20.0 * (s / 20.0).tanh()),
        ("s * hs[h]", |x, s, [_, h, ..]| s * x.at("hs", &[h])),
        ("s + (q - kv)", |_, s, [_, _, q, kv]| s + (q - kv) as f64),
        ("s + bias[0][h][q][kv]", |x, s, [_, h, q, kv]| {
            s + x.at("bias", &[0, h, q, kv])
        }),
        ("s + qb[h][q] * kb[h][kv]", |x, s, [_, h, q, kv]| {
            s + x.at("qb", &[h, q]) * x.at("kb", &[h, kv])
        }),
        ("s + slopes[h] * (kv - q - 0)", |x, s, [_, h, q, kv]| {
            s + x.at("slopes", &[h]) * (kv - q) as f64
        }),
        ("s + slopes[h] * (kv - q)", |x, s, [_, h, q, kv]| {
            s + x.at("slopes", &[h]) * (kv - q) as f64
        }),
        ("s + table[buckets[q][kv]][h]", |x, s, [_, h, q, kv]| {
            s + x.at("table", &[x.at("buckets", &[q, kv]) as i64, h])
        }),
        ("s + rel[h][q - kv + 31]", |x, s, [_, h, q, kv]| {
            s + x.at("rel", &[h, q - kv + 31])
        }),
        ("s - slopes[h] * abs(kv - q - 0)", |x, s, [_, h, q, kv]| {
            s - x.at("slopes", &[h]) * (kv - q).abs() as f64
        }),
        (
            "select(-inf, s, q >= kv)",
            |_, s, [_, _, q, kv]| {
                if q >= kv { s } else { f64::NEG_INFINITY }
            },
        ),
        ("select(s, s * 0.5, (kv - q) % 2 == 0)", |_, s, [_, _, q, kv]| {
            if (kv - q) % 2 == 0 { s * 0.5 } else { s }
        }),
    ];
    let fixture = Fixture::new();
    let places: Vec<_> = places(32).collect();
    for (text, want) in cases {
        let expression = fixture.expression(Hook::Score, text);
        let function = expression.value_function();
        for score in [-40.0, -0.75, 0.0, 3.5] {
            let got: Vec<_> = places.iter().map(|&place| function(score, place)).collect();
            for (got, place) in got.iter().zip(&places) {
                let want = want(&fixture, score, place.map(i64::from));
                assert_eq!(*got, want, "{text} at {score}, {place:?}");
            }
            device::compare(&expression, score, &places, &got);
        }
    }
}

#[test]
fn mask_expressions_of_the_cases() {
    let cases: &[(&str, MaskFunction)] = &[
        ("(abs(q - kv) <= 36) && ((q - kv) % 3 == 0)", |_, [_, _, q, kv]| {
            (q - kv).abs() <= 36 && (q - kv) % 3 == 0
        }),
        (
            "(abs(q / 8 - kv / 8) <= 2) && (abs(q % 8 - kv % 8) <= 1)",
            |_, [_, _, q, kv]| (q / 8 - kv / 8).abs() <= 2 && (q % 8 - kv % 8).abs() <= 1,
        ),
        ("(doc_q[q] == doc_kv[kv]) && (q >= kv)", |x, [_, _, q, kv]| {
            x.at("doc_q", &[q]) == x.at("doc_kv", &[kv]) && q >= kv
        }),
        ("(kv < 4) || ((q >= kv) && (q - kv <= 12))", |_, [_, _, q, kv]| {
            kv < 4 || (q >= kv && q - kv <= 12)
        }),
        ("(kv < len[b]) && (q < len[b])", |x, [b, _, q, kv]| {
            (q.max(kv) as f64) < x.at("len", &[b])
        }),
        ("(kv < prefix[b]) || (q >= kv)", |x, [b, _, q, kv]| {
            (kv as f64) < x.at("prefix", &[b]) || q >= kv
        }),
        ("(q + 0 >= kv) && (q + 0 - kv <= 12)", |_, [_, _, q, kv]| {
            q >= kv && q - kv <= 12
        }),
        ("(q >= kv) && (q - kv < width[h])", |x, [_, h, q, kv]| {
            q >= kv && ((q - kv) as f64) < x.at("width", &[h])
        }),
        ("(q >= kv) && (q - kv <= 9)", |_, [_, _, q, kv]| q >= kv && q - kv <= 9),
        ("abs(q - kv) <= 12", |_, [_, _, q, kv]| (q - kv).abs() <= 12),
        ("blocks[q / 16][kv / 16]", |x, [_, _, q, kv]| {
            x.at("blocks", &[q / 16, kv / 16]) != 0.0
        }),
        ("doc_q[q] == doc_kv[kv]", |x, [_, _, q, kv]| {
            x.at("doc_q", &[q]) == x.at("doc_kv", &[kv])
        }),
        ("kv <= q + 0", |_, [_, _, q, kv]| kv <= q),
        ("q >= kv", |_, [_, _, q, kv]| q >= kv),
    ];
    let fixture = Fixture::new();
    let places: Vec<_> = places(64).collect();
    for (text, want) in cases {
        let expression = fixture.expression(Hook::Mask, text);
        let function = expression.mask_function();
        let got: Vec<_> = places.iter().map(|&place| function(place)).collect();
        for (got, place) in got.iter().zip(&places) {
            let want = want(&fixture, place.map(i64::from));
            assert_eq!(*got, want, "{text} at {place:?}");
        }
        let got: Vec<_> = got.into_iter().map(|open| f64::from(u8::from(open))).collect();
        device::compare(&expression, 0.0, &places, &got);
    }
}

/// Every `[b, h, q, kv]` of a case's size.
fn places(seqlen: u32) -> impl Iterator<Item = [u32; 4]> {
    let heads = (0..2).flat_map(|b| (0..4).map(move |h| (b, h)));
    heads.flat_map(move |(b, h)| (0..seqlen).flat_map(move |q| (0..seqlen).map(move |kv| [b, h, q, kv])))
}
