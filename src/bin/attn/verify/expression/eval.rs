//! The value of a typed tree: floats in `f64`, integers as WGSL computes them.

use super::parse::{Binary, Unary};
use super::types::{Function, Operation, Type, Typed, Value};
use super::{Captured, Values};

/// What the leaves mean.
#[derive(Clone, Copy, Default)]
pub struct Environment<'a> {
    /// The score or the probability.
    pub value: f64,
    /// `b`, `h`, `q` and `kv`.
    pub indexes: [i32; 4],
    /// What [`Operation::Load`] reads.
    pub captured: &'a [&'a Captured],
}

/// Computes a node; its type is the node's.
pub fn evaluate(node: &Typed, environment: &Environment<'_>) -> Value {
    let operand = |place: usize| evaluate(&node.operands[place], environment);
    match node.operation {
        Operation::Constant(value) => value,
        Operation::Value => Value::Float(environment.value),
        Operation::Index(place) => Value::Int(environment.indexes[place]),
        Operation::Load(place) => load(environment.captured[place], (0..node.operands.len()).map(operand)),
        Operation::Convert => convert(operand(0), node.type_),
        Operation::Unary(operator) => unary(operator, operand(0)),
        // These two do not look at the right operand when the left one decides.
        Operation::Binary(Binary::And) => Value::Bool(truth(operand(0)) && truth(operand(1))),
        Operation::Binary(Binary::Or) => Value::Bool(truth(operand(0)) || truth(operand(1))),
        Operation::Binary(operator) => match (operand(0), operand(1)) {
            (Value::Float(left), Value::Float(right)) => float_binary(operator, left, right),
            (Value::Int(left), Value::Int(right)) => int_binary(operator, left, right),
            (left, right) => Value::Bool((truth(left) == truth(right)) == (operator == Binary::Equal)),
        },
        Operation::Function(Function::Select) => operand(if truth(operand(2)) { 1 } else { 0 }),
        Operation::Function(function) => match node.type_ {
            Type::Float => Value::Float(float_function(function, |place| float(operand(place)))),
            _ => Value::Int(int_function(function, |place| int(operand(place)))),
        },
    }
}

/// As a float.
pub fn float(value: Value) -> f64 {
    match value {
        Value::Bool(value) => f64::from(u8::from(value)),
        Value::Int(value) => value.into(),
        Value::Float(value) => value,
    }
}

/// As a boolean: whether it is not 0.
pub fn truth(value: Value) -> bool {
    match value {
        Value::Bool(value) => value,
        Value::Int(value) => value != 0,
        Value::Float(value) => value != 0.0,
    }
}

/// As an integer: towards 0, and what is beyond the ends becomes the end.
fn int(value: Value) -> i32 {
    match value {
        Value::Bool(value) => value.into(),
        Value::Int(value) => value,
        Value::Float(value) => value as i32,
    }
}

fn convert(value: Value, type_: Type) -> Value {
    match type_ {
        Type::Bool => Value::Bool(truth(value)),
        Type::Int => Value::Int(int(value)),
        Type::Float => Value::Float(float(value)),
    }
}

fn load(captured: &Captured, indexes: impl Iterator<Item = Value>) -> Value {
    let at = indexes.zip(&captured.shape).fold(0, |at, (index, &size)| {
        let size = size as usize;
        at * size + (int(index).max(0) as usize).min(size - 1)
    });
    match &captured.values {
        Values::Float(values) => Value::Float(values[at]),
        Values::Int(values) => Value::Int(values[at]),
        Values::Bool(values) => Value::Bool(values[at]),
    }
}

fn unary(operator: Unary, value: Value) -> Value {
    match (operator, value) {
        (Unary::Negate, Value::Float(value)) => Value::Float(-value),
        (Unary::Negate, value) => Value::Int(int(value).wrapping_neg()),
        (Unary::Complement, value) => Value::Int(!int(value)),
        (Unary::Not, value) => Value::Bool(!truth(value)),
        (Unary::Plus, value) => value,
    }
}

fn float_binary(operator: Binary, left: f64, right: f64) -> Value {
    Value::Float(match operator {
        Binary::Add => left + right,
        Binary::Subtract => left - right,
        Binary::Multiply => left * right,
        Binary::Divide => left / right,
        Binary::Remainder => left % right,
        _ => return Value::Bool(compare(operator, &left, &right)),
    })
}

fn int_binary(operator: Binary, left: i32, right: i32) -> Value {
    Value::Int(match operator {
        Binary::Add => left.wrapping_add(right),
        Binary::Subtract => left.wrapping_sub(right),
        Binary::Multiply => left.wrapping_mul(right),
        Binary::Divide if right == 0 => left,
        Binary::Divide => left.wrapping_div(right),
        Binary::Remainder if right == 0 => 0,
        Binary::Remainder => left.wrapping_rem(right),
        Binary::BitAnd => left & right,
        Binary::BitOr => left | right,
        Binary::BitXor => left ^ right,
        // These take the shift modulo 32.
        Binary::ShiftLeft => left.wrapping_shl(right as u32),
        Binary::ShiftRight => left.wrapping_shr(right as u32),
        _ => return Value::Bool(compare(operator, &left, &right)),
    })
}

fn compare<T: PartialOrd>(operator: Binary, left: &T, right: &T) -> bool {
    match operator {
        Binary::Less => left < right,
        Binary::LessEqual => left <= right,
        Binary::Greater => left > right,
        Binary::GreaterEqual => left >= right,
        Binary::NotEqual => left != right,
        _ => left == right,
    }
}

fn float_function(function: Function, argument: impl Fn(usize) -> f64) -> f64 {
    let x = argument(0);
    match function {
        Function::Abs => x.abs(),
        Function::Ceil => x.ceil(),
        Function::Clamp => x.max(argument(1)).min(argument(2)),
        Function::Cos => x.cos(),
        Function::Exp => x.exp(),
        Function::Exp2 => x.exp2(),
        Function::Floor => x.floor(),
        Function::Fract => x - x.floor(),
        Function::Log => x.ln(),
        Function::Log2 => x.log2(),
        Function::Max => x.max(argument(1)),
        Function::Min => x.min(argument(1)),
        Function::Pow => x.powf(argument(1)),
        Function::Round => x.round_ties_even(),
        // Taken where its operands are computed.
        Function::Select => x,
        Function::Sign if x > 0.0 => 1.0,
        Function::Sign if x < 0.0 => -1.0,
        Function::Sign => 0.0,
        Function::Sin => x.sin(),
        Function::Sqrt => x.sqrt(),
        Function::Tan => x.tan(),
        Function::Tanh => x.tanh(),
        Function::Trunc => x.trunc(),
    }
}

fn int_function(function: Function, argument: impl Fn(usize) -> i32) -> i32 {
    let x = argument(0);
    match function {
        Function::Abs => x.wrapping_abs(),
        Function::Clamp => x.max(argument(1)).min(argument(2)),
        Function::Max => x.max(argument(1)),
        Function::Min => x.min(argument(1)),
        Function::Sign => x.signum(),
        // The others take floats only.
        _ => x,
    }
}
