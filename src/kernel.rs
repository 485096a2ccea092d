//! What a kernel is made of: a list of shader files and a header of constants.

pub mod catalog;
mod hooks;
pub mod operations;
pub mod params;
pub mod source;

use std::sync::Arc;

use crate::Operand;
use crate::plan::tuning::Tile;
use crate::problem::mods::{OwnedCapture, OwnedMods};
use crate::problem::{CausalAlignment, Problem, ScoreStage};
use crate::rope::RopePairing;
use hooks::Hooks;
use source::{Access, Extension, Part, part};

/// The skeletons: each becomes one entry point.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Skeleton {
    /// Attention in one kernel with online softmax: `shaders/fused.wgsl`.
    Fused,
    /// The same without workgroup memory, for software drivers: `shaders/broadcast.wgsl`.
    Broadcast,
    /// The same with keys and values at uniform addresses: `shaders/uniform.wgsl`.
    Uniform,
    /// The same for few rows over many keys, by runs of keys: `shaders/split.wgsl`.
    Split,
    /// The same by products of matrices: `shaders/matrix.wgsl`.
    Matrix,
    /// After the split one: what the runs made of each row, joined: `shaders/join.wgsl`.
    Join,
    /// First of three: `shaders/scores.wgsl`.
    Scores,
    /// Second of three: `shaders/softmax.wgsl`.
    Softmax,
    /// Third of three: `shaders/weighted_values.wgsl`.
    WeightedValues,
    /// Before attention with a block mask: which tiles there are to visit: `shaders/tile_lists.wgsl`.
    TileLists,
    /// After the last pass over the keys: `out` in `f32` to the caller's type: `shaders/narrow.wgsl`.
    Narrow,
    /// A projection, `y = x Wᵀ + b`: `shaders/linear.wgsl`.
    Linear,
    /// Mean over heads: `shaders/average_heads.wgsl`.
    AverageHeads,
    /// An operation beside attention, by its file's name without the extension: see [`operations`].
    Operation(&'static str),
}

impl Skeleton {
    /// All of them.
    pub const ALL: [Skeleton; 13] = [
        Skeleton::Fused,
        Skeleton::Broadcast,
        Skeleton::Uniform,
        Skeleton::Split,
        Skeleton::Matrix,
        Skeleton::Join,
        Skeleton::Scores,
        Skeleton::Softmax,
        Skeleton::WeightedValues,
        Skeleton::TileLists,
        Skeleton::Narrow,
        Skeleton::Linear,
        Skeleton::AverageHeads,
    ];

    /// The name of the skeleton's file without its extension.
    pub fn name(self) -> &'static str {
        match self {
            Skeleton::Fused => "fused",
            Skeleton::Broadcast => "broadcast",
            Skeleton::Uniform => "uniform",
            Skeleton::Split => "split",
            Skeleton::Matrix => "matrix",
            Skeleton::Join => "join",
            Skeleton::Scores => "scores",
            Skeleton::Softmax => "softmax",
            Skeleton::WeightedValues => "weighted_values",
            Skeleton::TileLists => "tile_lists",
            Skeleton::Narrow => "narrow",
            Skeleton::Linear => "linear",
            Skeleton::AverageHeads => "average_heads",
            Skeleton::Operation(name) => name,
        }
    }
}

/// One kernel, wholly described: equal configurations compose to equal text, so this is also the pipeline cache's key.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct KernelConfig {
    skeleton: Skeleton,
    parts: Vec<&'static str>,
    constants: Vec<(&'static str, u32)>,
    /// The caller's own functions, and the captures that they read.
    mods: Vec<(&'static str, Arc<str>)>,
    captures: Arc<[OwnedCapture]>,
}

/// What differs between the dispatches of one attention call besides their region.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Variant {
    /// Goes on from what an earlier dispatch left in `out` (and `lse`).
    pub resume: bool,
    /// Has an lse to write, be it the caller's or the workspace's.
    pub lse: bool,
    /// What the scores kernel hands out.
    pub emit: Emit,
    /// `out` lies in the workspace, in `f32`, whatever the caller's type: a later dispatch reads it back.
    pub partial: bool,
    /// Whether the device's shaders may use `f16`.
    pub shader_f16: bool,
    /// Whether the lanes of a row reach each other by subgroup shuffles: [`crate::DeviceCaps::lanes_in_order`].
    pub shuffles: bool,
    /// Whether the fused kernel visits tiles that are wholly open in a loop of their own, where it can tell them.
    pub open_apart: bool,
    /// Whether the broadcast kernel's loads wait for the arithmetic that stands before them.
    pub in_order: bool,
    /// Whether rows of the broadcast kernel go through loops that move them from register to register:
    /// [`crate::DeviceCaps::rows_in_loops`].
    pub rows_in_loops: bool,
    /// Whether the split kernel leaves parts to join.
    pub parts: bool,
    /// Whether operands are loaded and stored by 64 bits: query, key and value where they lie at multiples of eight elements,
    /// out at those of four.
    pub wide: bool,
    /// Operands' bindings begin at multiples of four elements and every row does too.
    pub query_vec4: bool,
    /// As `query_vec4`, of key.
    pub key_vec4: bool,
    /// As `query_vec4`, of value.
    pub value_vec4: bool,
    /// As `query_vec4`, of out.
    pub out_vec4: bool,
    /// As `query_vec4`, multiples of eight.
    pub query_vec8: bool,
    /// As `query_vec8`, of key.
    pub key_vec8: bool,
    /// As `query_vec8`, of value.
    pub value_vec8: bool,
}

/// What the scores kernel hands out.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Emit {
    /// Scores for the softmax kernel.
    #[default]
    Softmax,
    /// The caller's scores at a stage.
    Stage(ScoreStage),
    /// The caller's weights, from the lse.
    Weights,
}

impl Emit {
    /// Whether a kernel that hands this out binds `operand`, if its binding is that operand's.
    pub(crate) fn binds(self, operand: Operand) -> bool {
        match operand {
            Operand::Scores => matches!(self, Emit::Stage(_)),
            Operand::Weights => !matches!(self, Emit::Stage(_)),
            _ => true,
        }
    }
}

impl KernelConfig {
    /// A kernel for a problem.
    pub fn attention(skeleton: Skeleton, problem: &Problem, tile: &Tile, variant: Variant) -> Self {
        let hooks = Hooks::new(problem, tile, variant);
        Self {
            skeleton,
            parts: hooks.parts(skeleton),
            constants: attention_constants(skeleton, problem, tile, variant),
            mods: hooks.mods(skeleton),
            captures: if hooks.mods(skeleton).is_empty() {
                Arc::default()
            } else {
                Arc::clone(&problem.mods().captures)
            },
        }
    }

    /// A kernel of the caller's `mask_mod` beside attention.
    pub(crate) fn block_mask(constants: Vec<(&'static str, u32)>, mods: &OwnedMods) -> Self {
        let parts = vec!["block_mask.wgsl", "mods/environment.wgsl"];
        Self {
            mods: mods
                .mask_mod
                .iter()
                .map(|text| ("mask_mod", Arc::clone(text)))
                .collect(),
            captures: Arc::clone(&mods.captures),
            ..Self::operation("block_mask", parts, constants)
        }
    }

    /// A kernel of an operation beside attention.
    pub(crate) fn operation(name: &'static str, parts: Vec<&'static str>, constants: Vec<(&'static str, u32)>) -> Self {
        Self {
            skeleton: Skeleton::Operation(name),
            parts,
            constants,
            mods: Vec::new(),
            captures: Arc::default(),
        }
    }

    /// Which skeleton.
    pub fn skeleton(&self) -> Skeleton {
        self.skeleton
    }

    /// The files, in the order of the text.
    pub fn parts(&self) -> impl Iterator<Item = &'static Part> {
        self.parts.iter().filter_map(|name| part(name))
    }

    /// The header's constants.
    pub fn constants(&self) -> &[(&'static str, u32)] {
        &self.constants
    }

    /// A constant of the header.
    pub fn constant(&self, name: &str) -> Option<u32> {
        self.constants
            .iter()
            .find_map(|(constant, value)| (*constant == name).then_some(*value))
    }

    /// The caller's own functions, by name.
    pub fn mods(&self) -> &[(&'static str, Arc<str>)] {
        &self.mods
    }

    /// The same kernel with only one of the caller's functions, to find which one does not fit.
    pub(crate) fn with_only(&self, function: &str) -> Self {
        let mut kernel = self.clone();
        kernel.mods.retain(|(name, _)| *name == function);
        for part in &mut kernel.parts {
            *part = match *part {
                "mods/score_mod.wgsl" if function != "score_mod" => "mods/score_mod_none.wgsl",
                "mods/mask_mod.wgsl" if function != "mask_mod" => "mods/mask_mod_none.wgsl",
                "mods/prob_mod.wgsl" if function != "prob_mod" => "mods/prob_mod_none.wgsl",
                kept => kept,
            };
        }
        kernel
    }

    pub(crate) fn captures(&self) -> &[OwnedCapture] {
        &self.captures
    }

    /// The bindings that the files declare, and those of captures, in ascending order.
    pub fn bindings(&self) -> Vec<(u32, Access)> {
        let mut bindings: Vec<_> = self.parts().flat_map(|part| part.bindings.iter().copied()).collect();
        bindings.extend(
            (0..)
                .zip(self.captures.iter())
                .map(|(index, _)| (binding_of(Operand::Capture(index)), Access::Read)),
        );
        bindings.sort_unstable();
        bindings
    }

    /// Whether a dialect has all of these extensions.
    pub fn is_in(&self, dialect: source::Dialect) -> bool {
        self.extensions().into_iter().all(|extension| extension.is_in(dialect))
    }

    /// How many storage buffers it binds.
    pub(crate) fn storage_buffers(&self) -> u32 {
        let storage = self
            .bindings()
            .iter()
            .filter(|(_, access)| *access != Access::Uniform)
            .count();
        u32::try_from(storage).unwrap_or(u32::MAX)
    }

    /// The extensions of WGSL that the files use, each once, in ascending order.
    pub fn extensions(&self) -> Vec<Extension> {
        let mut extensions: Vec<_> = self.parts().flat_map(|part| part.needs.iter().copied()).collect();
        extensions.sort_unstable();
        extensions.dedup();
        extensions
    }
}

/// The binding number of an attention operand. What no kernel binds together may share one.
pub(crate) fn binding_of(operand: Operand) -> u32 {
    match operand {
        Operand::Query => 1,
        Operand::Key => 2,
        Operand::Value | Operand::Projection => 3,
        Operand::Out => 4,
        Operand::Lse => 5,
        Operand::Scores | Operand::Weights => 6,
        Operand::Mask => 7,
        Operand::Bias => 8,
        Operand::KeyPadding => 9,
        Operand::Sinks => 10,
        Operand::AlibiSlopes => 11,
        Operand::CuSeqlensQ => 12,
        Operand::CuSeqlensK => 13,
        Operand::DropoutMask => 14,
        Operand::BlockMask => 15,
        Operand::QueryPositionIds => 19,
        Operand::KeyPositionIds => 20,
        Operand::Capture(index) => FIRST_CAPTURE + u32::from(index),
        // Of operations beside attention, whose kernels number their bindings themselves.
        _ => 0,
    }
}

/// The binding of `out` in the workspace, where it is read.
pub(crate) const PARTIAL: u32 = 16;

/// The bindings of what runs of keys made of each row, and of their lse.
pub(crate) const PARTS: u32 = 21;
pub(crate) const PART_LSE: u32 = 22;

/// The binding of the lists of tiles that a block mask leaves to visit.
pub(crate) const TILE_LISTS: u32 = 17;

/// The binding of what a rotary embedding turns by.
pub(crate) const ROPE_STEPS: u32 = 18;

/// The binding of the first capture.
pub(crate) const FIRST_CAPTURE: u32 = 32;

fn attention_constants(
    skeleton: Skeleton,
    problem: &Problem,
    tile: &Tile,
    variant: Variant,
) -> Vec<(&'static str, u32)> {
    let shape = problem.shape();
    let lower_right = |alignment| u32::from(alignment == Some(CausalAlignment::LowerRight));
    let mut constants = vec![("THREADS", tile.threads())];
    if skeleton == Skeleton::AverageHeads {
        return constants;
    }
    if problem.has_lengths() {
        constants.extend([
            ("CAUSAL_LOWER_RIGHT", lower_right(problem.causal())),
            (
                "WINDOW_LOWER_RIGHT",
                lower_right(problem.window().map(|window| window.alignment)),
            ),
        ]);
    }
    if let Some(mask) = problem.block_mask() {
        let [list_q, list_kv] = tile.list_units(&mask);
        constants.extend([
            ("BLOCK_Q", mask.block_q),
            ("BLOCK_KV", mask.block_kv),
            ("LIST_Q", list_q),
            ("LIST_KV", list_kv),
        ]);
    }
    if skeleton == Skeleton::TileLists {
        return constants;
    }
    if skeleton == Skeleton::Softmax {
        constants.push(("TILE_Q", 1));
        return constants;
    }
    if matches!(skeleton, Skeleton::Narrow | Skeleton::Join) {
        let dim = shape.head_dim_v;
        constants.extend([("TILE_Q", 1), ("HEAD_DIM_V", dim), ("DV4", dim.div_ceil(4))]);
        return constants;
    }
    constants.extend([
        (
            "TX",
            match skeleton {
                // A hook's four keys are neighbours.
                Skeleton::Broadcast | Skeleton::Uniform | Skeleton::Split | Skeleton::Matrix => 1,
                _ => tile.tx,
            },
        ),
        ("TY", tile.ty),
        ("ROWS", tile.rows()),
        ("TILE_Q", tile.tile_q),
        ("TILE_KV", tile.tile_kv()),
    ]);
    if matches!(skeleton, Skeleton::Broadcast | Skeleton::Uniform | Skeleton::Split) {
        let dv4_chunk = tile.chunk_channels(shape.head_dim_v) / 4;
        constants.extend([
            ("LANES", tile.ty),
            ("LANES4", tile.ty / 4),
            ("D4", shape.head_dim.div_ceil(4)),
            ("HEAD_DIM", shape.head_dim),
            ("HEAD_DIM_V", shape.head_dim_v),
            ("DV4", shape.head_dim_v.div_ceil(4)),
            ("DV4_CHUNK", dv4_chunk),
            ("V_CHUNKS", tile.v_chunks(shape.head_dim_v)),
            ("KEYS", tile.tx),
            ("KEYS4", tile.tx.div_ceil(4)),
            ("D4_LOADS", shape.head_dim.div_ceil(4).div_ceil(tile.ty)),
        ]);
        if skeleton == Skeleton::Broadcast {
            constants.push(("SUMS", if problem.outputs().weights { 1 } else { 2 }));
        }
        if skeleton == Skeleton::Split {
            let products = tile.rows() * tile.tx;
            let products4 = products.div_ceil(4);
            constants.extend([
                ("PRODUCTS", products),
                ("PRODUCTS4", products4),
                ("SHARE", tile.share),
                ("KEY_LANES", tile.ty / tile.share),
                ("D4_OWN", shape.head_dim.div_ceil(4).div_ceil(tile.share)),
                ("DV4_OWN", tile.own_dv4(shape.head_dim_v)),
                ("SHARE_STRIDE", products4 | 1),
            ]);
            if tile.share == 1 {
                constants.extend([
                    ("DV4_STORES", tile.own_dv4(shape.head_dim_v).div_ceil(tile.ty)),
                    // How many sums there are for each lane when halves of them have changed hands once, twice, and so on.
                    ("LANES_2", tile.ty / 2),
                    ("LANES_4", tile.ty / 4),
                    ("LANES_8", tile.ty / 8),
                    ("LANES_16", tile.ty / 16),
                ]);
            }
        }
    } else if skeleton == Skeleton::Matrix {
        let size = tile.matrix_size();
        let lanes_of = |row4: u32| 1 << (row4 | tile.threads()).trailing_zeros();
        let [d_stride, v_stride, s_stride, p_stride] = tile.matrix_strides(shape.head_dim, problem.dtypes().out);
        constants.extend([
            ("ROW_LANES", tile.tx),
            ("KEYS4", tile.d4_chunk),
            ("TILE_KV4", tile.tile_kv() / 4),
            ("MATRIX", size),
            ("MATRIX4", size / 4),
            ("Q_SQUARES", tile.tile_q / size),
            ("KV_SQUARES", tile.tile_kv() / size),
            ("D_SQUARES", shape.head_dim.div_ceil(size)),
            ("V_SQUARES", tile.v_squares(shape.head_dim_v)),
            ("D_STRIDE", d_stride),
            ("V_STRIDE", v_stride),
            ("S_STRIDE", s_stride),
            ("P_STRIDE", p_stride),
            // The largest powers of two that divide the vec4 of a row and the invocations.
            ("D_LANES", lanes_of(shape.head_dim.div_ceil(size) * size / 4)),
            ("V_LANES", lanes_of(tile.v_squares(shape.head_dim_v) * size / 4)),
            ("KV_ELEMENTS", tile.matrix_kv_elements(&shape)),
            ("WEIGHT_PARTS", tile.weight_parts(problem.dtypes().out)),
            ("HEAD_DIM", shape.head_dim),
            ("HEAD_DIM_V", shape.head_dim_v),
            ("D4", shape.head_dim.div_ceil(4)),
            ("DV4", shape.head_dim_v.div_ceil(4)),
            ("DV4_CHUNK", tile.chunk_channels(shape.head_dim_v) / 4),
        ]);
    } else {
        constants.extend([
            ("KV_STRIDE", tile.kv_stride()),
            ("QUERY_STAGES", tile.query_stages()),
            ("KEY_STAGES", tile.key_stages()),
            ("VALUE_STAGES", tile.value_stages()),
            ("ROWS4", tile.rows().div_ceil(4)),
        ]);
    }
    if matches!(
        skeleton,
        Skeleton::Fused
            | Skeleton::Broadcast
            | Skeleton::Uniform
            | Skeleton::Split
            | Skeleton::Matrix
            | Skeleton::Scores
    ) {
        let stage = match variant.emit {
            Emit::Stage(ScoreStage::Scaled) => 1,
            Emit::Stage(ScoreStage::Capped) => 2,
            Emit::Stage(ScoreStage::Biased) => 3,
            Emit::Softmax | Emit::Weights => 0,
        };
        constants.push(("STAGE", stage));
    }
    if matches!(skeleton, Skeleton::Fused | Skeleton::Scores | Skeleton::Linear) {
        constants.extend([
            ("HEAD_DIM", shape.head_dim),
            ("D4", shape.head_dim.div_ceil(4)),
            ("D4_CHUNK", tile.d4_chunk),
            ("D_CHUNKS", tile.d_chunks(shape.head_dim)),
            ("Q_STRIDE", tile.q_stride(shape.head_dim)),
        ]);
    }
    let turns = matches!(
        skeleton,
        Skeleton::Fused
            | Skeleton::Broadcast
            | Skeleton::Uniform
            | Skeleton::Split
            | Skeleton::Matrix
            | Skeleton::Scores
            | Skeleton::Linear
    );
    if let (Some(rope), true) = (problem.rope(), turns) {
        let interleaved = rope.pairing == RopePairing::Interleaved;
        constants.extend([
            ("ROTARY_DIM", rope.frequencies.rotary_dim()),
            ("INTERLEAVED", u32::from(interleaved)),
        ]);
    }
    if matches!(skeleton, Skeleton::Fused | Skeleton::WeightedValues) {
        constants.extend([
            ("HEAD_DIM_V", shape.head_dim_v),
            ("DV4", shape.head_dim_v.div_ceil(4)),
            ("V_GROUPS", tile.v_groups(shape.head_dim_v)),
            ("DV4_CHUNK", tile.v_groups(shape.head_dim_v) * tile.tx),
            ("P_STRIDE", tile.p_stride()),
        ]);
    }
    constants
}
