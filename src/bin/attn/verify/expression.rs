//! The expressions of oracle cases (`score_mod`, `mask_mod`, `prob_mod`): text to a typed tree, and from there to a closure
//! for the CPU reference and to WGSL for the GPU.
//!
//! The language: `s` (the score) or `p` (the probability), the indexes `b h q kv`, the case's captured inputs indexed with
//! `[]`, its parameters, numbers, `inf true false`, the operators of C with C's precedence, `select(false_value, true_value,
//! condition)` and the functions of [`types`]. Three types: booleans, `i32` that wraps, floats; mixed operands become the
//! wider of the two. Integer `/` and `%` truncate, by zero they give the dividend and 0, as WGSL defines it. An index beyond
//! its axis means the axis's nearest end, on the CPU as on the GPU.

mod captured;
mod check;
mod eval;
mod parse;
#[cfg(test)]
mod tests;
mod types;
mod wgsl;

use std::collections::BTreeMap;
use std::fmt;

pub use captured::{Captured, Values};
use types::Typed;
pub use types::Value;

/// Which hook an expression fills.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// From a score to a score.
    Score,
    /// Whether a position is open.
    Mask,
    /// From a probability to a probability.
    Probability,
}

impl Hook {
    /// The name of the attribute and of the WGSL function.
    pub fn name(self) -> &'static str {
        match self {
            Hook::Score => "score_mod",
            Hook::Mask => "mask_mod",
            Hook::Probability => "prob_mod",
        }
    }

    /// The value that an expression maps, by the name it has there.
    fn variable(self) -> Option<&'static str> {
        match self {
            Hook::Score => Some("s"),
            Hook::Mask => None,
            Hook::Probability => Some("p"),
        }
    }
}

/// What an expression may name besides its variables.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Inputs that can be indexed; those of one element may stand alone.
    pub inputs: &'a [Captured],
    /// Named constants.
    pub parameters: &'a BTreeMap<String, Value>,
}

/// A checked expression.
#[derive(Debug)]
pub struct Expression<'a> {
    hook: Hook,
    root: Typed,
    /// The inputs that the expression reads, in the order of the scope.
    captured: Vec<&'a Captured>,
}

impl<'a> Expression<'a> {
    /// Reads and checks an expression.
    pub fn new(hook: Hook, text: &str, scope: &Scope<'a>) -> Result<Self, ExpressionError> {
        let located = |fault| ExpressionError::new(hook, text, fault);
        let tree = parse::parse(text).map_err(located)?;
        let (root, captured) = check::check(hook, &tree, scope).map_err(located)?;
        Ok(Self { hook, root, captured })
    }

    /// The inputs that the expression reads.
    #[cfg(test)]
    pub fn captured(&self) -> &[&'a Captured] {
        &self.captured
    }

    /// The expression as a function of a score or a probability and the indexes `[b, h, q, kv]`.
    pub fn value_function(&self) -> impl Fn(f64, [u32; 4]) -> f64 {
        |value, indexes| eval::float(self.evaluate(value, indexes))
    }

    /// The expression as a function of the indexes `[b, h, q, kv]`: whether a position is open.
    pub fn mask_function(&self) -> impl Fn([u32; 4]) -> bool {
        |indexes| eval::truth(self.evaluate(0.0, indexes))
    }

    /// One WGSL function with the hook's name and signature, after the functions that it calls: a text for
    /// [`Mods`](wgpu_attention::Mods). It refers to an array `captured_ROLE` for each captured input. Where the expression says
    /// `-inf` it says `NEGATIVE_INFINITY`, the lowest finite `f32`, which closes.
    pub fn wgsl(&self) -> String {
        wgsl::function(self.hook, &self.root, &self.captured)
    }

    fn evaluate(&self, value: f64, indexes: [u32; 4]) -> Value {
        eval::evaluate(
            &self.root,
            &eval::Environment {
                value,
                indexes: indexes.map(|index| index as i32),
                captured: &self.captured,
            },
        )
    }
}

/// The inputs that several expressions read, each once.
pub fn all_captured<'a>(expressions: &[&Expression<'a>]) -> Vec<&'a Captured> {
    let by_role: BTreeMap<_, _> = expressions
        .iter()
        .flat_map(|expression| &expression.captured)
        .map(|captured| (&captured.role, *captured))
        .collect();
    by_role.into_values().collect()
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExpressionError {
    hook: Hook,
    text: String,
    /// Characters before the place, plus 1.
    pub column: usize,
    /// What stands there.
    pub found: String,
    /// What would fit.
    pub expected: String,
}

impl ExpressionError {
    fn new(hook: Hook, text: &str, fault: Fault) -> Self {
        Self {
            hook,
            text: text.to_owned(),
            column: text[..fault.at].chars().count() + 1,
            found: fault.found,
            expected: fault.expected,
        }
    }
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            hook,
            text,
            column,
            found,
            expected,
        } = self;
        let hook = hook.name();
        write!(
            f,
            "{hook} {text:?}, column {column}: found {found}, expected {expected}"
        )
    }
}

impl std::error::Error for ExpressionError {}

/// A fault at a byte of the text.
struct Fault {
    at: usize,
    found: String,
    expected: String,
}

impl Fault {
    fn new(at: usize, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            at,
            found: found.into(),
            expected: expected.into(),
        }
    }
}
