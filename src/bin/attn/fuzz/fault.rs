//! Faults that are planted in right cases, each with the error that it deserves.

use wgpu_attention::{
    Algorithm, Broadcast, Error, KeyPadding, Layout, Operand, Outputs, Problem, RopePositions, Strides,
};

use super::case::{BindFault, Bound, Call, Case, Kind};
use super::data::Array;
use super::draw::Draw;
use super::mods::{BROKEN_CAPTURES, BROKEN_MASK_MODS, BROKEN_PROB_MODS, BROKEN_SCORE_MODS, CAPTURES};
use super::rope;

/// The error that a fault deserves: its variant, and what it must name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    variant: &'static str,
    operand: Option<Operand>,
    /// A parameter, a dimension or a function.
    name: Option<&'static str>,
}

impl Fault {
    fn new(variant: &'static str) -> Self {
        Self {
            variant,
            operand: None,
            name: None,
        }
    }

    fn of(variant: &'static str, operand: Operand) -> Self {
        Self {
            operand: Some(operand),
            ..Self::new(variant)
        }
    }

    fn named(variant: &'static str, name: &'static str) -> Self {
        Self {
            name: Some(name),
            ..Self::new(variant)
        }
    }

    /// Whether this is the error that the fault deserves.
    pub fn deserves(&self, error: &Error) -> bool {
        let text = format!("{error:?}");
        let names = |operand: Operand| match operand {
            // One too many: its number is how many there should be, which another fault may change.
            Operand::Capture(_) if self.variant == "UnexpectedOperand" => text.contains("operand: Capture("),
            _ => text.contains(&format!("operand: {operand:?}")),
        };
        variant(error) == self.variant
            && self.operand.is_none_or(names)
            && self.name.is_none_or(|name| text.contains(&format!("{name:?}")))
    }
}

/// The name of an error's variant.
pub fn variant(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

/// Plants one fault, now and then two.
pub fn plant(case: &mut Case, draw: &mut Draw) {
    let right = case.clone();
    let mut faults = Vec::new();
    let wanted = if draw.chance(0.15) { 2 } else { 1 };
    while faults.len() < wanted {
        // Not every fault fits every case, but a size of 0 always does. A second one must not hide what the first did to the
        // operands.
        let fault = match draw.range(0, if faults.is_empty() { 3 } else { 1 }) {
            0 => in_request(case, &right, draw),
            1 => in_features(case, &right, draw),
            2 => in_data(case, &right, draw),
            _ => in_buffers(case, &right, draw),
        };
        faults.extend(fault);
    }
    case.kind = Kind::Faulty(faults);
}

/// Sizes, numbers and strides.
fn in_request(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    let shape = right.descriptor.shape;
    let descriptor = &mut case.descriptor;
    match draw.range(0, 9) {
        0 => {
            let (dimension, size) = match draw.range(0, 6) {
                0 => ("batch", &mut descriptor.shape.batch),
                1 => ("heads", &mut descriptor.shape.heads),
                2 => ("kv_heads", &mut descriptor.shape.kv_heads),
                3 => ("seqlen_q", &mut descriptor.shape.seqlen_q),
                4 => ("seqlen_k", &mut descriptor.shape.seqlen_k),
                5 => ("head_dim", &mut descriptor.shape.head_dim),
                _ => ("head_dim_v", &mut descriptor.shape.head_dim_v),
            };
            *size = 0;
            Some(Fault::named("ZeroSize", dimension))
        }
        1 => {
            descriptor.shape.kv_heads = shape.heads + draw.range(1, 3);
            Some(Fault::new("HeadsNotDivisible"))
        }
        2 => {
            descriptor.appended_keys = (shape.seqlen_k + 1).max(draw.wild());
            Some(Fault::new("AppendedKeys"))
        }
        3 => {
            let rows = draw.range(1 << 30, u32::MAX);
            let operand = draw.pick(&[Operand::Query, Operand::Key]);
            match operand {
                Operand::Query => descriptor.shape.seqlen_q = rows,
                _ => descriptor.shape.seqlen_k = rows,
            }
            Some(Fault::of("IndexOverflow", operand))
        }
        4 => {
            descriptor.scale = Some(draw.pick(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY]));
            Some(Fault::named("NotFinite", "scale"))
        }
        5 => {
            descriptor.softcap = Some(draw.pick(&[0.0, -0.0, -1.0, f32::NAN, f32::NEG_INFINITY, 1e-40]));
            Some(Fault::named("OutOfRange", "softcap"))
        }
        6 => {
            let dropout = descriptor.dropout.as_mut()?;
            dropout.probability = draw.pick(&[1.0, -0.1, 2.0, f32::NAN, f32::INFINITY]);
            Some(Fault::named("OutOfRange", "dropout's probability"))
        }
        7 => {
            descriptor.outputs.rows = Some(draw.pick(&[[0, 0], [2, 1], [0, shape.seqlen_q + 1], [u32::MAX; 2]]));
            Some(Fault::new("Unsupported"))
        }
        8 => overlapping_out(case, right, draw),
        _ => far_strides(case, right, draw),
    }
}

/// Heads and rows of each of the four tensors in memory.
fn heads_and_rows(case: &Case, operand: Operand) -> [u32; 3] {
    let shape = case.descriptor.shape;
    let [sequences, rows_q, rows_k] = match case.descriptor.packed {
        None => [shape.batch, shape.seqlen_q, shape.seqlen_k],
        Some(packed) => [1, packed.tokens_q, packed.tokens_k],
    };
    match operand {
        Operand::Query | Operand::Out => [sequences, shape.heads, rows_q],
        _ => [sequences, shape.kv_heads, rows_k],
    }
}

fn overlapping_out(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    let [_, heads, rows] = heads_and_rows(right, Operand::Out);
    if heads < 2 || rows < 2 {
        return None;
    }
    // Heads, rows, or a head and the row after.
    let row = case.descriptor.shape.head_dim_v + draw.range(0, 2);
    let [head, row] = draw.pick(&[[0, row], [row, 0], [row, row]]);
    case.descriptor.layouts.out = Layout::Strided(Strides {
        batch: u32::MAX / 4,
        head,
        row,
    });
    Some(Fault::of("OverlappingStrides", Operand::Out))
}

fn far_strides(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    let operand = draw.pick(&[Operand::Query, Operand::Key, Operand::Value, Operand::Out]);
    let sizes = heads_and_rows(right, operand);
    let axis = draw.index(3);
    if sizes[axis] < 3 {
        return None;
    }
    let mut strides = [0; 3];
    strides[axis] = draw.range(1 << 31, u32::MAX);
    let layout = Layout::Strided(Strides {
        batch: strides[0],
        head: strides[1],
        row: strides[2],
    });
    match operand {
        Operand::Query => case.descriptor.layouts.query = layout,
        Operand::Key => case.descriptor.layouts.key = layout,
        Operand::Value => case.descriptor.layouts.value = layout,
        _ => case.descriptor.layouts.out = layout,
    }
    Some(Fault::of("IndexOverflow", operand))
}

/// Features that are wrong by themselves, or exclude one another.
fn in_features(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    let shape = right.descriptor.shape;
    let descriptor = &mut case.descriptor;
    match draw.range(0, 10) {
        10 => broken_rope(case, draw),
        0 => {
            let operand = draw.pick(&[Operand::Mask, Operand::Bias]);
            let field = match operand {
                Operand::Mask => &mut descriptor.mask,
                _ => &mut descriptor.bias,
            };
            // No size of a valid case is as large as that.
            let wrong = draw.pick(&[0, 100_000]);
            let mut sizes = field.map_or([1; 4], |broadcast| broadcast.shape);
            sizes[draw.index(4)] = wrong;
            *field = Some(Broadcast::new(sizes));
            Some(Fault::of("Shape", operand))
        }
        1 => {
            let mask = descriptor.block_mask.as_mut()?;
            match draw.range(0, 3) {
                0 => {
                    mask.block_q = 0;
                    Some(Fault::named("ZeroSize", "block_q"))
                }
                1 => {
                    mask.block_kv = 0;
                    Some(Fault::named("ZeroSize", "block_kv"))
                }
                2 => {
                    mask.block_kv = u32::MAX;
                    Some(Fault::named("OutOfRange", "block_kv"))
                }
                _ => {
                    mask.batch = shape.batch + 2;
                    Some(Fault::of("Shape", Operand::BlockMask))
                }
            }
        }
        2 => {
            descriptor.appended_keys = 1;
            let lengths = descriptor.key_padding == Some(KeyPadding::Lengths);
            let excluded = lengths || descriptor.packed.is_some() || descriptor.block_mask.is_some();
            if !excluded {
                descriptor.appended_keys = right.descriptor.appended_keys;
                return None;
            }
            Some(Fault::new("Unsupported"))
        }
        3 => {
            descriptor.packed?;
            descriptor.key_padding = Some(KeyPadding::Lengths);
            Some(Fault::new("Unsupported"))
        }
        4 => {
            descriptor.mods.prob_mod?;
            descriptor.algorithm = Algorithm::Fused;
            Some(Fault::new("Unsupported"))
        }
        5 => {
            descriptor.mods.prob_mod?;
            descriptor.outputs = Outputs {
                weights: true,
                rows: Some([0, 1]),
                ..descriptor.outputs
            };
            Some(Fault::new("Unsupported"))
        }
        6 => {
            let packed = descriptor.packed.as_mut()?;
            let (dimension, tokens) = match draw.chance(0.5) {
                true => ("tokens_q", &mut packed.tokens_q),
                false => ("tokens_k", &mut packed.tokens_k),
            };
            *tokens = 0;
            Some(Fault::named("ZeroSize", dimension))
        }
        7 => {
            let (captures, variant) = draw.pick(BROKEN_CAPTURES);
            descriptor.mods.captures = captures;
            Some(Fault::new(variant))
        }
        _ => broken_mod(case, right, draw),
    }
}

/// More channels than there are, or positions beyond the last.
fn broken_rope(case: &mut Case, draw: &mut Draw) -> Option<Fault> {
    let descriptor = &mut case.descriptor;
    if draw.chance(0.5) {
        descriptor.rope = Some(rope::too_wide());
        return Some(Fault::new("RotaryDim"));
    }
    descriptor.rope.as_mut()?.key = Some(RopePositions::Offset(i32::MAX));
    Some(Fault::named("OutOfRange", "offset of a rotary embedding"))
}

/// A text that does not compile. Only once everything else is right does anybody see it.
fn broken_mod(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    let outputs = case.descriptor.outputs;
    let mods = &mut case.descriptor.mods;
    let function = match draw.range(0, 2) {
        0 => {
            mods.score_mod = Some(draw.pick(BROKEN_SCORE_MODS));
            "score_mod"
        }
        1 => {
            mods.mask_mod = Some(draw.pick(BROKEN_MASK_MODS));
            "mask_mod"
        }
        _ => {
            // Neither with the one kernel, nor with some rows' weights, which may be the first fault.
            if right.descriptor.algorithm == Algorithm::Fused || (outputs.weights && outputs.rows.is_some()) {
                return None;
            }
            mods.prob_mod = Some(draw.pick(BROKEN_PROB_MODS));
            "prob_mod"
        }
    };
    if mods.captures.is_empty() {
        mods.captures = CAPTURES;
        for (index, _) in (0..).zip(CAPTURES) {
            let bytes = super::mods::capture_bytes(usize::from(index));
            case.data.arrays.push((Operand::Capture(index), Array::Bytes(bytes)));
        }
    }
    Some(Fault::named("Mod", function))
}

/// Slices on the host.
fn in_data(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    case.call = Call::Host;
    let shape = right.descriptor.shape;
    let arrays = &mut case.data.arrays;
    let index = draw.index(arrays.len());
    match draw.range(0, 6) {
        0 | 1 => {
            let (operand, array) = arrays.get_mut(index)?;
            array.resize(draw.chance(0.5));
            Some(Fault::of("Length", *operand))
        }
        2 => {
            let (operand, array) = arrays.get_mut(index)?;
            let len = array.bytes().len();
            *array = match array {
                Array::F32(_) if is_tensor(*operand) => Array::F16(vec![half::f16::ONE; len / 4]),
                Array::F16(_) => Array::Bf16(vec![half::bf16::ONE; len / 2]),
                Array::Bf16(_) => Array::F32(vec![1.0; len / 2]),
                _ => return None,
            };
            Some(Fault::of("DType", *operand))
        }
        3 => {
            let (operand, _) = arrays.get(index)?;
            let operand = *operand;
            // The last capture, since those before it would only change places.
            let last = arrays
                .iter()
                .filter(|(operand, _)| matches!(operand, Operand::Capture(_)))
                .count();
            let optional = !matches!(operand, Operand::Query | Operand::Key | Operand::Value);
            let misplaced = matches!(operand, Operand::Capture(at) if usize::from(at) + 1 < last);
            if !optional || misplaced {
                return None;
            }
            arrays.remove(index);
            Some(Fault::of("MissingOperand", operand))
        }
        4 => {
            let (operand, array) = unasked(right, draw)?;
            arrays.push((operand, array));
            Some(Fault::of("UnexpectedOperand", operand))
        }
        5 => {
            let (_, padding) = arrays.iter_mut().find(|(operand, _)| *operand == Operand::KeyPadding)?;
            *padding = match padding {
                Array::U32(_) => Array::F32(vec![0.0]),
                _ => Array::U32(vec![0]),
            };
            Some(Fault::new("Unsupported"))
        }
        _ => {
            let words = |operand| matches!(operand, Operand::KeyPadding | Operand::CuSeqlensQ | Operand::CuSeqlensK);
            let (operand, array) = arrays.iter_mut().find(|(operand, array)| {
                let states = *operand == Operand::BlockMask;
                matches!(array, Array::U32(_)) && (states || words(*operand))
            })?;
            let Array::U32(words) = array else { return None };
            let at = draw.index(words.len());
            words[at] = match operand {
                Operand::KeyPadding => shape.seqlen_k + draw.range(1, 3),
                Operand::BlockMask => draw.range(3, 300),
                // Beyond any end.
                _ => draw.range(1 << 20, u32::MAX),
            };
            Some(Fault::of("Contents", *operand))
        }
    }
}

fn is_tensor(operand: Operand) -> bool {
    matches!(operand, Operand::Query | Operand::Key | Operand::Value | Operand::Bias)
}

/// An operand that nobody asks for.
fn unasked(right: &Case, draw: &mut Draw) -> Option<(Operand, Array)> {
    let (operand, array) = draw.pick(&[
        (Operand::Mask, 0),
        (Operand::Bias, 1),
        (Operand::KeyPadding, 1),
        (Operand::AlibiSlopes, 1),
        (Operand::Sinks, 1),
        (Operand::DropoutMask, 0),
        (Operand::BlockMask, 2),
        (Operand::CuSeqlensQ, 2),
        (Operand::CuSeqlensK, 2),
        (Operand::QueryPositionIds, 2),
        (Operand::KeyPositionIds, 2),
        (
            Operand::Capture(u8::try_from(right.descriptor.mods.captures.len()).ok()?),
            0,
        ),
    ]);
    let there = right.data.get(operand).is_some();
    let array = match array {
        0 => Array::Bytes(vec![1; 4]),
        1 => Array::F32(vec![1.0]),
        _ => Array::U32(vec![1]),
    };
    (!there).then_some((operand, array))
}

/// Buffers of a bound call.
fn in_buffers(case: &mut Case, right: &Case, draw: &mut Draw) -> Option<Fault> {
    let problem = Problem::new(&right.descriptor).ok()?;
    let operands: Vec<Operand> = problem.operands().collect();
    let operand = draw.pick(&operands);
    let mut bound = match &case.call {
        Call::Bound(bound) => bound.clone(),
        Call::Host => Bound::default(),
    };
    let required = matches!(operand, Operand::Query | Operand::Key | Operand::Value | Operand::Out);
    let (fault, deserved) = match draw.range(0, 5) {
        0 if !required && !matches!(operand, Operand::Capture(_)) => {
            (BindFault::Missing(operand), Fault::of("MissingOperand", operand))
        }
        1 => {
            let outputs = [
                Operand::Lse,
                Operand::Weights,
                Operand::Scores,
                Operand::Mask,
                Operand::Sinks,
            ];
            let operand = draw.pick(&outputs);
            if problem.has(operand) {
                return None;
            }
            (BindFault::Unexpected(operand), Fault::of("UnexpectedOperand", operand))
        }
        2 => (BindFault::TooSmall(operand), Fault::of("BufferTooSmall", operand)),
        3 => (BindFault::Usage(operand), Fault::of("BufferUsage", operand)),
        4 if problem.element_bytes(operand) > 1 => (BindFault::Offset(operand), Fault::of("BufferOffset", operand)),
        5 => {
            let outputs = [Operand::Out, Operand::Lse, Operand::Weights, Operand::Scores];
            let output = draw.pick(&outputs);
            if !problem.has(output) || outputs.contains(&operand) {
                return None;
            }
            bound.shared = false;
            (
                BindFault::SharedBuffer(output, operand),
                Fault::of("SharedBuffer", output),
            )
        }
        _ => return None,
    };
    bound.faults.push(fault);
    case.call = Call::Bound(bound);
    Some(deserved)
}
