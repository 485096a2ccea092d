//! The untyped tree to a typed one: names resolved, conversions written out, constants computed.

use std::collections::BTreeSet;

use super::eval;
use super::parse::{Binary, Kind, Node, Unary};
use super::types::{CASTS, CONSTANTS, FUNCTIONS, Function, INDEXES, Operation, Signature, Type, Typed, Value};
use super::{Captured, Fault, Hook, Scope};

/// Checks a tree for a hook. Gives it back typed, with the inputs that it reads.
pub fn check<'a>(hook: Hook, tree: &Node, scope: &Scope<'a>) -> Result<(Typed, Vec<&'a Captured>), Fault> {
    let mut checker = Checker {
        hook,
        scope,
        captured: BTreeSet::new(),
    };
    let typed = checker.check(tree)?;
    let result = match hook {
        Hook::Score | Hook::Probability => Type::Float,
        Hook::Mask => Type::Bool,
    };
    let mut root = convert(tree.at, typed, result)?;
    let places: Vec<usize> = checker.captured.into_iter().collect();
    renumber(&mut root, &places);
    Ok((root, places.into_iter().map(|place| &scope.inputs[place]).collect()))
}

/// From places in the scope to places among the inputs that are read.
fn renumber(node: &mut Typed, places: &[usize]) {
    if let Operation::Load(place) = &mut node.operation {
        *place = places.partition_point(|other| other < place);
    }
    for operand in &mut node.operands {
        renumber(operand, places);
    }
}

struct Checker<'s, 'a> {
    hook: Hook,
    scope: &'s Scope<'a>,
    /// Places in the scope of the inputs that are read.
    captured: BTreeSet<usize>,
}

impl Checker<'_, '_> {
    fn check(&mut self, node: &Node) -> Result<Typed, Fault> {
        let at = node.at;
        match &node.kind {
            Kind::Int(value) => match i32::try_from(*value) {
                Ok(value) => constant(at, Value::Int(value)),
                Err(_) => Err(Fault::new(at, format!("`{value}`"), "an integer of 32 bits")),
            },
            Kind::Float(value) => constant(at, Value::Float(*value)),
            Kind::Name(name, indexes) => self.name(at, name, indexes),
            Kind::Call(name, arguments) => self.call(at, name, arguments),
            Kind::Unary(operator, operand) => {
                let operand = self.check(operand)?;
                unary(at, *operator, operand)
            }
            Kind::Binary(operator, operands) => {
                let [left, right] = &**operands;
                let (left, right) = (self.check(left)?, self.check(right)?);
                binary(at, *operator, left, right)
            }
            Kind::Conditional(operands) => {
                let [condition, true_value, false_value] = &**operands;
                let condition = self.check(condition)?;
                let (true_value, false_value) = (self.check(true_value)?, self.check(false_value)?);
                let operands = vec![false_value, true_value, condition];
                call(at, Function::Select, Signature::Select, operands)
            }
        }
    }

    fn name(&mut self, at: usize, name: &str, indexes: &[Node]) -> Result<Typed, Fault> {
        if indexes.is_empty() {
            if self.hook.variable() == Some(name) {
                return apply(at, Type::Float, Operation::Value, Vec::new());
            }
            if let Some(place) = INDEXES.iter().position(|index| *index == name) {
                return apply(at, Type::Int, Operation::Index(place), Vec::new());
            }
            if let Some((_, value)) = CONSTANTS.iter().find(|(constant, _)| *constant == name) {
                return constant(at, *value);
            }
        }
        if let Some(place) = self.scope.inputs.iter().position(|input| input.role == name) {
            return self.load(at, place, indexes);
        }
        match self.scope.parameters.get(name) {
            Some(value) if indexes.is_empty() => constant(at, *value),
            _ => Err(Fault::new(at, format!("`{name}`"), self.names(!indexes.is_empty()))),
        }
    }

    fn load(&mut self, at: usize, place: usize, indexes: &[Node]) -> Result<Typed, Fault> {
        let input = &self.scope.inputs[place];
        let axes = input.shape.len();
        let single = indexes.is_empty() && input.shape.iter().all(|&size| size == 1);
        if indexes.len() != axes && !single {
            let found = format!("`{}` with {} indexes", input.role, indexes.len());
            let expected = format!("{axes}, one for each axis of its shape {:?}", input.shape);
            return Err(Fault::new(at, found, expected));
        }
        let mut operands = Vec::new();
        for (node, &size) in indexes.iter().zip(&input.shape) {
            let index = self.check(node)?;
            if index.type_ != Type::Int {
                let found = format!("{} as an index", describe(index.type_));
                return Err(Fault::new(node.at, found, "an integer; `int()` makes one"));
            }
            if let Operation::Constant(Value::Int(value)) = index.operation
                && !u32::try_from(value).is_ok_and(|value| value < size)
            {
                let expected = format!("0 to {}, an index of the axis", size - 1);
                return Err(Fault::new(node.at, format!("`{value}`"), expected));
            }
            operands.push(index);
        }
        self.captured.insert(place);
        apply(at, input.element_type(), Operation::Load(place), operands)
    }

    fn call(&mut self, at: usize, name: &str, arguments: &[Node]) -> Result<Typed, Fault> {
        let mut operands = Vec::new();
        for argument in arguments {
            operands.push(self.check(argument)?);
        }
        let count = operands.len();
        let counted = |expected: usize| match count == expected {
            true => Ok(()),
            false => {
                let found = format!("`{name}` with {count} arguments");
                Err(Fault::new(at, found, expected.to_string()))
            }
        };
        if let Some((_, type_)) = CASTS.iter().find(|(cast, _)| *cast == name) {
            counted(1)?;
            return convert(at, operands.remove(0), *type_);
        }
        if let Some((_, function, signature, expected)) = FUNCTIONS.iter().find(|(other, ..)| *other == name) {
            counted(*expected)?;
            return call(at, *function, *signature, operands);
        }
        let functions = FUNCTIONS.iter().map(|(name, ..)| *name);
        let names: Vec<_> = functions.chain(CASTS.iter().map(|(name, _)| *name)).collect();
        Err(Fault::new(at, format!("the function `{name}`"), one_of(&names)))
    }

    /// The names that could stand where an unknown one does.
    fn names(&self, indexed: bool) -> String {
        let inputs = self.scope.inputs.iter().map(|input| input.role.as_str());
        if indexed {
            return one_of(&inputs.collect::<Vec<_>>());
        }
        let parameters = self.scope.parameters.keys().map(String::as_str);
        let constants = CONSTANTS.iter().map(|(name, _)| *name);
        let variables = self.hook.variable().into_iter().chain(INDEXES);
        one_of(
            &variables
                .chain(inputs)
                .chain(parameters)
                .chain(constants)
                .collect::<Vec<_>>(),
        )
    }
}

fn one_of(names: &[&str]) -> String {
    match names {
        [] => "no name here".into(),
        [one] => format!("`{one}`"),
        _ => format!("one of {}", names.join(" ")),
    }
}

/// A function of as many operands as it takes.
fn call(at: usize, function: Function, signature: Signature, operands: Vec<Typed>) -> Result<Typed, Fault> {
    let type_ = match signature {
        Signature::Numbers => widest(&operands).max(Type::Int),
        Signature::Floats => Type::Float,
        Signature::Select => widest(&operands[..2]),
    };
    let mut converted = Vec::new();
    for (place, operand) in operands.into_iter().enumerate() {
        let condition = place == 2 && matches!(signature, Signature::Select);
        converted.push(convert(at, operand, if condition { Type::Bool } else { type_ })?);
    }
    apply(at, type_, Operation::Function(function), converted)
}

fn widest(operands: &[Typed]) -> Type {
    operands.iter().map(|operand| operand.type_).max().unwrap_or(Type::Bool)
}

fn unary(at: usize, operator: Unary, operand: Typed) -> Result<Typed, Fault> {
    let number = operand.type_.max(Type::Int);
    let type_ = match operator {
        Unary::Plus => return convert(at, operand, number),
        Unary::Negate => number,
        Unary::Not => Type::Bool,
        Unary::Complement if operand.type_ == Type::Int => Type::Int,
        Unary::Complement => {
            let found = format!("`~` of {}", describe(operand.type_));
            return Err(Fault::new(at, found, "an integer"));
        }
    };
    let operand = convert(at, operand, type_)?;
    apply(at, type_, Operation::Unary(operator), vec![operand])
}

fn binary(at: usize, operator: Binary, left: Typed, right: Typed) -> Result<Typed, Fault> {
    let widest = left.type_.max(right.type_);
    // The operator, the type of its operands, and that of its result.
    let (operator, operands, result) = match operator {
        Binary::Or | Binary::And => (operator, Type::Bool, Type::Bool),
        Binary::Equal | Binary::NotEqual => (operator, widest, Type::Bool),
        Binary::Less | Binary::LessEqual | Binary::Greater | Binary::GreaterEqual => {
            (operator, widest.max(Type::Int), Type::Bool)
        }
        Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            let type_ = widest.max(Type::Int);
            (operator, type_, type_)
        }
        Binary::BitOr if widest == Type::Bool => (Binary::Or, Type::Bool, Type::Bool),
        Binary::BitAnd if widest == Type::Bool => (Binary::And, Type::Bool, Type::Bool),
        Binary::BitXor if widest == Type::Bool => (Binary::NotEqual, Type::Bool, Type::Bool),
        Binary::BitOr | Binary::BitAnd | Binary::BitXor | Binary::ShiftLeft | Binary::ShiftRight => {
            if widest == Type::Float {
                return Err(Fault::new(at, "a bit operation on a float", "integers"));
            }
            (operator, Type::Int, Type::Int)
        }
    };
    let left = convert(at, left, operands)?;
    let right = convert(at, right, operands)?;
    // WGSL refuses both as constants, and neither is ever meant.
    if let Operation::Constant(Value::Int(value)) = right.operation {
        let expected = match operator {
            Binary::Divide | Binary::Remainder if value == 0 => Some("a divisor other than 0"),
            Binary::ShiftLeft | Binary::ShiftRight if !(0..32).contains(&value) => Some("a shift by 0 to 31"),
            _ => None,
        };
        if let Some(expected) = expected {
            return Err(Fault::new(at, format!("`{value}` on the right"), expected));
        }
    }
    apply(at, result, Operation::Binary(operator), vec![left, right])
}

fn convert(at: usize, node: Typed, type_: Type) -> Result<Typed, Fault> {
    if node.type_ == type_ {
        return Ok(node);
    }
    apply(at, type_, Operation::Convert, vec![node])
}

/// An operation, or its value when that is known.
fn apply(at: usize, type_: Type, operation: Operation, operands: Vec<Typed>) -> Result<Typed, Fault> {
    let known = |operand: &Typed| matches!(operand.operation, Operation::Constant(_));
    let computes = matches!(
        operation,
        Operation::Unary(_) | Operation::Binary(_) | Operation::Convert | Operation::Function(_)
    );
    let node = Typed {
        type_,
        operation,
        operands,
    };
    if computes && node.operands.iter().all(known) {
        return constant(at, eval::evaluate(&node, &eval::Environment::default()));
    }
    Ok(node)
}

fn constant(at: usize, value: Value) -> Result<Typed, Fault> {
    if let Value::Float(float) = value {
        let single = float as f32;
        if float.is_nan() || (float.is_finite() && !single.is_finite()) {
            return Err(Fault::new(
                at,
                format!("the constant {float:e}"),
                "`inf`, or a number that an f32 holds",
            ));
        }
    }
    Ok(Typed {
        type_: value.type_(),
        operation: Operation::Constant(value),
        operands: Vec::new(),
    })
}

fn describe(type_: Type) -> &'static str {
    match type_ {
        Type::Bool => "a boolean",
        Type::Int => "an integer",
        Type::Float => "a float",
    }
}
