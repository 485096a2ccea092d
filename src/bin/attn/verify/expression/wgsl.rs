//! A typed tree as WGSL.

use std::fmt::Write as _;

use super::parse::{Binary, Unary};
use super::types::{Function, Operation, Type, Typed, Value};
use super::{Captured, Hook};

/// Deeper expressions are broken into statements: naga reads no more than some 90 nested parentheses.
const MAX_NESTING: usize = 24;

/// The function of a hook.
pub fn function(hook: Hook, root: &Typed, captured: &[&Captured]) -> String {
    let mut writer = Writer {
        hook,
        captured,
        body: String::new(),
        locals: 0,
        pow: false,
        tanh: false,
    };
    let result = writer.expression(root).text;
    let Writer { body, pow, tanh, .. } = writer;
    let name = hook.name();
    let mut text = String::new();
    if pow {
        let _ = writeln!(text, "{}", POW.replace("HOOK", name));
    }
    if tanh {
        let _ = writeln!(text, "{}", TANH.replace("HOOK", name));
    }
    let (value, output) = match hook {
        Hook::Score => ("score: f32, ", "f32"),
        Hook::Mask => ("", "bool"),
        Hook::Probability => ("prob: f32, ", "f32"),
    };
    let indexes = "batch: u32, head: u32, q_idx: u32, kv_idx: u32";
    let _ = write!(
        text,
        "fn {name}({value}{indexes}) -> {output} {{\n{body}    return {result};\n}}\n"
    );
    text
}

// In these, HOOK stands for the hook's name, so that the texts of two hooks can be joined.
const POW: &str = include_str!("pow.wgsl");
const TANH: &str = include_str!("tanh.wgsl");

struct Writer<'a> {
    hook: Hook,
    captured: &'a [&'a Captured],
    /// The statements so far.
    body: String,
    /// How many of them are expressions broken off.
    locals: usize,
    /// Whether the functions of this name are needed.
    pow: bool,
    tanh: bool,
}

/// An expression that can stand as an operand of any operator.
struct Text {
    text: String,
    nesting: usize,
}

impl Writer<'_> {
    fn expression(&mut self, node: &Typed) -> Text {
        let operands: Vec<Text> = node.operands.iter().map(|operand| self.expression(operand)).collect();
        let nesting = operands.iter().map(|operand| operand.nesting + 1).max().unwrap_or(0);
        let operands: Vec<&str> = operands.iter().map(|operand| operand.text.as_str()).collect();
        let text = match node.operation {
            Operation::Constant(value) => literal(value),
            Operation::Value if self.hook == Hook::Probability => "prob".into(),
            Operation::Value => "score".into(),
            Operation::Index(place) => format!("i32({})", ["batch", "head", "q_idx", "kv_idx"][place]),
            Operation::Load(place) => load(self.captured[place], node, &operands),
            Operation::Convert => conversion(node.operands[0].type_, node.type_, operands[0]),
            Operation::Unary(operator) => unary(operator, operands[0]),
            Operation::Binary(operator) => binary(operator, operands[0], operands[1]),
            Operation::Function(function) => self.call(function, &operands),
        };
        if nesting < MAX_NESTING {
            return Text { text, nesting };
        }
        let name = format!("part_{}", self.locals);
        self.locals += 1;
        let _ = writeln!(self.body, "    let {name} = {text};");
        Text { text: name, nesting: 0 }
    }

    fn call(&mut self, function: Function, operands: &[&str]) -> String {
        let hook = self.hook.name();
        let name = match function {
            Function::Abs => "abs",
            Function::Ceil => "ceil",
            // WGSL refuses bounds in the wrong order when it knows them.
            Function::Clamp => return format!("min(max({}, {}), {})", operands[0], operands[1], operands[2]),
            Function::Cos => "cos",
            Function::Exp => "exp",
            Function::Exp2 => "exp2",
            Function::Floor => "floor",
            Function::Fract => "fract",
            Function::Log => "log",
            Function::Log2 => "log2",
            Function::Max => "max",
            Function::Min => "min",
            Function::Pow => {
                self.pow = true;
                return format!("{hook}_pow({})", operands.join(", "));
            }
            Function::Round => "round",
            Function::Select => "select",
            Function::Sign => "sign",
            Function::Sin => "sin",
            Function::Sqrt => "sqrt",
            Function::Tan => "tan",
            Function::Tanh => {
                self.tanh = true;
                return format!("{hook}_tanh({})", operands.join(", "));
            }
            Function::Trunc => "trunc",
        };
        format!("{name}({})", operands.join(", "))
    }
}

fn literal(value: Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        // The lowest integer has no literal: the minus sign is an operator.
        Value::Int(i32::MIN) => format!("({}i - 1i)", i32::MIN + 1),
        Value::Int(value) if value < 0 => format!("({value}i)"),
        Value::Int(value) => format!("{value}i"),
        Value::Float(f64::INFINITY) => "(-NEGATIVE_INFINITY)".into(),
        Value::Float(f64::NEG_INFINITY) => "NEGATIVE_INFINITY".into(),
        Value::Float(value) if value.is_sign_negative() => format!("({:?}f)", value as f32),
        Value::Float(value) => format!("{:?}f", value as f32),
    }
}

/// An element; each index is held within its axis.
fn load(captured: &Captured, node: &Typed, indexes: &[&str]) -> String {
    let mut terms = Vec::new();
    let mut stride: u32 = captured.shape.iter().product();
    for ((index, text), &size) in node.operands.iter().zip(indexes).zip(&captured.shape) {
        stride /= size;
        let term = match index.operation {
            _ if size == 1 => continue,
            Operation::Constant(Value::Int(value)) => format!("{value}u"),
            _ => format!("u32(clamp({text}, 0i, {}i))", size - 1),
        };
        terms.push(match stride {
            1 => term,
            _ => format!("{term} * {stride}u"),
        });
    }
    let place = if terms.is_empty() {
        "0u".into()
    } else {
        terms.join(" + ")
    };
    let element = format!("{}[{place}]", captured.wgsl_name());
    match node.type_ {
        Type::Bool => format!("({element} != 0u)"),
        _ => element,
    }
}

fn conversion(from: Type, to: Type, operand: &str) -> String {
    match (from, to) {
        (Type::Bool, Type::Int) => format!("select(0i, 1i, {operand})"),
        (Type::Bool, _) => format!("select(0.0f, 1.0f, {operand})"),
        (_, Type::Int) => format!("i32({operand})"),
        (_, Type::Float) => format!("f32({operand})"),
        (Type::Int, Type::Bool) => format!("({operand} != 0i)"),
        (Type::Float, Type::Bool) => format!("({operand} != 0.0f)"),
    }
}

fn unary(operator: Unary, operand: &str) -> String {
    match operator {
        Unary::Plus => operand.to_owned(),
        Unary::Negate => format!("(-{operand})"),
        Unary::Not => format!("(!{operand})"),
        Unary::Complement => format!("(~{operand})"),
    }
}

fn binary(operator: Binary, left: &str, right: &str) -> String {
    let symbol = match operator {
        Binary::Or => "||",
        Binary::And => "&&",
        Binary::BitOr => "|",
        Binary::BitXor => "^",
        Binary::BitAnd => "&",
        Binary::Equal => "==",
        Binary::NotEqual => "!=",
        Binary::Less => "<",
        Binary::LessEqual => "<=",
        Binary::Greater => ">",
        Binary::GreaterEqual => ">=",
        Binary::Add => "+",
        Binary::Subtract => "-",
        Binary::Multiply => "*",
        Binary::Divide => "/",
        Binary::Remainder => "%",
        Binary::ShiftLeft => return format!("({left} << (u32({right}) & 31u))"),
        Binary::ShiftRight => return format!("({left} >> (u32({right}) & 31u))"),
    };
    format!("({left} {symbol} {right})")
}
