//! What is to be rotated: [`RopeDescriptor`] as a caller writes it, [`RopeProblem`] once it is known to make sense.

use crate::error::{Error, Operand, Result};
use crate::problem::{DType, Extent, Layout};
use crate::rope::RopeFrequencies;
use crate::rope::frequencies::validate_rotary_dim;

/// A request to turn pairs of channels of `x [batch, heads, seqlen, head_dim]` by angles that grow with the position:
/// `out1 = x1 cos - x2 sin`, `out2 = x2 cos + x1 sin`. Channels from `rotary_dim` on pass through.
///
/// ```
/// use wgpu_attention::{RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies, RopePositions, RopeProblem};
///
/// // One more token of a sequence that has 100 already.
/// let frequencies = RopeFrequencies::new(&RopeConfig::new(64))?;
/// let problem = RopeProblem::new(&RopeDescriptor {
///     positions: RopePositions::Offset(100),
///     ..RopeDescriptor::new([1, 8, 1, 64], RopeAngles::Frequencies(&frequencies))
/// })?;
/// assert_eq!(problem.rotary_dim(), 64);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeDescriptor<'a> {
    /// Number of sequences.
    pub batch: u32,
    /// Number of heads.
    pub heads: u32,
    /// Rows (tokens) of each sequence.
    pub seqlen: u32,
    /// Channels of each head.
    pub head_dim: u32,
    /// Where cos and sin come from; also says how many channels rotate.
    pub angles: RopeAngles<'a>,
    /// Which position each row has. [`RopeAngles::CacheByRow`] has its rows' angles and looks at no position.
    pub positions: RopePositions,
    /// Which channels make a pair.
    pub pairing: RopePairing,
    /// How x and out lie in memory.
    pub layouts: RopeLayouts,
    /// How numbers are stored.
    pub dtypes: RopeDTypes,
    /// Rotates out's buffer itself: there is no operand x, whose layout and storage type must be out's.
    pub in_place: bool,
}

impl<'a> RopeDescriptor<'a> {
    /// Contiguous `f32` of these sizes, `[batch, heads, seqlen, head_dim]`, from position 0 on, in halves.
    pub fn new([batch, heads, seqlen, head_dim]: [u32; 4], angles: RopeAngles<'a>) -> Self {
        Self {
            batch,
            heads,
            seqlen,
            head_dim,
            angles,
            positions: RopePositions::default(),
            pairing: RopePairing::default(),
            layouts: RopeLayouts::default(),
            dtypes: RopeDTypes::default(),
            in_place: false,
        }
    }
}

/// Where cos and sin come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeAngles<'a> {
    /// The kernel computes them, `position * inv_freq` turned exactly, whatever the position.
    Frequencies(&'a RopeFrequencies),
    /// Operands cos and sin hold them for every position, `[max_positions, rotary_dim / 2]`, contiguous: ONNX's
    /// `RotaryEmbedding` with `position_ids`.
    CacheByPosition {
        /// Channels that rotate.
        rotary_dim: u32,
        /// Rows of cos and sin.
        max_positions: u32,
    },
    /// Operands cos and sin hold them for every row, `[batch, seqlen, rotary_dim / 2]`, contiguous: ONNX's
    /// `RotaryEmbedding` without `position_ids`.
    CacheByRow {
        /// Channels that rotate.
        rotary_dim: u32,
    },
}

/// Which position a row has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RopePositions {
    /// Row `i` of each sequence has position `offset + i`. Below 0 it turns backwards.
    Offset(i32),
    /// The operand position_ids says, `[batch, seqlen]`, contiguous, `i32`.
    Ids,
    /// The operand position_ids says for all sequences alike, `[seqlen]`, contiguous, `i32`.
    SharedIds,
}

/// From position 0 on.
impl Default for RopePositions {
    fn default() -> Self {
        Self::Offset(0)
    }
}

/// Which channels make a pair.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum RopePairing {
    /// `i` and `i + rotary_dim / 2`: Llama, GPT-NeoX and most others in Hugging Face's layout.
    #[default]
    HalfSplit,
    /// `2i` and `2i + 1`: GPT-J, and the paper.
    Interleaved,
}

/// The layouts of the two tensors with channels.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct RopeLayouts {
    /// `[batch, heads, seqlen, head_dim]`.
    pub x: Layout,
    /// `[batch, heads, seqlen, head_dim]`.
    pub out: Layout,
}

impl RopeLayouts {
    /// The same layout for both.
    pub const fn all(layout: Layout) -> Self {
        Self { x: layout, out: layout }
    }
}

/// The storage types. Arithmetic is `f32`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct RopeDTypes {
    /// Of x.
    pub x: DType,
    /// Of out.
    pub out: DType,
    /// Of the operands cos and sin.
    pub cache: DType,
}

impl RopeDTypes {
    /// The same type for all.
    pub const fn all(dtype: DType) -> Self {
        Self {
            x: dtype,
            out: dtype,
            cache: dtype,
        }
    }
}

/// A validated request: every size positive, every operand within 32-bit indexes, every position within 31 bits.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeProblem {
    sizes: [u32; 4],
    rotary_dim: u32,
    frequencies: Option<RopeFrequencies>,
    max_positions: Option<u32>,
    positions: RopePositions,
    pairing: RopePairing,
    dtypes: RopeDTypes,
    in_place: bool,
    x: Extent,
    out: Extent,
    position_ids: Option<Extent>,
    cache: Option<Extent>,
}

impl RopeProblem {
    /// Checks a descriptor. Errors name the operand, what came and what was expected.
    pub fn new(descriptor: &RopeDescriptor<'_>) -> Result<Self> {
        let RopeDescriptor {
            batch,
            heads,
            seqlen,
            head_dim,
            positions,
            pairing,
            layouts,
            dtypes,
            in_place,
            ..
        } = *descriptor;
        for (dimension, size) in [
            ("batch", batch),
            ("heads", heads),
            ("seqlen", seqlen),
            ("head_dim", head_dim),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
        }
        let (rotary_dim, frequencies, max_positions) = match descriptor.angles {
            RopeAngles::Frequencies(frequencies) => (frequencies.rotary_dim(), Some(frequencies.clone()), None),
            RopeAngles::CacheByPosition {
                rotary_dim,
                max_positions,
            } => (rotary_dim, None, Some(max_positions)),
            RopeAngles::CacheByRow { rotary_dim } => (rotary_dim, None, None),
        };
        validate_rotary_dim(rotary_dim, head_dim)?;
        if max_positions == Some(0) {
            let dimension = "max_positions";
            return Err(Error::ZeroSize { dimension });
        }
        let by_row = matches!(descriptor.angles, RopeAngles::CacheByRow { .. });
        let cache_sizes = match max_positions {
            Some(max_positions) => Some([1, 1, max_positions, rotary_dim / 2]),
            None => by_row.then_some([batch, 1, seqlen, rotary_dim / 2]),
        };
        let ids_stride = match positions {
            RopePositions::Ids if !by_row => Some(seqlen),
            RopePositions::SharedIds if !by_row => Some(0),
            _ => None,
        };
        if in_place && (layouts.x != layouts.out || dtypes.x != dtypes.out) {
            return Err(Error::Unsupported {
                what: "rotating in place from one layout or storage type to another".into(),
                why: "x is out: give layouts.x and dtypes.x the values of out's".into(),
            });
        }
        let sizes = [batch, heads, seqlen, head_dim];
        let ids_sizes = [batch, 1, 1, seqlen];
        let problem = Self {
            sizes,
            rotary_dim,
            frequencies,
            max_positions,
            positions,
            pairing,
            dtypes,
            in_place,
            x: Extent::new(Operand::X, layouts.x, sizes)?,
            out: Extent::new(Operand::Out, layouts.out, sizes)?,
            position_ids: ids_stride
                .map(|stride| Extent::strided(Operand::PositionIds, ids_sizes, [stride.into(), 0, 0, 1]))
                .transpose()?,
            cache: cache_sizes
                .map(|sizes| Extent::contiguous(Operand::Cos, sizes))
                .transpose()?,
        };
        problem.out.validate_apart(Operand::Out)?;
        if !by_row && let RopePositions::Offset(offset) = positions {
            problem.validate_position(offset.into())?;
            problem.validate_position(i64::from(offset) + i64::from(seqlen - 1))?;
        }
        Ok(problem)
    }

    /// `[batch, heads, seqlen, head_dim]`.
    pub fn sizes(&self) -> [u32; 4] {
        self.sizes
    }

    /// Channels that rotate.
    pub fn rotary_dim(&self) -> u32 {
        self.rotary_dim
    }

    /// The frequencies, where the kernel computes the angles.
    pub fn frequencies(&self) -> Option<&RopeFrequencies> {
        self.frequencies.as_ref()
    }

    /// Rows of cos and sin, where they are given by position.
    pub fn max_positions(&self) -> Option<u32> {
        self.max_positions
    }

    /// Which position each row has.
    pub fn positions(&self) -> RopePositions {
        self.positions
    }

    /// Which channels make a pair.
    pub fn pairing(&self) -> RopePairing {
        self.pairing
    }

    /// The storage types.
    pub fn dtypes(&self) -> RopeDTypes {
        self.dtypes
    }

    /// Whether out's own buffer is rotated.
    pub fn in_place(&self) -> bool {
        self.in_place
    }

    /// An operand's sizes and strides; `None` when the problem does not have it.
    pub fn extent(&self, operand: Operand) -> Option<Extent> {
        match operand {
            Operand::X => (!self.in_place).then_some(self.x),
            Operand::Out => Some(self.out),
            Operand::PositionIds => self.position_ids,
            Operand::Cos | Operand::Sin => self.cache,
            _ => None,
        }
    }

    /// Bytes of one element of an operand.
    pub fn element_bytes(&self, operand: Operand) -> u64 {
        match operand {
            Operand::X => self.dtypes.x.bytes(),
            Operand::Out => self.dtypes.out.bytes(),
            Operand::Cos | Operand::Sin => self.dtypes.cache.bytes(),
            _ => 4,
        }
    }

    /// The two channels of a pair.
    pub fn channels(&self, pair: u32) -> [u32; 2] {
        match self.pairing {
            RopePairing::HalfSplit => [pair, pair + self.rotary_dim / 2],
            RopePairing::Interleaved => [2 * pair, 2 * pair + 1],
        }
    }

    /// Fails if no row can have this position: outside of the caches, or beyond 31 bits.
    fn validate_position(&self, position: i64) -> Result<()> {
        let (first, last) = match self.max_positions {
            Some(max_positions) => (0, i64::from(max_positions) - 1),
            None => (i32::MIN.into(), i32::MAX.into()),
        };
        match (first..=last).contains(&position) {
            true => Ok(()),
            false => Err(Error::Position { position, first, last }),
        }
    }
}

/// Host slices for one call. Numbers are `f32`, whatever the storage type: a half type's are rounded on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RopeHostInputs<'a> {
    /// `[batch, heads, seqlen, head_dim]` in x's layout, as long as it spans in memory; also when rotating in place.
    pub x: &'a [f32],
    /// `[batch, seqlen]` or `[seqlen]`, if the descriptor names them.
    pub position_ids: Option<&'a [i32]>,
    /// `[max_positions, rotary_dim / 2]` or `[batch, seqlen, rotary_dim / 2]`, if the descriptor names it.
    pub cos: Option<&'a [f32]>,
    /// As cos.
    pub sin: Option<&'a [f32]>,
}

impl RopeHostInputs<'_> {
    /// Checks that exactly the operands that the problem names are here, each of its length, and that every position is one
    /// that the problem knows.
    pub fn validate(&self, problem: &RopeProblem) -> Result<()> {
        for (operand, extent, len) in [
            (Operand::X, Some(problem.x), Some(self.x.len())),
            (
                Operand::PositionIds,
                problem.position_ids,
                self.position_ids.map(<[i32]>::len),
            ),
            (Operand::Cos, problem.cache, self.cos.map(<[f32]>::len)),
            (Operand::Sin, problem.cache, self.sin.map(<[f32]>::len)),
        ] {
            match (extent, len) {
                (None, None) => {}
                (None, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
                (Some(_), None) => return Err(Error::MissingOperand { operand }),
                (Some(extent), Some(actual)) if actual as u64 != extent.span() => {
                    return Err(Error::Length {
                        operand,
                        actual: actual as u64,
                        expected: extent.span(),
                    });
                }
                (Some(_), Some(_)) => {}
            }
        }
        let Some(max_positions) = problem.max_positions else {
            return Ok(());
        };
        for (index, &position) in (0..).zip(self.position_ids.unwrap_or_default()) {
            if u32::try_from(position).is_ok_and(|position| position < max_positions) {
                continue;
            }
            return Err(Error::Contents {
                operand: Operand::PositionIds,
                index,
                value: position.into(),
                expected: format!("0 to {}, the last row of cos and sin", max_positions - 1),
            });
        }
        Ok(())
    }
}
