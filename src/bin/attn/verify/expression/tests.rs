//! Expressions computed, translated, validated by naga, and run on the GPU.

mod call;
mod cases;
mod device;
mod faults;
mod language;

use wgpu_attention::CaptureElement;

use super::*;

/// Inputs and parameters that expressions may name.
struct Fixture {
    inputs: Vec<Captured>,
    parameters: BTreeMap<String, Value>,
}

impl Fixture {
    fn new() -> Self {
        let parameters = [("cap", Value::Float(20.0)), ("offset", Value::Int(-3))];
        Self {
            inputs: inputs(),
            parameters: parameters.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    fn read(&self, hook: Hook, text: &str) -> Result<Expression<'_>, ExpressionError> {
        Expression::new(
            hook,
            text,
            &Scope {
                inputs: &self.inputs,
                parameters: &self.parameters,
            },
        )
    }

    fn expression(&self, hook: Hook, text: &str) -> Expression<'_> {
        self.read(hook, text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Element of an input by indexes that are within it.
    fn at(&self, role: &str, indexes: &[i64]) -> f64 {
        let input = self.inputs.iter().find(|input| input.role == role).unwrap();
        let place = indexes
            .iter()
            .zip(&input.shape)
            .fold(0, |place, (index, size)| place * *size as usize + *index as usize);
        match &input.values {
            Values::Float(values) => values[place],
            Values::Int(values) => values[place].into(),
            Values::Bool(values) => f64::from(u8::from(values[place])),
        }
    }
}

/// Inputs with the shapes and types of the oracle cases, and one of each other kind.
fn inputs() -> Vec<Captured> {
    let float = |role: &str, shape: &[u32]| {
        let count: u32 = shape.iter().product();
        let values = (0..count).map(|i| f64::from(i * 7 % 11) * 0.25 - 1.0).collect();
        captured(role, shape, Values::Float(values))
    };
    let int = |role: &str, shape: &[u32], values: &dyn Fn(u32) -> u32| {
        let count: u32 = shape.iter().product();
        captured(role, shape, Values::Int((0..count).map(|i| values(i) as i32).collect()))
    };
    vec![
        float("bias", &[1, 4, 32, 32]),
        captured("blocks", &[4, 4], Values::Bool((0..16).map(|i| i % 3 != 1).collect())),
        int("buckets", &[32, 32], &|i| i % 8),
        int("doc_kv", &[64], &|i| i / 20),
        int("doc_q", &[64], &|i| i / 23),
        float("hs", &[4]),
        float("kb", &[4, 32]),
        int("len", &[2], &|i| 20 + 17 * i),
        int("prefix", &[2], &|i| 5 + 9 * i),
        float("qb", &[4, 32]),
        float("rel", &[4, 63]),
        float("slopes", &[4]),
        float("table", &[8, 4]),
        captured("temperature", &[], Values::Float(vec![0.5])),
        int("width", &[4], &|i| 3 + 4 * i),
    ]
}

fn captured(role: &str, shape: &[u32], values: Values) -> Captured {
    Captured {
        role: role.into(),
        shape: shape.into(),
        values,
    }
}

#[test]
fn a_probability_and_its_hook() {
    let fixture = Fixture::new();
    let expression = fixture.expression(Hook::Probability, "p * 0.5 + q");
    assert_eq!(expression.value_function()(0.25, [0, 0, 3, 0]), 3.125);
    assert_eq!(
        expression.wgsl(),
        "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32 {\n    \
         return ((prob * 0.5f) + f32(i32(q_idx)));\n}\n"
    );
}

#[test]
fn wgsl_is_what_it_should_be() {
    let fixture = Fixture::new();
    let body = |hook, text| {
        let function = fixture.expression(hook, text).wgsl();
        let (_, body) = function.split_once("    return ").unwrap();
        body.trim_end_matches(";\n}\n").to_owned()
    };
    for (text, want) in [
        (
            "select(-inf, s, q >= kv)",
            "select(NEGATIVE_INFINITY, score, (i32(q_idx) >= i32(kv_idx)))",
        ),
        ("s * 2 + inf", "((score * 2.0f) + (-NEGATIVE_INFINITY))"),
        (
            "bias[0][h][q][2]",
            "captured_bias[u32(clamp(i32(head), 0i, 3i)) * 1024u + u32(clamp(i32(q_idx), 0i, 31i)) * 32u + 2u]",
        ),
        ("temperature", "captured_temperature[0u]"),
        ("kv % -3", "f32((i32(kv_idx) % (-3i)))"),
    ] {
        assert_eq!(body(Hook::Score, text), want);
    }
    assert_eq!(
        body(Hook::Mask, "len[b] - 3"),
        "((captured_len[u32(clamp(i32(batch), 0i, 1i))] - 3i) != 0i)"
    );
    assert_eq!(
        body(Hook::Mask, "blocks[0][0]"),
        "(captured_blocks[0u * 4u + 0u] != 0u)"
    );
}

#[test]
fn captured_inputs_are_listed_once() {
    let fixture = Fixture::new();
    let roles = |captured: &[&Captured]| captured.iter().map(|input| input.role.clone()).collect::<Vec<_>>();
    let score = fixture.expression(Hook::Score, "s + table[buckets[q][kv]][h] + table[0][0]");
    let mask = fixture.expression(Hook::Mask, "buckets[q][kv] < len[b]");
    assert_eq!(roles(score.captured()), ["buckets", "table"]);
    assert_eq!(roles(&all_captured(&[&score, &mask])), ["buckets", "len", "table"]);
}

#[test]
fn captured_inputs_are_read_and_laid_out() {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    let read = |dtype, shape: &[usize], bytes: &[u8]| {
        Captured::read("x", &TensorView::new(dtype, shape.to_vec(), bytes).unwrap())
    };
    let wide = [1i64, -2].map(i64::to_le_bytes).concat();
    let ints = read(Dtype::I64, &[2], &wide).unwrap();
    assert_eq!(
        (ints.wgsl_name(), ints.element()),
        ("captured_x".into(), CaptureElement::I32)
    );
    assert_eq!(ints.bytes(), [1i32, -2].map(i32::to_le_bytes).concat());
    let bools = read(Dtype::BOOL, &[1, 3], &[1, 0, 1]).unwrap();
    assert_eq!((bools.element(), &bools.shape[..]), (CaptureElement::U32, &[1, 3][..]));
    assert_eq!(bools.bytes(), [1u32, 0, 1].map(u32::to_le_bytes).concat());
    let halves = read(Dtype::F16, &[1], &half::f16::from_f32(-1.5).to_le_bytes()).unwrap();
    assert_eq!(
        (halves.element(), halves.bytes()),
        (CaptureElement::F32, (-1.5f32).to_le_bytes().to_vec())
    );
    let doubles = read(Dtype::F64, &[1], &0.1f64.to_le_bytes()).unwrap();
    assert_eq!(doubles.values, Values::Float(vec![0.1]));
    assert_eq!(doubles.bytes(), 0.1f32.to_le_bytes());

    let beyond = read(Dtype::I64, &[1], &(1i64 << 31).to_le_bytes()).unwrap_err();
    assert_eq!(beyond.to_string(), "x has the element 2147483648, expected an i32");
    assert!(read(Dtype::U8, &[1], &[0]).is_err());
    assert!(read(Dtype::F32, &[2, 0], &[]).is_err());
}

#[test]
fn parameters_are_numbers_as_they_are_written() {
    let value = |text: &str| Value::from_json(&serde_json::from_str(text).unwrap());
    assert_eq!(value("3"), Some(Value::Int(3)));
    assert_eq!(value("3.0"), Some(Value::Float(3.0)));
    assert_eq!(value("true"), Some(Value::Bool(true)));
    assert_eq!(value("4294967296"), None);
    assert_eq!(value("\"3\""), None);
}
