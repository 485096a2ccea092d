//! Text to an untyped tree. Precedence and associativity are C's, but comparisons do not chain: `a < b < c` would mean one
//! thing in C and another in Python, so it is a fault.

use super::Fault;

/// A node of the untyped tree.
#[derive(Debug)]
pub struct Node {
    /// Where it begins, in bytes; an operation's is that of its operator.
    pub at: usize,
    pub kind: Kind,
    /// Nodes from here to the deepest leaf.
    depth: usize,
}

#[derive(Debug)]
pub enum Kind {
    Int(i64),
    Float(f64),
    /// A variable, a constant or an input, with its indexes.
    Name(String, Vec<Node>),
    Call(String, Vec<Node>),
    Unary(Unary, Box<Node>),
    Binary(Binary, Box<[Node; 2]>),
    /// `condition ? true_value : false_value`.
    Conditional(Box<[Node; 3]>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unary {
    Plus,
    Negate,
    Not,
    Complement,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Binary {
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Every binary operator with its precedence; a longer one before the shorter that it begins with.
const BINARY: &[(&str, Binary, u32)] = &[
    ("||", Binary::Or, 1),
    ("&&", Binary::And, 2),
    ("==", Binary::Equal, EQUALITY),
    ("!=", Binary::NotEqual, EQUALITY),
    ("<=", Binary::LessEqual, RELATION),
    (">=", Binary::GreaterEqual, RELATION),
    ("<<", Binary::ShiftLeft, 8),
    (">>", Binary::ShiftRight, 8),
    ("|", Binary::BitOr, 3),
    ("^", Binary::BitXor, 4),
    ("&", Binary::BitAnd, 5),
    ("<", Binary::Less, RELATION),
    (">", Binary::Greater, RELATION),
    ("+", Binary::Add, 9),
    ("-", Binary::Subtract, 9),
    ("*", Binary::Multiply, 10),
    ("/", Binary::Divide, 10),
    ("%", Binary::Remainder, 10),
];
const EQUALITY: u32 = 6;
const RELATION: u32 = 7;

const UNARY: &[(&str, Unary)] = &[
    ("+", Unary::Plus),
    ("-", Unary::Negate),
    ("!", Unary::Not),
    ("~", Unary::Complement),
];

/// How deep a tree may be: what walks over it calls itself.
const MAX_DEPTH: usize = 200;

/// Reads a whole text.
pub fn parse(text: &str) -> Result<Node, Fault> {
    let mut parser = Parser {
        text,
        at: 0,
        nesting: 0,
    };
    let node = parser.expression()?;
    match parser.peek() {
        "" => Ok(node),
        _ => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Calls of `unary` and `expression` that are under way.
    nesting: usize,
}

impl<'a> Parser<'a> {
    fn expression(&mut self) -> Result<Node, Fault> {
        self.nested(|parser| {
            let condition = parser.binary(1)?;
            let at = parser.skip_space();
            if !parser.take("?") {
                return Ok(condition);
            }
            let true_value = parser.expression()?;
            parser.require(":")?;
            let false_value = parser.expression()?;
            let depth = condition.depth.max(true_value.depth).max(false_value.depth);
            node(
                at,
                depth,
                Kind::Conditional(Box::new([condition, true_value, false_value])),
            )
        })
    }

    /// Operands joined by operators of at least this precedence; those of the same precedence group from the left.
    fn binary(&mut self, least: u32) -> Result<Node, Fault> {
        let mut left = self.unary()?;
        let mut compared = None;
        loop {
            let at = self.skip_space();
            let rest = self.peek();
            let found = BINARY.iter().find(|(text, ..)| rest.starts_with(text));
            let Some(&(text, operator, precedence)) = found.filter(|(_, _, precedence)| *precedence >= least) else {
                return Ok(left);
            };
            if compared == Some(precedence) {
                return Err(Fault::new(
                    at,
                    format!("`{text}`"),
                    "`&&`, since comparisons do not chain",
                ));
            }
            compared = matches!(precedence, EQUALITY | RELATION).then_some(precedence);
            self.at += text.len();
            let right = self.binary(precedence + 1)?;
            let depth = left.depth.max(right.depth);
            left = node(at, depth, Kind::Binary(operator, Box::new([left, right])))?;
        }
    }

    fn unary(&mut self) -> Result<Node, Fault> {
        let at = self.skip_space();
        let rest = self.peek();
        let Some(&(text, operator)) = UNARY.iter().find(|(text, _)| rest.starts_with(text)) else {
            return self.primary();
        };
        self.at += text.len();
        let operand = self.nested(Self::unary)?;
        match (operator, operand.kind) {
            // One literal, so that the lowest integer can be written.
            (Unary::Negate, Kind::Int(value)) => node(at, 0, Kind::Int(-value)),
            (_, kind) => {
                let operand = Node { kind, ..operand };
                node(at, operand.depth, Kind::Unary(operator, Box::new(operand)))
            }
        }
    }

    fn primary(&mut self) -> Result<Node, Fault> {
        let at = self.skip_space();
        if self.take("(") {
            let inner = self.expression()?;
            self.require(")")?;
            return Ok(inner);
        }
        let rest = self.peek();
        if rest.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return self.number();
        }
        let length = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.unexpected("a number, a name or `(`"));
        }
        let name = rest[..length].to_owned();
        self.at += length;
        if self.take("(") {
            let arguments = self.list(")")?;
            return node(at, deepest(&arguments), Kind::Call(name, arguments));
        }
        let mut indexes = Vec::new();
        while self.take("[") {
            indexes.append(&mut self.list("]")?);
        }
        node(at, deepest(&indexes), Kind::Name(name, indexes))
    }

    /// One or more expressions, separated by commas, up to `end`.
    fn list(&mut self, end: &str) -> Result<Vec<Node>, Fault> {
        let mut items = vec![self.expression()?];
        while self.take(",") {
            items.push(self.expression()?);
        }
        self.require(end)?;
        Ok(items)
    }

    /// A literal of C or WGSL: digits, fraction, exponent; suffix `f`, `i` or `u`; or hexadecimal digits.
    fn number(&mut self) -> Result<Node, Fault> {
        let at = self.at;
        let rest = self.peek();
        let length = number_length(rest);
        let word = &rest[..length];
        self.at += length;
        let malformed = |expected| Fault::new(at, format!("`{word}`"), expected);
        let hexadecimal = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
        if let Some(digits) = hexadecimal {
            let value = i64::from_str_radix(digits.trim_end_matches(['i', 'u']), 16);
            return node(at, 0, Kind::Int(value.map_err(|_| malformed("an integer of 32 bits"))?));
        }
        let digits = word.trim_end_matches(['f', 'i', 'u']);
        let suffix = &word[digits.len()..];
        let is_float = suffix == "f" || digits.contains(['.', 'e', 'E']);
        if suffix.len() > 1 || (is_float && !matches!(suffix, "" | "f")) || digits == "." {
            return Err(malformed("a number"));
        }
        if is_float {
            let value = digits.parse().map_err(|_| malformed("a number"))?;
            return node(at, 0, Kind::Float(value));
        }
        let expected = match digits.bytes().all(|digit| digit.is_ascii_digit()) {
            true => "an integer of 32 bits",
            false => "a number",
        };
        node(at, 0, Kind::Int(digits.parse().map_err(|_| malformed(expected))?))
    }

    fn nested(&mut self, read: impl FnOnce(&mut Self) -> Result<Node, Fault>) -> Result<Node, Fault> {
        if self.nesting == MAX_DEPTH {
            return Err(too_deep(self.at));
        }
        self.nesting += 1;
        let node = read(self);
        self.nesting -= 1;
        node
    }

    fn skip_space(&mut self) -> usize {
        self.at = self.text.len() - self.peek().trim_start().len();
        self.at
    }

    fn peek(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.peek().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn require(&mut self, token: &str) -> Result<(), Fault> {
        match self.take(token) {
            true => Ok(()),
            false => Err(self.unexpected(&format!("`{token}`"))),
        }
    }

    /// The fault that the next word or character is not what was expected.
    fn unexpected(&mut self, expected: &str) -> Fault {
        let at = self.skip_space();
        let rest = self.peek();
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let first = rest.chars().next().map_or(0, char::len_utf8);
        match &rest[..word.max(first)] {
            "" => Fault::new(at, "the end", expected),
            found => Fault::new(at, format!("`{found}`"), expected),
        }
    }
}

fn node(at: usize, depth_below: usize, kind: Kind) -> Result<Node, Fault> {
    let depth = depth_below + 1;
    if depth > MAX_DEPTH {
        return Err(too_deep(at));
    }
    Ok(Node { at, kind, depth })
}

fn too_deep(at: usize) -> Fault {
    Fault::new(
        at,
        "an expression within too many others",
        format!("at most {MAX_DEPTH} levels"),
    )
}

fn deepest(nodes: &[Node]) -> usize {
    nodes.iter().map(|node| node.depth).max().unwrap_or(0)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// How far a word that begins like a number goes: up to the first character that neither belongs to a word, nor is a point,
/// nor the sign of an exponent.
fn number_length(text: &str) -> usize {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        let sign = matches!(c, '+' | '-') && matches!(before, 'e' | 'E') && !hexadecimal;
        if !is_word(c) && c != '.' && !sign {
            return at;
        }
        before = c;
    }
    text.len()
}
