//! The corners of the language.

use super::*;

/// The value of a score expression at a score of 2.5 and `[b, h, q, kv]` = `[1, 3, 5, 7]`, which the GPU finds too.
fn value(text: &str) -> f64 {
    let fixture = Fixture::new();
    let expression = fixture.expression(Hook::Score, text);
    let (score, place) = (2.5, [1, 3, 5, 7]);
    let value = expression.value_function()(score, place);
    device::compare(&expression, score, &[place], &[value]);
    value
}

#[test]
fn precedence_and_grouping_are_those_of_c() {
    for (text, want) in [
        ("1 + 2 * 3", 7.0),
        ("q - kv - b", -3.0),
        ("q / 2 * 2", 4.0),
        ("-q * 2 + -kv", -17.0),
        ("- -q", 5.0),
        ("q << 1 + 1", 20.0),
        ("q | kv & 4 ^ 1", 5.0),
        ("(q == 5) == (kv == 7)", 1.0),
        ("q < kv == h < kv", 1.0),
        ("q == 5 || b == 0 && h == 0", 1.0),
        ("!q + 2", 2.0),
        ("~q & 15", 10.0),
        ("q > kv ? 1 : q < kv ? 2 : 3", 2.0),
        ("(q)", 5.0),
        ("1 - 2 - 3 * (4 - 5 - 6)", 20.0),
        ("s*-inf", f64::NEG_INFINITY),
        ("\tq\n+kv ", 12.0),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn integers_divide_and_wrap_as_in_wgsl() {
    for (text, want) in [
        ("q / 2", 2.0),
        ("(b - q) / 3", -1.0),
        ("(b - q) % 3", -1.0),
        ("q / 2.0", 2.5),
        ("q / (b - 1)", 5.0),
        ("q % (b - 1)", 0.0),
        ("q % 2.25", 0.5),
        ("-2147483648 + q - 5", -2_147_483_648.0),
        ("2147483647 + b", -2_147_483_648.0),
        ("abs(-2147483648 - b + 1)", -2_147_483_648.0),
        ("(-16 - q) >> 1", -11.0),
        ("1 << (q + 28)", 2.0),
        ("0x1F & q", 5.0),
        ("int(-2.9 * b)", -2.0),
        ("i32(1e20 * s)", 2_147_483_647.0),
        ("float(q) / kv", 5.0 / 7.0),
        ("f32(q) / 2", 2.5),
        ("3u * q + 1i", 16.0),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn types_mix() {
    for (text, want) in [
        ("s + q", 7.5),
        ("s * (q < kv)", 2.5),
        ("s * (q > kv)", 0.0),
        ("true + true", 2.0),
        ("select(q, 0.5, true)", 0.5),
        ("select(q, 0.5, b - 1)", 5.0),
        ("(q < kv) & (b == 1)", 1.0),
        ("(q < kv) ^ (b == 1)", 0.0),
        ("(q < kv) | false", 1.0),
        ("(q < kv) == 1", 1.0),
        ("(q < kv) != (b == 0)", 1.0),
        ("-(q < kv)", -1.0),
        ("bool(s)", 1.0),
        ("int(q < kv) + bool(0)", 1.0),
        ("blocks[0][1] + blocks[0][0] * 3", 3.0),
        ("cap * offset", -60.0),
        ("s * temperature", 1.25),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn functions() {
    for (text, want) in [
        ("abs(s - 3) + abs(q - kv)", 2.5),
        ("min(q, kv) + max(s, 3)", 8.0),
        ("clamp(s, 0, 1) + clamp(q, 6, 8)", 7.0),
        ("clamp(s, 1, 0)", 0.0),
        ("tanh(s)", 2.5f64.tanh()),
        ("tanh(s * 1000)", 1.0),
        ("exp(s) + exp2(q)", 2.5f64.exp() + 32.0),
        ("log(s) + log2(q + 3)", 2.5f64.ln() + 3.0),
        ("sqrt(q - 1)", 2.0),
        ("pow(s, 2) + pow(q - kv, 3) + pow(-s, b - 1)", 6.25 - 8.0 + 1.0),
        ("sin(s) + cos(s) + tan(s)", 2.5f64.sin() + 2.5f64.cos() + 2.5f64.tan()),
        ("floor(-s) + ceil(s) * 10 + trunc(-s) * 100", -3.0 + 30.0 - 200.0),
        ("round(s) + round(s + 1)", 6.0),
        ("fract(-s) + fract(0.25 * b)", 0.75),
        ("sign(q - kv) + sign(s) * 10 + sign(b - 1) * 100", 9.0),
        ("rel[3][int(floor(s))]", value("rel[3][2]")),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn tanh_takes_every_number() {
    let fixture = Fixture::new();
    let expression = fixture.expression(Hook::Score, "tanh(s)");
    for (score, want) in [
        (f32::INFINITY, 1.0),
        (-1e30, -1.0),
        (89.0, 1.0),
        (-15.1, -1.0),
        (0.0, 0.0),
    ] {
        device::compare(&expression, score.into(), &[[0; 4]], &[want]);
    }
    let [got] = device::run(&expression, f32::NAN, &[[0; 4]])[..] else {
        panic!("one place, one result")
    };
    assert!(got.is_nan(), "{got}");
}

#[test]
fn literals() {
    for (text, want) in [
        ("1e3", 1000.0),
        ("1.5e-2", 0.015),
        (".5", 0.5),
        ("2.", 2.0),
        ("2.f + 1f", 3.0),
        ("1E+2", 100.0),
        ("1e-45", 1e-45),
        ("-3.4028234663852886e38", -3.402_823_466_385_288_6e38),
        ("-0.0 * s", 0.0),
        ("inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn indexes_are_held_within_their_axis() {
    for (text, same) in [
        ("rel[h][q - kv - 100]", "rel[3][0]"),
        ("rel[h][q + kv + 100]", "rel[3][62]"),
        ("rel[h + 9][kv]", "rel[3][7]"),
        ("rel[b - 9, kv]", "rel[0][7]"),
        ("bias[b][h][q][kv]", "bias[0][3][5][7]"),
    ] {
        assert_eq!(value(text), value(same), "{text}");
    }
}

#[test]
fn depth_has_a_limit_and_naga_reads_all_up_to_it() {
    let sums = |terms: usize| format!("s{}", " + s".repeat(terms - 1));
    assert_eq!(value(&sums(199)), 2.5 * 199.0);
    assert_eq!(value(&format!("{}s{}", "abs(".repeat(98), ")".repeat(98))), 2.5);
    let fixture = Fixture::new();
    let n = 100_000;
    for text in [
        sums(n),
        "(".repeat(n),
        "-".repeat(n),
        "abs(".repeat(n),
        "s ? s : ".repeat(n),
        "1 ? ".repeat(n),
    ] {
        let error = fixture.read(Hook::Score, &text).unwrap_err();
        assert_eq!(error.expected, "at most 200 levels");
    }
}
