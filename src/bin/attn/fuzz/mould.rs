//! What the cases of a block have in common: everything that a kernel is compiled for. Compiling costs a thousand times what
//! running does, so each block of cases has one of these, and varies sizes and values within.

use wgpu_attention::{Algorithm, CausalAlignment, DType, DTypes, DeviceCaps, KeyPadding, ScoreStage, Tier};

use super::draw::{Draw, Stream};
use super::mods::{MASK_MODS, PROB_MODS, SCORE_MODS};
use super::rope::{self, RopeKind};

/// How many cases share a mould.
pub const BLOCK: u64 = 700;

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
    /// At most 8 query rows, for which there are tiles of their own, whose kernels compile quickly; or more.
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
    /// Query rows and keys of a block mask's blocks.
    pub blocks: Option<[u32; 2]>,
    pub dropout: Option<DropoutKind>,
    pub rope: Option<RopeKind>,
    pub score_mod: Option<&'static str>,
    pub mask_mod: Option<&'static str>,
    pub prob_mod: Option<&'static str>,
    pub lse: bool,
    pub weights: bool,
    pub scores: Option<ScoreStage>,
    /// Weights and scores of some rows only.
    pub some_rows: bool,
    /// What the device lacks.
    pub lowered: Lowered,
}

/// How a tensor lies in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LayoutKind {
    Bhsd,
    Bshd,
    /// Strided, every stride a multiple of four.
    Padded,
    /// Strided, strides that are no multiples of four.
    Odd,
    /// Elements that several positions share, every stride a multiple of four; an output has none.
    Shared,
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
    /// The mould of a block of cases.
    pub fn new(seed: u64, block: u64) -> Self {
        let draw = &mut Draw::new(seed, Stream::Block, block);
        // Features alone, a few together, many together.
        let many = draw.pick(&[0.08, 0.2, 0.5]);
        let head_dim = head_dim(draw);
        let head_dim_v = head_dim_v(head_dim, draw);
        let prob_mod = draw.maybe(0.3 * many, |draw| draw.pick(PROB_MODS).0);
        let packed = draw.chance(0.4 * many);
        let mut mould = Self {
            head_dim,
            head_dim_v,
            dtypes: dtypes(draw),
            algorithm: draw.pick(&[Algorithm::Auto, Algorithm::Fused, Algorithm::ThreeKernels]),
            layouts: layouts(draw),
            odd_offsets: draw.chance(0.15),
            few_rows: draw.chance(0.6),
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
            blocks: draw.maybe(0.4 * many, blocks),
            dropout: draw.maybe(0.4 * many, |draw| {
                draw.pick(&[DropoutKind::Given, DropoutKind::Generated])
            }),
            rope: draw.maybe(0.4 * many, |draw| rope::kind(head_dim, draw)).flatten(),
            score_mod: draw.maybe(0.3 * many, |draw| draw.pick(SCORE_MODS).0),
            mask_mod: draw.maybe(0.4 * many, |draw| draw.pick(MASK_MODS).0),
            prob_mod,
            lse: draw.chance(0.5),
            weights: draw.chance(0.25),
            scores: draw.maybe(0.15, |draw| {
                draw.pick(&[ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Biased])
            }),
            some_rows: draw.chance(0.5),
            lowered: draw.maybe(0.4, Lowered::new).unwrap_or_default(),
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
        0..=10 => draw.pick(&[4, 8, 16, 20, 32, 64]),
        11..=16 => draw.pick(&[1, 2, 3, 5, 7, 13, 17, 31, 33, 65]),
        17..=18 => draw.pick(&[127, 128, 128, 130, 140]),
        _ => draw.pick(&[192, 256, 320, 576]),
    }
}

/// The same as a rule. Few heads have long rows of values: kernels keep them in registers, so that those of 128 channels take
/// ten times as long to compile as those of 16.
fn head_dim_v(head_dim: u32, draw: &mut Draw) -> u32 {
    let same = draw.chance(0.6);
    let other = self::head_dim(draw);
    match if same { head_dim } else { other } {
        long if long > 66 && draw.chance(0.7) => draw.pick(&[4, 7, 16, 31, 32]),
        dim => dim,
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

/// Whole tiles, or anything.
fn blocks(draw: &mut Draw) -> [u32; 2] {
    let sizes: &[u32] = match draw.chance(0.5) {
        true => &[32, 64, 96],
        false => &[1, 2, 3, 8, 16, 31, 33, 100, 1 << 20],
    };
    [draw.pick(sizes), draw.pick(sizes)]
}

fn alignment(draw: &mut Draw) -> CausalAlignment {
    draw.pick(&[CausalAlignment::UpperLeft, CausalAlignment::LowerRight])
}

impl Lowered {
    fn new(draw: &mut Draw) -> Self {
        let mut lowered = Self {
            portable: draw.chance(0.4),
            no_f16: draw.chance(0.3),
            storage_buffers: draw.maybe(0.3, |draw| draw.pick(&[8, 10, 10, 16])),
            binding_bytes: draw.maybe(0.4, |draw| draw.pick(&[1024, 4096, 16_384, 65_536])),
            buffer_bytes: draw.maybe(0.05, |draw| draw.pick(&[4096, 65_536])),
            workgroups: draw.maybe(0.3, |draw| draw.pick(&[1, 2, 5, 100])),
            loop_trips: draw.maybe(0.3, |draw| draw.pick(&[300, 700, 2000])),
            dispatch_flops: draw.maybe(0.3, |draw| draw.pick(&[1.0, 1e3, 1e5])),
            workgroup_bytes: draw.maybe(0.15, |draw| draw.pick(&[12 << 10, 16 << 10, 20 << 10])),
        };
        // Now and then so low that hardly anything is left.
        if draw.chance(0.1) {
            match draw.range(0, 4) {
                0 => lowered.storage_buffers = Some(4),
                1 => lowered.binding_bytes = Some(256),
                2 => lowered.buffer_bytes = Some(1024),
                3 => lowered.loop_trips = Some(1),
                _ => lowered.workgroup_bytes = Some(draw.pick(&[0, 8 << 10])),
            }
        }
        lowered
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
