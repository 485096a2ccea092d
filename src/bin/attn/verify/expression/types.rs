//! The typed tree, and the names of the language.

use super::parse::{Binary, Unary};

/// The type of a value.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Type {
    Bool,
    Int,
    Float,
}

/// A value, and so its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i32),
    Float(f64),
}

impl Value {
    /// A parameter of a case: a number (an integer if it is written as one) or a boolean.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Bool(value) => Some(Value::Bool(*value)),
            serde_json::Value::Number(number) => match number.as_i64() {
                Some(integer) => i32::try_from(integer).ok().map(Value::Int),
                None => number.as_f64().map(Value::Float),
            },
            _ => None,
        }
    }

    pub fn type_(self) -> Type {
        match self {
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Float(_) => Type::Float,
        }
    }
}

/// A typed node. Operands have the types that their operation takes: all conversions are nodes.
#[derive(Debug)]
pub struct Typed {
    pub type_: Type,
    pub operation: Operation,
    pub operands: Vec<Typed>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Constant(Value),
    /// The score or the probability.
    Value,
    /// `b`, `h`, `q` or `kv`, by its place among them.
    Index(usize),
    /// An element of a captured input, by its place in the list of them; the operands are its indexes.
    Load(usize),
    Unary(Unary),
    /// Both operands have one type; of the logical and the bit operations it is the result's.
    Binary(Binary),
    Convert,
    Function(Function),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Function {
    Abs,
    Ceil,
    Clamp,
    Cos,
    Exp,
    Exp2,
    Floor,
    Fract,
    Log,
    Log2,
    Max,
    Min,
    Pow,
    Round,
    Select,
    Sign,
    Sin,
    Sqrt,
    Tan,
    Tanh,
    Trunc,
}

/// What a function takes and gives.
#[derive(Clone, Copy)]
pub enum Signature {
    /// Numbers, of which the widest type counts; the result is of it.
    Numbers,
    /// Floats, to a float.
    Floats,
    /// Two of one type and a condition.
    Select,
}

pub const FUNCTIONS: &[(&str, Function, Signature, usize)] = &[
    ("abs", Function::Abs, Signature::Numbers, 1),
    ("ceil", Function::Ceil, Signature::Floats, 1),
    ("clamp", Function::Clamp, Signature::Numbers, 3),
    ("cos", Function::Cos, Signature::Floats, 1),
    ("exp", Function::Exp, Signature::Floats, 1),
    ("exp2", Function::Exp2, Signature::Floats, 1),
    ("floor", Function::Floor, Signature::Floats, 1),
    ("fract", Function::Fract, Signature::Floats, 1),
    ("log", Function::Log, Signature::Floats, 1),
    ("log2", Function::Log2, Signature::Floats, 1),
    ("max", Function::Max, Signature::Numbers, 2),
    ("min", Function::Min, Signature::Numbers, 2),
    ("pow", Function::Pow, Signature::Floats, 2),
    ("round", Function::Round, Signature::Floats, 1),
    ("select", Function::Select, Signature::Select, 3),
    ("sign", Function::Sign, Signature::Numbers, 1),
    ("sin", Function::Sin, Signature::Floats, 1),
    ("sqrt", Function::Sqrt, Signature::Floats, 1),
    ("tan", Function::Tan, Signature::Floats, 1),
    ("tanh", Function::Tanh, Signature::Floats, 1),
    ("trunc", Function::Trunc, Signature::Floats, 1),
];

pub const CASTS: &[(&str, Type)] = &[
    ("bool", Type::Bool),
    ("f32", Type::Float),
    ("float", Type::Float),
    ("i32", Type::Int),
    ("int", Type::Int),
];

pub const INDEXES: [&str; 4] = ["b", "h", "q", "kv"];

pub const CONSTANTS: &[(&str, Value)] = &[
    ("false", Value::Bool(false)),
    ("inf", Value::Float(f64::INFINITY)),
    ("true", Value::Bool(true)),
];
