//! What a kernel is made of: a list of shader files and a header of constants.

pub mod operations;
pub mod params;
pub mod source;

use crate::Operand;
use crate::plan::tuning::Tile;
use crate::problem::{KeyPadding, Problem};
use source::{Access, Part, part};

/// The skeletons: each becomes one entry point.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Skeleton {
    /// Attention in one kernel with online softmax: `shaders/fused.wgsl`.
    Fused,
    /// First of three: `shaders/scores.wgsl`.
    Scores,
    /// Second of three: `shaders/softmax.wgsl`.
    Softmax,
    /// Third of three: `shaders/weighted_values.wgsl`.
    WeightedValues,
    /// A projection, `y = x Wᵀ + b`: `shaders/linear.wgsl`.
    Linear,
    /// Mean over heads: `shaders/average_heads.wgsl`.
    AverageHeads,
    /// An operation beside attention, by its file's name without the extension: see [`operations`].
    Operation(&'static str),
}

impl Skeleton {
    /// The name of the skeleton's file without its extension.
    pub fn name(self) -> &'static str {
        match self {
            Skeleton::Fused => "fused",
            Skeleton::Scores => "scores",
            Skeleton::Softmax => "softmax",
            Skeleton::WeightedValues => "weighted_values",
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
}

/// What differs between the dispatches of one attention call besides their region.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Variant {
    /// Goes on from what an earlier dispatch left in `out` (and `lse`).
    pub resume: bool,
    /// Has an lse to write, be it the caller's or the workspace's.
    pub lse: bool,
    /// Operands' bindings begin at multiples of four elements and every row does too.
    pub query_vec4: bool,
    /// As `query_vec4`, of key.
    pub key_vec4: bool,
    /// As `query_vec4`, of value.
    pub value_vec4: bool,
    /// As `query_vec4`, of out.
    pub out_vec4: bool,
}

impl KernelConfig {
    /// A kernel for a problem.
    pub fn attention(skeleton: Skeleton, problem: &Problem, tile: &Tile, variant: Variant) -> Self {
        let pick = |vec4: bool, vec4_part, scalar_part| if vec4 { vec4_part } else { scalar_part };
        let present = |operand, there, absent| {
            if problem.extent(operand).is_some() {
                there
            } else {
                absent
            }
        };
        let query = pick(variant.query_vec4, "load/query_vec4.wgsl", "load/query_scalar.wgsl");
        let key = pick(variant.key_vec4, "load/key_vec4.wgsl", "load/key_scalar.wgsl");
        let value = pick(variant.value_vec4, "load/value_vec4.wgsl", "load/value_scalar.wgsl");
        let out = pick(variant.out_vec4, "row/out_vec4.wgsl", "row/out_scalar.wgsl");
        let lse = pick(variant.lse, "row/lse.wgsl", "row/lse_none.wgsl");
        let acc = pick(variant.resume, "row/acc_resume.wgsl", "row/acc_fresh.wgsl");
        let state = pick(variant.resume, "row/state_resume.wgsl", "row/state_fresh.wgsl");
        let query_tile = pick(
            tile.query_resident,
            "tile/query_resident.wgsl",
            "tile/query_streamed.wgsl",
        );
        let causal = pick(problem.causal().is_some(), "mask/causal.wgsl", "mask/causal_none.wgsl");
        let guard = pick(problem.may_close(), "tile/guard_closed.wgsl", "tile/guard_none.wgsl");
        let mask = present(Operand::Mask, "mask/boolean.wgsl", "mask/boolean_none.wgsl");
        let bias = present(Operand::Bias, "score/bias.wgsl", "score/bias_none.wgsl");
        let padding = match problem.key_padding() {
            None => "mask/padding_none.wgsl",
            Some(KeyPadding::Additive) => "mask/padding_additive.wgsl",
            Some(KeyPadding::Boolean) => "mask/padding_boolean.wgsl",
        };
        let common = ["params.wgsl", "state.wgsl", "position.wgsl"];
        let products = [query, key, query_tile, bias, "tile/scores.wgsl"];
        let masks = [causal, mask, padding, "score/finish.wgsl"];
        let parts: Vec<_> = match skeleton {
            Skeleton::Fused => common
                .into_iter()
                .chain(products)
                .chain(masks)
                .chain([value, guard, "tile/values.wgsl", out, lse, acc, state, "fused.wgsl"])
                .collect(),
            Skeleton::Scores => common
                .into_iter()
                .chain(products)
                .chain(masks)
                .chain(["scores.wgsl"])
                .collect(),
            Skeleton::Softmax => common.into_iter().chain([lse, "softmax.wgsl"]).collect(),
            Skeleton::WeightedValues => common
                .into_iter()
                .chain([
                    causal,
                    value,
                    guard,
                    "tile/values_memory.wgsl",
                    "tile/values.wgsl",
                    out,
                    acc,
                ])
                .chain(["weighted_values.wgsl"])
                .collect(),
            Skeleton::Linear => common.into_iter().chain(products).chain(["linear.wgsl"]).collect(),
            Skeleton::AverageHeads => vec!["params.wgsl", "average_heads.wgsl"],
            Skeleton::Operation(_) => Vec::new(),
        };
        Self {
            skeleton,
            parts,
            constants: attention_constants(skeleton, problem, tile),
        }
    }

    /// A kernel of an operation beside attention.
    pub(crate) fn operation(name: &'static str, parts: Vec<&'static str>, constants: Vec<(&'static str, u32)>) -> Self {
        Self {
            skeleton: Skeleton::Operation(name),
            parts,
            constants,
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

    /// The bindings that the files declare, in ascending order.
    pub fn bindings(&self) -> Vec<(u32, Access)> {
        let mut bindings: Vec<_> = self.parts().flat_map(|part| part.bindings.iter().copied()).collect();
        bindings.sort_unstable();
        bindings
    }
}

/// The binding number of an attention operand.
pub(crate) fn binding_of(operand: Operand) -> u32 {
    match operand {
        Operand::Query => 1,
        Operand::Key => 2,
        Operand::Value | Operand::Projection => 3,
        Operand::Out => 4,
        Operand::Lse => 5,
        Operand::Weights => 6,
        Operand::Mask => 7,
        Operand::Bias => 8,
        Operand::KeyPadding => 9,
        // Of operations beside attention, whose kernels number their bindings themselves.
        _ => 0,
    }
}

fn attention_constants(skeleton: Skeleton, problem: &Problem, tile: &Tile) -> Vec<(&'static str, u32)> {
    let shape = problem.shape();
    if skeleton == Skeleton::AverageHeads {
        return vec![("THREADS", tile.threads())];
    }
    if skeleton == Skeleton::Softmax {
        return vec![("THREADS", tile.threads()), ("TILE_Q", 1)];
    }
    let mut constants = vec![
        ("THREADS", tile.threads()),
        ("TX", tile.tx),
        ("TY", tile.ty),
        ("ROWS", tile.rows()),
        ("TILE_Q", tile.tile_q),
        ("TILE_KV", tile.tile_kv()),
        ("KV_STRIDE", tile.kv_stride()),
    ];
    if matches!(skeleton, Skeleton::Fused | Skeleton::Scores | Skeleton::Linear) {
        constants.extend([
            ("HEAD_DIM", shape.head_dim),
            ("D4", shape.head_dim.div_ceil(4)),
            ("D4_CHUNK", tile.d4_chunk),
            ("D_CHUNKS", tile.d_chunks(shape.head_dim)),
            ("Q_STRIDE", tile.q_stride(shape.head_dim)),
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
