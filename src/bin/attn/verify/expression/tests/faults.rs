//! What is no expression.

use super::*;

#[test]
fn faults_say_where_and_what() {
    let fixture = Fixture::new();
    let fault = |text: &str| match fixture.read(Hook::Score, text) {
        Ok(_) => panic!("{text} is no fault"),
        Err(error) => (error.column, error.found, error.expected),
    };
    for (text, column, found, expected) in [
        ("", 1, "the end", "a number, a name or `(`"),
        ("s + ", 5, "the end", "a number, a name or `(`"),
        ("s + )", 5, "`)`", "a number, a name or `(`"),
        ("(s + 1", 7, "the end", "`)`"),
        ("s s", 3, "`s`", "an operator or the end"),
        ("s = 1", 3, "`=`", "an operator or the end"),
        ("s + é", 5, "`é`", "a number, a name or `(`"),
        ("slopes[h", 9, "the end", "`]`"),
        ("q ? 1", 6, "the end", "`:`"),
        ("0 <= q < kv", 8, "`<`", "`&&`, since comparisons do not chain"),
        ("q == kv == b", 9, "`==`", "`&&`, since comparisons do not chain"),
        ("1e", 1, "`1e`", "a number"),
        ("1.5x", 1, "`1.5x`", "a number"),
        ("12ab", 1, "`12ab`", "a number"),
        ("1.5u", 1, "`1.5u`", "a number"),
        ("3000000000", 1, "`3000000000`", "an integer of 32 bits"),
        (
            "99999999999999999999",
            1,
            "`99999999999999999999`",
            "an integer of 32 bits",
        ),
        (
            "s + foo[q]",
            5,
            "`foo`",
            "one of bias blocks buckets doc_kv doc_q hs kb len prefix qb rel slopes table temperature width",
        ),
        ("é", 1, "`é`", "a number, a name or `(`"),
        (
            "table[q]",
            1,
            "`table` with 1 indexes",
            "2, one for each axis of its shape [8, 4]",
        ),
        (
            "table",
            1,
            "`table` with 0 indexes",
            "2, one for each axis of its shape [8, 4]",
        ),
        ("slopes[s]", 8, "a float as an index", "an integer; `int()` makes one"),
        (
            "slopes[q < 1]",
            10,
            "a boolean as an index",
            "an integer; `int()` makes one",
        ),
        ("slopes[4]", 8, "`4`", "0 to 3, an index of the axis"),
        ("slopes[-1]", 8, "`-1`", "0 to 3, an index of the axis"),
        ("min(s)", 1, "`min` with 1 arguments", "2"),
        ("int(s, s)", 1, "`int` with 2 arguments", "1"),
        ("q / 0", 3, "`0` on the right", "a divisor other than 0"),
        ("q % (1 - 1)", 3, "`0` on the right", "a divisor other than 0"),
        ("q << 32", 3, "`32` on the right", "a shift by 0 to 31"),
        ("s & 1", 3, "a bit operation on a float", "integers"),
        ("~s", 1, "`~` of a float", "an integer"),
        ("1e39", 1, "the constant 1e39", "`inf`, or a number that an f32 holds"),
        (
            "inf - inf",
            5,
            "the constant NaN",
            "`inf`, or a number that an f32 holds",
        ),
    ] {
        assert_eq!(fault(text), (column, found.into(), expected.into()), "{text}");
    }
    let unknown = fault("s + p").2;
    assert!(unknown.starts_with("one of s b h q kv bias ") && unknown.ends_with(" cap offset false inf true"));
    assert!(fault("sinh(s)").2.starts_with("one of abs ceil "));

    let error = fixture.read(Hook::Mask, "q + s").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("mask_mod \"q + s\", column 5: found `s`, expected one of b h q kv ")
    );
}
