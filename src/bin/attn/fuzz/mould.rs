//! What the cases of a block have in common: everything that a kernel is compiled for. Compiling costs more than running, so
//! each block of cases draws few of these, and varies sizes and values within.

use wgpu_attention::{Algorithm, CausalAlignment, DType, DTypes, DeviceCaps, KeyPadding, ScoreStage, Tier};

use super::draw::{Draw, Stream};
use super::mods::{MASK_MODS, PROB_MODS, SCORE_MODS};

/// How many cases share their moulds.
pub const BLOCK: u64 = 250;
/// How many moulds a block has.
const MOULDS: usize = 2;

/// What shapes kernels.
#[derive(Clone, Debug)]
pub struct Mould {
    pub head_dim: u32,
    pub head_dim_v: u32,
    pub dtypes: DTypes,
    pub algorithm: Algorithm,
    /// Of query, key, value and out.
    pub layouts: [LayoutKind; 4],
    /// Whether operands in buffers may begin anywhere, or at multiples of four elements only.
    pub odd_offsets: bool,
    /// At most 8 query rows, for which there are tiles of their own; or any number.
    pub few_rows: bool,
    pub causal: Option<CausalAlignment>,
    pub window: Option<CausalAlignment>,
    pub mask: bool,
    pub bias: bool,
    pub softcap: bool,
    pub alibi_slopes: bool,
    pub sinks: bool,
    pub key_padding: Option<KeyPadding>,
    pub packed: bool,
    pub blocks: Option<BlockSizes>,
    pub dropout: Option<DropoutKind>,
    pub score_mod: Option<&'static str>,
    pub mask_mod: Option<&'static str>,
    pub prob_mod: Option<&'static str>,
    pub lse: bool,
    pub weights: bool,
    pub scores: Option<ScoreStage>,
    /// The device as it is, and with some limits lowered.
    pub caps: [Lowered; 2],
}

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LayoutKind {
    Bhsd,
    Bshd,
    /// Strided, every stride a multiple of four.
    Padded,
    /// Strided, any strides.
    Odd,
    /// Elements that several positions share; an output has none.
    Shared,
}

/// How a block mask's blocks lie to the kernels' tiles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BlockSizes {
    WholeTiles,
    Any,
}

/// Which weights dropout drops.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropoutKind {
    Given,
    Generated,
}

/// Limits below the device's own.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    pub portable: bool,
    pub no_f16: bool,
    pub storage_buffers: Option<u32>,
    pub binding_bytes: Option<u64>,
    pub buffer_bytes: Option<u64>,
    pub workgroups: Option<u32>,
    pub loop_trips: Option<u32>,
    pub dispatch_flops: Option<f64>,
    pub workgroup_bytes: Option<u32>,
}

impl Mould {
    /// The moulds of the block that a case belongs to.
    pub fn of_block(seed: u64, block: u64) -> Vec<Mould> {
        let mut draw = Draw::new(seed, Stream::Block, block);
        (0..MOULDS).map(|_| Self::new(&mut draw)).collect()
    }

    fn new(draw: &mut Draw) -> Self {
        // Features alone, a few together, many together.
        let many = draw.pick(&[0.08, 0.2, 0.5]);
        let head_dim = head_dim(draw);
        let prob_mod = draw.maybe(0.3 * many, |draw| draw.pick(PROB_MODS).0);
        let packed = draw.chance(0.4 * many);
        let mut mould = Self {
            head_dim,
            head_dim_v: if draw.chance(0.6) {
                head_dim
            } else {
                self::head_dim(draw)
            },
            dtypes: dtypes(draw),
            algorithm: draw.pick(&[Algorithm::Auto, Algorithm::Fused, Algorithm::ThreeKernels]),
            layouts: layouts(draw),
            odd_offsets: draw.chance(0.25),
            few_rows: draw.chance(0.25),
            causal: draw.maybe(many, alignment),
            window: draw.maybe(0.7 * many, alignment),
            mask: draw.chance(0.7 * many),
            bias: draw.chance(0.7 * many),
            softcap: draw.chance(0.5 * many),
            alibi_slopes: draw.chance(0.5 * many),
            sinks: draw.chance(0.5 * many),
            key_padding: draw.maybe(0.8 * many, |draw| {
                draw.pick(&[KeyPadding::Additive, KeyPadding::Boolean, KeyPadding::Lengths])
            }),
            packed,
            blocks: draw.maybe(0.4 * many, |draw| draw.pick(&[BlockSizes::WholeTiles, BlockSizes::Any])),
            dropout: draw.maybe(0.4 * many, |draw| {
                draw.pick(&[DropoutKind::Given, DropoutKind::Generated])
            }),
            score_mod: draw.maybe(0.3 * many, |draw| draw.pick(SCORE_MODS).0),
            mask_mod: draw.maybe(0.4 * many, |draw| draw.pick(MASK_MODS).0),
            prob_mod,
            lse: draw.chance(0.5),
            weights: draw.chance(0.3),
            scores: draw.maybe(0.2, |draw| {
                draw.pick(&[ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Biased])
            }),
            caps: [Lowered::default(), Lowered::new(draw)],
        };
        // What excludes one another.
        if mould.packed && mould.key_padding == Some(KeyPadding::Lengths) {
            mould.key_padding = None;
        }
        if mould.prob_mod.is_some() && mould.algorithm == Algorithm::Fused {
            mould.algorithm = Algorithm::Auto;
        }
        mould
    }
}

fn head_dim(draw: &mut Draw) -> u32 {
    match draw.range(0, 19) {
        0..=11 => draw.pick(&[4, 8, 16, 20, 32, 64, 64, 128]),
        12..=17 => draw.pick(&[1, 2, 3, 5, 7, 13, 17, 33, 65, 127, 130, 140]),
        _ => draw.pick(&[192, 256, 320, 576]),
    }
}

fn dtypes(draw: &mut Draw) -> DTypes {
    let bias = draw.pick(&DType::ALL);
    match draw.range(0, 9) {
        0..=4 => DTypes {
            bias,
            ..DTypes::default()
        },
        5..=7 => DTypes {
            bias,
            ..DTypes::all(draw.pick(&DType::ALL))
        },
        _ => DTypes {
            query: draw.pick(&DType::ALL),
            key: draw.pick(&DType::ALL),
            value: draw.pick(&DType::ALL),
            out: draw.pick(&DType::ALL),
            bias,
        },
    }
}

fn layouts(draw: &mut Draw) -> [LayoutKind; 4] {
    use LayoutKind::{Bhsd, Bshd, Odd, Padded, Shared};
    if draw.chance(0.4) {
        return [draw.pick(&[Bhsd, Bshd]); 4];
    }
    let mut any = || draw.pick(&[Bhsd, Bshd, Padded, Odd, Shared]);
    let inputs = [any(), any(), any()];
    [inputs[0], inputs[1], inputs[2], draw.pick(&[Bhsd, Bshd, Padded, Odd])]
}

fn alignment(draw: &mut Draw) -> CausalAlignment {
    draw.pick(&[CausalAlignment::UpperLeft, CausalAlignment::LowerRight])
}

impl Lowered {
    fn new(draw: &mut Draw) -> Self {
        Self {
            portable: draw.chance(0.4),
            no_f16: draw.chance(0.3),
            storage_buffers: draw.maybe(0.3, |draw| draw.pick(&[8, 8, 10, 16, 4])),
            binding_bytes: draw.maybe(0.4, |draw| draw.pick(&[256, 1024, 4096, 16_384, 65_536])),
            buffer_bytes: draw.maybe(0.1, |draw| draw.pick(&[1024, 65_536])),
            workgroups: draw.maybe(0.3, |draw| draw.pick(&[1, 2, 5, 100])),
            loop_trips: draw.maybe(0.3, |draw| draw.pick(&[1, 300, 700, 2000])),
            dispatch_flops: draw.maybe(0.3, |draw| draw.pick(&[1.0, 1e3, 1e5])),
            workgroup_bytes: draw.maybe(0.15, |draw| draw.pick(&[0, 8 << 10, 12 << 10, 20 << 10])),
        }
    }

    /// A device's capabilities with these limits.
    pub fn apply(&self, device: &DeviceCaps) -> DeviceCaps {
        let mut caps = device.clone();
        if self.portable {
            caps = caps.at_most(Tier::Portable);
        }
        caps.shader_f16 &= !self.no_f16;
        let limits = &mut caps.limits;
        lower(&mut limits.max_storage_buffers, self.storage_buffers);
        lower(&mut limits.max_storage_buffer_binding_bytes, self.binding_bytes);
        lower(&mut limits.max_buffer_bytes, self.buffer_bytes);
        lower(&mut limits.max_workgroups_per_dimension, self.workgroups);
        lower(&mut limits.max_workgroup_bytes, self.workgroup_bytes);
        if let Some(trips) = self.loop_trips {
            caps.max_loop_trips = Some(caps.max_loop_trips.map_or(trips, |most| most.min(trips)));
        }
        lower(&mut caps.max_dispatch_flops, self.dispatch_flops);
        caps
    }
}

fn lower<T: PartialOrd + Copy>(limit: &mut T, to: Option<T>) {
    if let Some(to) = to.filter(|to| *to < *limit) {
        *limit = to;
    }
}
