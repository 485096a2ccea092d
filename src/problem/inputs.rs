//! The operands of a call as host slices.

use half::{bf16, f16};

use crate::error::{Error, Operand, Result};
use crate::problem::{DType, KeyPadding, Packed, Problem};

/// Numbers on the host, in one of the storage types.
///
/// Made from slices, vectors and arrays of `f32` and of the types of the crate [`half`], for the descriptor's [`DTypes`]:
///
/// ```
/// use wgpu_attention::half::bf16;
/// use wgpu_attention::{AttentionDescriptor, AttentionShape, DType, DTypes, Engine, HostInputs};
///
/// let x = vec![bf16::from_f32(0.5); 8 * 6 * 64];
/// let descriptor = AttentionDescriptor {
///     shape: AttentionShape::new(1, 8, 6, 6, 64),
///     dtypes: DTypes::all(DType::Bf16),
///     ..Default::default()
/// };
/// let output = Engine::new()?.attention(&descriptor, &HostInputs::new(&x, &x, &x))?;
/// assert_eq!(output.out[0], 0.5); // widened to f32
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
///
/// [`DTypes`]: crate::DTypes
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HostTensor<'a> {
    /// Singles.
    F32(&'a [f32]),
    /// Halves.
    F16(&'a [f16]),
    /// The upper halves of singles.
    Bf16(&'a [bf16]),
}

impl<'a> HostTensor<'a> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        match self {
            HostTensor::F32(numbers) => numbers.len(),
            HostTensor::F16(numbers) => numbers.len(),
            HostTensor::Bf16(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How they are stored.
    pub fn dtype(&self) -> DType {
        match self {
            HostTensor::F32(_) => DType::F32,
            HostTensor::F16(_) => DType::F16,
            HostTensor::Bf16(_) => DType::Bf16,
        }
    }

    /// Their bytes, as they lie in memory.
    pub fn bytes(&self) -> &'a [u8] {
        match *self {
            HostTensor::F32(numbers) => bytemuck::cast_slice(numbers),
            HostTensor::F16(numbers) => bytemuck::cast_slice(numbers),
            HostTensor::Bf16(numbers) => bytemuck::cast_slice(numbers),
        }
    }

    /// One of them, exactly; NaN behind the last.
    pub fn at(&self, index: usize) -> f32 {
        let number = match self {
            HostTensor::F32(numbers) => numbers.get(index).copied(),
            HostTensor::F16(numbers) => numbers.get(index).map(|number| number.to_f32()),
            HostTensor::Bf16(numbers) => numbers.get(index).map(|number| number.to_f32()),
        };
        number.unwrap_or(f32::NAN)
    }
}

impl Default for HostTensor<'_> {
    fn default() -> Self {
        HostTensor::F32(&[])
    }
}

macro_rules! host_tensor_from {
    ($($number:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$number]> for HostTensor<'a> {
            fn from(numbers: &'a [$number]) -> Self {
                HostTensor::$variant(numbers)
            }
        }

        impl<'a> From<&'a Vec<$number>> for HostTensor<'a> {
            fn from(numbers: &'a Vec<$number>) -> Self {
                HostTensor::$variant(numbers)
            }
        }

        impl<'a, const N: usize> From<&'a [$number; N]> for HostTensor<'a> {
            fn from(numbers: &'a [$number; N]) -> Self {
                HostTensor::$variant(numbers)
            }
        }
    )*};
}

host_tensor_from!(f32 => F32, f16 => F16, bf16 => Bf16);

/// Host slices for one call, each as long as its operand spans in memory (`batch * heads * seqlen * head_dim` elements
/// when contiguous).
///
/// Masks are bytes, 0 for closed: a `&[bool]` becomes one with `bytemuck::cast_slice`.
///
/// ```
/// use wgpu_attention::HostInputs;
///
/// let x = vec![0.5; 8 * 6 * 64];
/// let sinks = [1.0; 8];
/// let inputs = HostInputs { sinks: Some(&sinks), ..HostInputs::new(&x, &x, &x) };
/// # assert_eq!(inputs.query.len(), x.len());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HostInputs<'a> {
    /// `[batch, heads, seqlen_q, head_dim]` in the descriptor's layout and type.
    pub query: HostTensor<'a>,
    /// `[batch, kv_heads, seqlen_k, head_dim]` in the descriptor's layout and type.
    pub key: HostTensor<'a>,
    /// `[batch, kv_heads, seqlen_k, head_dim_v]` in the descriptor's layout and type.
    pub value: HostTensor<'a>,
    /// The boolean mask, if the descriptor names one.
    pub mask: Option<&'a [u8]>,
    /// The additive bias, if the descriptor names one.
    pub bias: Option<HostTensor<'a>>,
    /// The key padding, if the descriptor names one.
    pub key_padding: Option<HostKeyPadding<'a>>,
    /// `[heads]`, if the descriptor says ALiBi.
    pub alibi_slopes: Option<&'a [f32]>,
    /// `[heads]`, if the descriptor says so.
    pub sinks: Option<&'a [f32]>,
    /// `[batch, heads, seqlen_q, seqlen_k]`, 0 drops, if the descriptor's dropout is given.
    pub dropout_mask: Option<&'a [u8]>,
    /// `[batch, heads, q blocks, kv blocks]` of the descriptor's block mask, each a [`BlockState`](crate::BlockState) as
    /// number.
    pub block_mask: Option<&'a [u32]>,
    /// `[batch + 1]`, if the descriptor says packed.
    pub cu_seqlens_q: Option<&'a [u32]>,
    /// `[batch + 1]`, if the descriptor says packed.
    pub cu_seqlens_k: Option<&'a [u32]>,
    /// `[batch, seqlen_q]` or `[seqlen_q]`, if the descriptor's rotary embedding says ids.
    pub query_position_ids: Option<&'a [i32]>,
    /// `[batch, seqlen_k]` or `[seqlen_k]`, if the descriptor's rotary embedding says ids.
    pub key_position_ids: Option<&'a [i32]>,
    /// The bytes of each of the descriptor's captures, in its order.
    pub captures: &'a [&'a [u8]],
}

/// Key padding as host data, `[batch, seqlen_k - appended_keys]`; or lengths, `[batch]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HostKeyPadding<'a> {
    /// One `f32` a key, added to its scores.
    Additive(&'a [f32]),
    /// One byte a key, 0 for closed.
    Boolean(&'a [u8]),
    /// How many keys each sequence has.
    Lengths(&'a [u32]),
}

impl<'a> HostKeyPadding<'a> {
    fn kind(&self) -> KeyPadding {
        match self {
            HostKeyPadding::Additive(_) => KeyPadding::Additive,
            HostKeyPadding::Boolean(_) => KeyPadding::Boolean,
            HostKeyPadding::Lengths(_) => KeyPadding::Lengths,
        }
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        match *self {
            HostKeyPadding::Additive(values) => bytemuck::cast_slice(values),
            HostKeyPadding::Boolean(bytes) => bytes,
            HostKeyPadding::Lengths(lengths) => bytemuck::cast_slice(lengths),
        }
    }
}

impl<'a> HostInputs<'a> {
    /// Query, key and value; nothing else.
    pub fn new(
        query: impl Into<HostTensor<'a>>,
        key: impl Into<HostTensor<'a>>,
        value: impl Into<HostTensor<'a>>,
    ) -> Self {
        Self {
            query: query.into(),
            key: key.into(),
            value: value.into(),
            ..Self::default()
        }
    }

    /// Checks that exactly the operands that the problem names are here, each of its type and length, and that lengths and
    /// `cu_seqlens` hold what they may.
    pub fn validate(&self, problem: &Problem) -> Result<()> {
        for (operand, tensor) in [
            (Operand::Query, self.query),
            (Operand::Key, self.key),
            (Operand::Value, self.value),
        ] {
            validate_dtype(problem, operand, &tensor)?;
        }
        let captures = problem.mods().captures.len();
        if self.captures.len() > captures {
            return Err(Error::UnexpectedOperand {
                operand: Operand::Capture(u8::try_from(captures).unwrap_or(u8::MAX)),
            });
        }
        for operand in problem.operands().filter(|operand| is_input(*operand)) {
            self.validate_operand(problem, operand)?;
        }
        self.validate_unasked(problem)?;
        self.validate_contents(problem)
    }

    /// Checks mask, bias and key padding only.
    pub(crate) fn validate_masks(&self, problem: &Problem) -> Result<()> {
        for operand in [Operand::Mask, Operand::Bias, Operand::KeyPadding] {
            if problem.has(operand) {
                self.validate_operand(problem, operand)?;
            }
        }
        self.validate_unasked(problem)
    }

    /// An operand that the problem has.
    fn validate_operand(&self, problem: &Problem, operand: Operand) -> Result<()> {
        let Some(bytes) = self.bytes(operand) else {
            return Err(Error::MissingOperand { operand });
        };
        if operand == Operand::Bias
            && let Some(bias) = &self.bias
        {
            validate_dtype(problem, operand, bias)?;
        }
        if operand == Operand::KeyPadding && self.key_padding.map(|padding| padding.kind()) != problem.key_padding() {
            return Err(Error::Unsupported {
                what: format!(
                    "key_padding given as {:?}",
                    self.key_padding.map(|padding| padding.kind())
                ),
                why: format!("the descriptor says {:?}", problem.key_padding()),
            });
        }
        let element_bytes = problem.element_bytes(operand);
        let expected = problem.extent(operand).map_or(0, |extent| extent.span());
        let actual = bytes.len() as u64 / element_bytes;
        if actual != expected || !(bytes.len() as u64).is_multiple_of(element_bytes) {
            return Err(Error::Length {
                operand,
                actual,
                expected,
            });
        }
        Ok(())
    }

    fn validate_unasked(&self, problem: &Problem) -> Result<()> {
        for operand in OPTIONAL_INPUTS {
            if self.bytes(operand).is_some() && !problem.has(operand) {
                return Err(Error::UnexpectedOperand { operand });
            }
        }
        Ok(())
    }

    fn validate_contents(&self, problem: &Problem) -> Result<()> {
        let shape = problem.shape();
        if let Some(HostKeyPadding::Lengths(lengths)) = self.key_padding {
            let too_long = lengths.iter().position(|&length| length > shape.seqlen_k);
            if let Some(index) = too_long {
                return Err(Error::Contents {
                    operand: Operand::KeyPadding,
                    index: index as u64,
                    value: lengths[index].into(),
                    expected: format!("at most seqlen_k, which is {}", shape.seqlen_k),
                });
            }
        }
        if let Some(states) = self.block_mask
            && let Some(index) = states.iter().position(|&state| state > 2)
        {
            return Err(Error::Contents {
                operand: Operand::BlockMask,
                index: index as u64,
                value: states[index].into(),
                expected: "0 (closed), 1 (partial) or 2 (open)".into(),
            });
        }
        if let Some(Packed { tokens_q, tokens_k }) = problem.packed() {
            validate_cu_seqlens(Operand::CuSeqlensQ, self.cu_seqlens_q, [tokens_q, shape.seqlen_q])?;
            validate_cu_seqlens(Operand::CuSeqlensK, self.cu_seqlens_k, [tokens_k, shape.seqlen_k])?;
        }
        Ok(())
    }

    /// An operand's bytes; `None` when it is absent or an output.
    pub(crate) fn bytes(&self, operand: Operand) -> Option<&'a [u8]> {
        match operand {
            Operand::Query => Some(self.query.bytes()),
            Operand::Key => Some(self.key.bytes()),
            Operand::Value => Some(self.value.bytes()),
            Operand::Mask => self.mask,
            Operand::Bias => self.bias.map(|bias| bias.bytes()),
            Operand::KeyPadding => self.key_padding.map(|padding| padding.bytes()),
            Operand::AlibiSlopes => self.alibi_slopes.map(bytemuck::cast_slice),
            Operand::Sinks => self.sinks.map(bytemuck::cast_slice),
            Operand::DropoutMask => self.dropout_mask,
            Operand::BlockMask => self.block_mask.map(bytemuck::cast_slice),
            Operand::CuSeqlensQ => self.cu_seqlens_q.map(bytemuck::cast_slice),
            Operand::CuSeqlensK => self.cu_seqlens_k.map(bytemuck::cast_slice),
            Operand::QueryPositionIds => self.query_position_ids.map(bytemuck::cast_slice),
            Operand::KeyPositionIds => self.key_position_ids.map(bytemuck::cast_slice),
            Operand::Capture(index) => self.captures.get(usize::from(index)).copied(),
            // Outputs, and what attention does not read.
            _ => None,
        }
    }
}

/// The inputs that a call may do without.
const OPTIONAL_INPUTS: [Operand; 11] = [
    Operand::KeyPositionIds,
    Operand::QueryPositionIds,
    Operand::AlibiSlopes,
    Operand::Bias,
    Operand::BlockMask,
    Operand::CuSeqlensK,
    Operand::CuSeqlensQ,
    Operand::DropoutMask,
    Operand::KeyPadding,
    Operand::Mask,
    Operand::Sinks,
];

pub(crate) fn is_input(operand: Operand) -> bool {
    !matches!(
        operand,
        Operand::Lse | Operand::Out | Operand::Scores | Operand::Weights
    )
}

fn validate_dtype(problem: &Problem, operand: Operand, tensor: &HostTensor<'_>) -> Result<()> {
    let (actual, expected) = (tensor.dtype(), problem.dtype(operand));
    if actual == expected {
        return Ok(());
    }
    Err(Error::DType {
        operand,
        actual,
        expected,
    })
}

/// Ascending from 0 to the number of tokens, no sequence longer than the shape says.
fn validate_cu_seqlens(operand: Operand, bounds: Option<&[u32]>, [tokens, seqlen]: [u32; 2]) -> Result<()> {
    let bounds = bounds.ok_or(Error::MissingOperand { operand })?;
    let wrong = |index: usize, expected: String| Error::Contents {
        operand,
        index: index as u64,
        value: bounds[index].into(),
        expected,
    };
    if bounds[0] != 0 {
        return Err(wrong(0, "0".into()));
    }
    for (index, pair) in bounds.windows(2).enumerate() {
        let most = pair[0].saturating_add(seqlen);
        if !(pair[0]..=most).contains(&pair[1]) {
            let expected = format!("{} to {most}: sequences are at most {seqlen} long", pair[0]);
            return Err(wrong(index + 1, expected));
        }
    }
    let last = bounds.len() - 1;
    if bounds[last] != tokens {
        return Err(wrong(last, format!("{tokens}, the number of tokens")));
    }
    Ok(())
}
