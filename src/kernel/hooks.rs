//! Which file fills each slot of the skeletons: one line a feature.

use std::sync::Arc;

use crate::Operand;
use crate::caps::MatrixShape;
use crate::kernel::{Emit, Skeleton, Variant};
use crate::plan::tuning::{self, Tile};
use crate::problem::mods::OwnedMods;
use crate::problem::{DType, DropoutKeep, KeyPadding, Problem};
use crate::rope::RopePositions;

type File = &'static str;

/// The file of each slot.
pub(super) struct Hooks<'a> {
    query: File,
    key: File,
    value: File,
    query_tile: File,
    /// What a vec4 of query is in workgroup memory; and whether those of key and of value may be half as large.
    staged_query: File,
    half_key: bool,
    half_value: bool,
    /// What turns query and key by a rotary embedding, if anything does.
    turns: Vec<File>,
    /// `store_out`, and what it needs to round.
    out: Vec<File>,
    lse: File,
    acc: File,
    state: File,
    /// The state of rows that no earlier dispatch has begun.
    first_state: File,
    sequence: File,
    visit: File,
    /// How the fused kernel visits tiles, and what it looks up of a block mask.
    fused_visit: File,
    fused_block: Vec<File>,
    block: Vec<File>,
    causal: File,
    window: File,
    mask: File,
    padding: File,
    bias: File,
    alibi: File,
    softcap: File,
    /// Whether the causal rule and the window are all that may stand between a product and its score.
    bounds_alone: bool,
    dropout: File,
    guard: File,
    /// How the lanes of a row share what they know of it.
    rows: File,
    /// Whether tiles that are open to every row have a loop of their own.
    loops: File,
    add: File,
    /// How the broadcast kernel keeps out closed values that are not finite: product by product, or by rounds.
    broadcast_rounds: [File; 2],
    /// Whether the broadcast kernel's loads wait for the arithmetic before them.
    order: File,
    /// How an invocation's rows of the broadcast kernel come and go.
    own_rows: File,
    /// How the scores of an invocation's rows are finished in the broadcast kernel.
    weigh: File,
    /// What matrices are multiplied, how values that are not finite are kept out of the products, and where query stays.
    matrices: File,
    matrix_guard: File,
    matrix_query: File,
    parts: bool,
    /// How the lanes of a key add up its products, and the lanes of a workgroup join their keys, in the split kernel.
    shares: File,
    lanes: File,
    emit: File,
    mods: &'a OwnedMods,
}

impl<'a> Hooks<'a> {
    pub(super) fn new(problem: &'a Problem, tile: &Tile, variant: Variant) -> Self {
        let pick = |there: bool, file: File, absent: File| if there { file } else { absent };
        // What an earlier dispatch left lies in the workspace, unless it is f32 anyway.
        let out_dtype = if variant.partial || variant.resume {
            DType::F32
        } else {
            problem.dtypes().out
        };
        let block = Blocks::of(problem, tile);
        let first_state = pick(
            problem.has(Operand::Sinks),
            "row/state_sink.wgsl",
            "row/state_fresh.wgsl",
        );
        Self {
            query: match variant.wide && variant.query_vec8 {
                true => wide(Operand::Query, problem),
                false => load(Operand::Query, problem, variant.query_vec4, variant.shader_f16),
            },
            key: match variant.wide && variant.key_vec8 {
                true => wide(Operand::Key, problem),
                false => load(Operand::Key, problem, variant.key_vec4, variant.shader_f16),
            },
            value: match variant.wide && variant.value_vec8 {
                true => wide(Operand::Value, problem),
                false => load(Operand::Value, problem, variant.value_vec4, variant.shader_f16),
            },
            query_tile: pick(
                tile.query_resident,
                "tile/query_resident.wgsl",
                "tile/query_streamed.wgsl",
            ),
            staged_query: pick(
                variant.shader_f16 && stays_half(Operand::Query, problem),
                "tile/query_f16.wgsl",
                "tile/query_f32.wgsl",
            ),
            half_key: variant.shader_f16 && stays_half(Operand::Key, problem),
            half_value: variant.shader_f16 && stays_half(Operand::Value, problem),
            turns: turns(problem),
            out: out(out_dtype, variant.out_vec4, variant.wide),
            lse: pick(variant.lse, "row/lse.wgsl", "row/lse_none.wgsl"),
            acc: pick(variant.resume, "row/acc_resume.wgsl", "row/acc_fresh.wgsl"),
            state: pick(variant.resume, "row/state_resume.wgsl", first_state),
            first_state,
            sequence: match problem.key_padding() {
                _ if problem.packed().is_some() => "sequence/packed.wgsl",
                Some(KeyPadding::Lengths) => "sequence/lengths.wgsl",
                _ => "sequence/whole.wgsl",
            },
            visit: match block {
                Some(Blocks::WholeTiles) => "visit/states.wgsl",
                _ => "visit/range.wgsl",
            },
            fused_visit: pick(block.is_some(), "visit/list.wgsl", "visit/range.wgsl"),
            fused_block: match block {
                None => vec!["block/none.wgsl"],
                Some(Blocks::WholeTiles) => vec!["block/aligned.wgsl"],
                Some(Blocks::OfAnySize) => vec!["block/lookup.wgsl", "block/states.wgsl"],
            },
            block: match block {
                None => vec!["block/none.wgsl"],
                Some(_) => vec!["block/lookup.wgsl", "block/states.wgsl"],
            },
            causal: pick(problem.causal().is_some(), "mask/causal.wgsl", "mask/causal_none.wgsl"),
            window: pick(problem.window().is_some(), "mask/window.wgsl", "mask/window_none.wgsl"),
            mask: pick(
                problem.has(Operand::Mask),
                "mask/boolean.wgsl",
                "mask/boolean_none.wgsl",
            ),
            padding: match problem.key_padding() {
                None | Some(KeyPadding::Lengths) => "mask/padding_none.wgsl",
                Some(KeyPadding::Additive) => "mask/padding_additive.wgsl",
                Some(KeyPadding::Boolean) => "mask/padding_boolean.wgsl",
            },
            bias: match problem.dtypes().bias {
                _ if !problem.has(Operand::Bias) => "score/bias_none.wgsl",
                DType::F32 => "score/bias_f32.wgsl",
                DType::F16 => "score/bias_f16.wgsl",
                DType::Bf16 => "score/bias_bf16.wgsl",
            },
            alibi: pick(
                problem.has(Operand::AlibiSlopes),
                "score/alibi.wgsl",
                "score/alibi_none.wgsl",
            ),
            softcap: pick(
                problem.softcap().is_some(),
                "score/softcap.wgsl",
                "score/softcap_none.wgsl",
            ),
            bounds_alone: problem.has_bounds_alone(),
            dropout: match problem.dropout().map(|dropout| dropout.keep) {
                None => "dropout/none.wgsl",
                Some(DropoutKeep::Given) => "dropout/given.wgsl",
                Some(DropoutKeep::Philox { .. }) => "dropout/philox.wgsl",
            },
            add: pick(problem.may_close(), "row/add_guarded.wgsl", "row/add_plain.wgsl"),
            broadcast_rounds: match (problem.may_close(), variant.rows_in_loops) {
                (false, _) => ["row/add_plain.wgsl", "broadcast/rounds_one.wgsl"],
                (true, false) => ["row/add_guarded.wgsl", "broadcast/rounds_one.wgsl"],
                (true, true) => ["row/add_plain.wgsl", "broadcast/rounds_finite.wgsl"],
            },
            order: pick(
                variant.in_order,
                "broadcast/order_kept.wgsl",
                "broadcast/order_free.wgsl",
            ),
            own_rows: pick(
                variant.rows_in_loops,
                "broadcast/own_rows_rolled.wgsl",
                "broadcast/own_rows_unrolled.wgsl",
            ),
            weigh: pick(
                variant.rows_in_loops && tuning::loads_per_score(problem),
                "broadcast/weigh_rolled.wgsl",
                "broadcast/weigh_unrolled.wgsl",
            ),
            matrix_query: pick(
                tile.query_in_registers(problem.shape().head_dim),
                "matrix/query_registers.wgsl",
                "matrix/query_memory.wgsl",
            ),
            matrices: matrix_file(tile.matrix.unwrap_or(MatrixShape::F32Size8)),
            // Of the two parts of a weight one may be 0, which makes NaN of an infinite value.
            matrix_guard: pick(
                problem.may_close() || tile.weight_parts(problem.dtypes().out) > 1,
                "matrix/guard_closed.wgsl",
                "matrix/guard_none.wgsl",
            ),
            parts: variant.parts,
            shares: match (tile.share, variant.shuffles) {
                (1, _) => "split/shares_none.wgsl",
                (_, true) => "split/shares_shuffled.wgsl",
                (_, false) => "split/shares_memory.wgsl",
            },
            lanes: pick(
                tile.share > 1,
                "split/lanes_workgroup.wgsl",
                "split/lanes_subgroup.wgsl",
            ),
            guard: pick(problem.may_close(), "tile/guard_closed.wgsl", "tile/guard_none.wgsl"),
            rows: pick(variant.shuffles, "tile/rows_shuffled.wgsl", "tile/rows_shared.wgsl"),
            loops: pick(
                variant.open_apart && knows_open_tiles(problem),
                "tile/loops_apart.wgsl",
                "tile/loops_one.wgsl",
            ),
            emit: match variant.emit {
                Emit::Softmax => "emit/score.wgsl",
                Emit::Stage(_) => "emit/stage.wgsl",
                Emit::Weights => "emit/weight.wgsl",
            },
            mods: problem.mods(),
        }
    }

    /// The files of a skeleton, in the order of the text.
    pub(super) fn parts(&self, skeleton: Skeleton) -> Vec<File> {
        let rows = ["params.wgsl", "state.wgsl", "position.wgsl", self.sequence];
        let bounds = [self.causal, self.window];
        let half_kv = match skeleton {
            Skeleton::Fused => self.half_key && self.half_value,
            Skeleton::WeightedValues => self.half_value,
            _ => self.half_key,
        };
        let staged_kv = if half_kv {
            "tile/kv_f16.wgsl"
        } else {
            "tile/kv_f32.wgsl"
        };
        let products = || {
            let loads = [self.query, self.key].into_iter().chain(self.turns.iter().copied());
            let staged = [self.staged_query, staged_kv, self.query_tile];
            loads.chain(staged).chain(["tile/kinds.wgsl", "tile/scores.wgsl"])
        };
        let finish = [
            self.mask,
            self.padding,
            self.bias,
            self.alibi,
            self.softcap,
            self.score_mod(),
            "score/finish.wgsl",
        ];
        let lean_finish: &[File] = match self.bounds_alone {
            true => &["score/finish_bounds.wgsl"],
            false => &finish,
        };
        let mut parts = Vec::new();
        match skeleton {
            Skeleton::Fused => {
                parts.extend(rows);
                parts.extend(bounds);
                parts.push(self.fused_visit);
                parts.extend(products());
                parts.push(self.mask_mod());
                parts.extend(&self.fused_block);
                parts.extend(finish);
                parts.extend(["score/open.wgsl", "tile/finish.wgsl"]);
                parts.extend([self.value, self.guard, self.dropout, "tile/values.wgsl"]);
                parts.extend(&self.out);
                parts.extend([self.lse, self.acc, self.state, self.rows]);
                parts.extend(["tile/step.wgsl", self.loops, "fused.wgsl"]);
            }
            Skeleton::Broadcast | Skeleton::Uniform => {
                parts.extend(rows);
                parts.extend(bounds);
                parts.push(self.fused_visit);
                parts.extend([self.query, self.key]);
                parts.extend(&self.turns);
                parts.push(self.mask_mod());
                parts.extend(&self.fused_block);
                parts.extend(lean_finish);
                parts.extend([self.value, self.dropout]);
                parts.extend(&self.out);
                parts.extend([self.lse, self.acc, self.state]);
                match skeleton {
                    Skeleton::Uniform => parts.extend([self.add, "uniform.wgsl"]),
                    _ => {
                        parts.extend([self.order, self.weigh, "broadcast/own_row.wgsl", self.own_rows]);
                        parts.push("broadcast.wgsl");
                        parts.extend(self.broadcast_rounds);
                    }
                }
            }
            Skeleton::Split => {
                parts.extend(rows);
                parts.extend(bounds);
                parts.extend([self.query, self.key]);
                parts.extend(&self.turns);
                parts.push(self.mask_mod());
                parts.extend(&self.block);
                parts.extend(lean_finish);
                parts.extend([self.value, self.add, self.dropout]);
                match self.parts {
                    true => parts.push("split/parts.wgsl"),
                    false => {
                        parts.extend(&self.out);
                        parts.extend([self.lse, "split/out.wgsl"]);
                    }
                }
                parts.extend([self.state, self.shares, self.lanes, "split.wgsl"]);
            }
            Skeleton::Matrix => {
                parts.extend(rows);
                parts.extend(bounds);
                parts.push(self.fused_visit);
                parts.extend([self.query, self.key]);
                parts.extend(&self.turns);
                parts.push(self.mask_mod());
                parts.extend(&self.fused_block);
                parts.extend(finish);
                parts.extend(["score/open.wgsl", self.value, self.dropout]);
                parts.extend(&self.out);
                parts.extend([self.lse, self.acc, self.state, self.matrices, self.matrix_guard]);
                parts.extend([
                    "tile/kinds.wgsl",
                    "matrix/own.wgsl",
                    "matrix/stage.wgsl",
                    self.matrix_query,
                    "matrix/scores.wgsl",
                    "matrix/values.wgsl",
                ]);
                parts.extend(["matrix/step.wgsl", self.loops, "matrix.wgsl"]);
            }
            Skeleton::Join => {
                parts.extend(rows);
                parts.extend(&self.out);
                parts.extend([self.lse, "join.wgsl"]);
            }
            Skeleton::Scores => {
                parts.extend(rows);
                parts.extend(bounds);
                parts.push(self.visit);
                parts.extend(products());
                parts.push(self.mask_mod());
                parts.extend(&self.block);
                parts.extend(finish);
                parts.extend(["score/open.wgsl", "tile/finish.wgsl", self.emit, "scores.wgsl"]);
            }
            Skeleton::Softmax => {
                parts.extend(rows);
                parts.extend([self.lse, self.first_state, self.prob_mod(), "softmax.wgsl"]);
            }
            Skeleton::WeightedValues => {
                parts.extend(rows);
                // With a prob_mod a closed position's weight need not be 0, so every tile counts.
                match self.mods.prob_mod {
                    None => {
                        parts.extend(bounds);
                        parts.push(self.visit);
                        if self.visit == "visit/states.wgsl" {
                            parts.push("block/lookup.wgsl");
                        }
                    }
                    Some(_) => parts.extend(["mask/causal_none.wgsl", "mask/window_none.wgsl", "visit/range.wgsl"]),
                }
                parts.extend([
                    self.value,
                    self.guard,
                    self.dropout,
                    "tile/kinds.wgsl",
                    staged_kv,
                    "tile/values_memory.wgsl",
                    "tile/values.wgsl",
                ]);
                parts.extend(&self.out);
                parts.extend([self.acc, "weighted_values.wgsl"]);
            }
            Skeleton::TileLists => parts.extend(["params.wgsl", "block/lookup.wgsl", "tile_lists.wgsl"]),
            Skeleton::Narrow => {
                parts.extend(rows);
                parts.extend(&self.out);
                parts.push("narrow.wgsl");
            }
            Skeleton::Linear => {
                parts.extend(rows);
                parts.extend(products());
                parts.extend([self.bias, "linear.wgsl"]);
            }
            Skeleton::AverageHeads => parts.extend(["params.wgsl", "average_heads.wgsl"]),
            // Made of other files: kernel/operations.rs.
            Skeleton::Operation(_) => {}
        }
        if !self.mods(skeleton).is_empty() {
            parts.push("mods/environment.wgsl");
        }
        parts
    }

    /// The caller's functions that a skeleton calls, by name.
    pub(super) fn mods(&self, skeleton: Skeleton) -> Vec<(&'static str, Arc<str>)> {
        let OwnedMods {
            score_mod,
            mask_mod,
            prob_mod,
            ..
        } = self.mods;
        let called = match skeleton {
            Skeleton::Fused
            | Skeleton::Broadcast
            | Skeleton::Uniform
            | Skeleton::Split
            | Skeleton::Matrix
            | Skeleton::Scores => {
                vec![("score_mod", score_mod), ("mask_mod", mask_mod)]
            }
            Skeleton::Softmax => vec![("prob_mod", prob_mod)],
            _ => Vec::new(),
        };
        called
            .into_iter()
            .filter_map(|(name, text)| text.as_ref().map(|text| (name, Arc::clone(text))))
            .collect()
    }

    fn score_mod(&self) -> File {
        match self.mods.score_mod {
            None => "mods/score_mod_none.wgsl",
            Some(_) => "mods/score_mod.wgsl",
        }
    }

    fn mask_mod(&self) -> File {
        match self.mods.mask_mod {
            None => "mods/mask_mod_none.wgsl",
            Some(_) => "mods/mask_mod.wgsl",
        }
    }

    fn prob_mod(&self) -> File {
        match self.mods.prob_mod {
            None => "mods/prob_mod_none.wgsl",
            Some(_) => "mods/prob_mod.wgsl",
        }
    }
}

/// The hooks by which query and key are turned as they are loaded.
fn turns(problem: &Problem) -> Vec<File> {
    let Some(rope) = problem.rope() else {
        return vec!["rope/query_none.wgsl", "rope/key_none.wgsl"];
    };
    let mut files = vec!["rope/turn.wgsl", "rope/steps.wgsl"];
    files.extend::<&[File]>(match rope.query {
        None => &["rope/query_none.wgsl"],
        Some(RopePositions::Offset(_)) => &["rope/query_offset.wgsl", "rope/query_turned.wgsl"],
        Some(_) => &["rope/query_ids.wgsl", "rope/query_turned.wgsl"],
    });
    files.extend::<&[File]>(match rope.key {
        None => &["rope/key_none.wgsl"],
        Some(RopePositions::Offset(_)) => &["rope/key_offset.wgsl", "rope/key_turned.wgsl"],
        Some(_) => &["rope/key_ids.wgsl", "rope/key_turned.wgsl"],
    });
    files
}

/// The file of what matrices are multiplied.
pub(super) fn matrix_file(matrix: MatrixShape) -> File {
    match matrix {
        MatrixShape::F16Size16 => "matrix/halves_16.wgsl",
        MatrixShape::F16Size8 => "matrix/halves_8.wgsl",
        MatrixShape::F32Size8 => "matrix/singles_8.wgsl",
    }
}

/// Whether an operand goes to workgroup memory as the `f16` numbers that it is stored as: not when it is turned on the way.
fn stays_half(operand: Operand, problem: &Problem) -> bool {
    let turned = problem.rope().is_some_and(|rope| match operand {
        Operand::Query => rope.query.is_some(),
        Operand::Key => rope.key.is_some(),
        _ => false,
    });
    problem.dtype(operand) == DType::F16 && !turned
}

/// How a block mask's blocks lie to the tiles.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Blocks {
    /// Each block is a number of whole tiles, so a tile lies in one block.
    WholeTiles,
    /// A tile may touch several blocks.
    OfAnySize,
}

impl Blocks {
    pub(crate) fn of(problem: &Problem, tile: &Tile) -> Option<Self> {
        let mask = problem.block_mask()?;
        let whole = mask.block_q.is_multiple_of(tile.tile_q) && mask.block_kv.is_multiple_of(tile.tile_kv());
        Some(if whole { Blocks::WholeTiles } else { Blocks::OfAnySize })
    }
}

/// Whether it can be told of a tile, without a look at its positions, that nothing closes any of them: not where an operand or a
/// function of the caller's says so for each. (A block mask says it of whole tiles.) What dropout drops counts as closed.
fn knows_open_tiles(problem: &Problem) -> bool {
    let padded = matches!(problem.key_padding(), Some(KeyPadding::Additive | KeyPadding::Boolean));
    let by_position = padded || problem.has(Operand::Mask) || problem.has(Operand::Bias);
    let mods = problem.mods();
    let modified = mods.score_mod.is_some() || (mods.mask_mod.is_some() && problem.block_mask().is_none());
    !(by_position || modified || problem.dropout().is_some())
}

/// The load hook of query, key or value.
fn load(operand: Operand, problem: &Problem, vec4: bool, native: bool) -> File {
    /// For each operand the file of each storage type, as vectors and one by one.
    macro_rules! files {
        ($operand:literal) => {
            match (problem.dtype(operand), native, vec4) {
                (DType::F32, _, true) => concat!("load/", $operand, "_f32_vec4.wgsl"),
                (DType::F32, _, false) => concat!("load/", $operand, "_f32_scalar.wgsl"),
                (DType::F16, false, true) => concat!("load/", $operand, "_f16_vec4.wgsl"),
                (DType::F16, false, false) => concat!("load/", $operand, "_f16_scalar.wgsl"),
                (DType::F16, true, true) => concat!("load/", $operand, "_f16_native_vec4.wgsl"),
                (DType::F16, true, false) => concat!("load/", $operand, "_f16_native_scalar.wgsl"),
                (DType::Bf16, _, true) => concat!("load/", $operand, "_bf16_vec4.wgsl"),
                (DType::Bf16, _, false) => concat!("load/", $operand, "_bf16_scalar.wgsl"),
            }
        };
    }
    match operand {
        Operand::Query => files!("query"),
        Operand::Key => files!("key"),
        _ => files!("value"),
    }
}

/// The load hook of query, key or value for drivers whose loads cost by the number.
fn wide(operand: Operand, problem: &Problem) -> File {
    match (operand, problem.dtype(operand)) {
        (Operand::Query, DType::F32) => "load/query_f32_wide.wgsl",
        (Operand::Query, DType::F16) => "load/query_f16_wide.wgsl",
        (Operand::Query, DType::Bf16) => "load/query_bf16_wide.wgsl",
        (Operand::Key, DType::F32) => "load/key_f32_wide.wgsl",
        (Operand::Key, DType::F16) => "load/key_f16_wide.wgsl",
        (Operand::Key, DType::Bf16) => "load/key_bf16_wide.wgsl",
        (_, DType::F32) => "load/value_f32_wide.wgsl",
        (_, DType::F16) => "load/value_f16_wide.wgsl",
        (_, DType::Bf16) => "load/value_bf16_wide.wgsl",
    }
}

fn out(dtype: DType, vec4: bool, wide: bool) -> Vec<File> {
    match (dtype, vec4) {
        (DType::F32, true) if wide => vec!["row/out_f32_wide.wgsl"],
        (DType::F16, true) if wide => vec!["type/narrow_f16.wgsl", "row/out_f16_wide.wgsl"],
        (DType::Bf16, true) if wide => vec!["type/narrow_bf16.wgsl", "row/out_bf16_wide.wgsl"],
        (DType::F32, true) => vec!["row/out_f32_vec4.wgsl"],
        (DType::F32, false) => vec!["row/out_f32_scalar.wgsl"],
        (DType::F16, true) => vec!["type/narrow_f16.wgsl", "row/out_f16_vec4.wgsl"],
        (DType::F16, false) => vec!["type/narrow_f16.wgsl", "row/out_f16_scalar.wgsl"],
        (DType::Bf16, true) => vec!["type/narrow_bf16.wgsl", "row/out_bf16_vec4.wgsl"],
        (DType::Bf16, false) => vec!["type/narrow_bf16.wgsl", "row/out_bf16_scalar.wgsl"],
    }
}
