//! From a problem and a device to a list of dispatches. Pure: the same problem and caps give the same plan, and its
//! [`Display`](fmt::Display) says in a line each why it is as it is.

mod planner;
pub mod schedule;
pub mod tuning;
pub mod workspace;

use std::fmt;

use crate::caps::{DeviceCaps, Family};
use crate::error::{Error, Operand, Result};
use crate::kernel::{Emit, KernelConfig, Skeleton, Variant, binding_of};
use crate::problem::{Algorithm, Extent, Problem};
use crate::tune::TunedTile;
use planner::Planner;
use schedule::Region;
use tuning::{FusedTiles, Tile};
use workspace::Workspace;

/// Everything decided before a buffer is touched.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    algorithm: Algorithm,
    /// The tile of the fused kernels, and that of all others.
    fused_tile: Tile,
    tile: Tile,
    tuned: Option<TunedTile>,
    passes: Vec<Pass>,
    workspace: Workspace,
    operands: Vec<Operand>,
    shader_f16: bool,
    /// Whether the lanes of a tile's row may reach each other by shuffles.
    shuffles: bool,
    /// Whether tiles that are wholly open have a loop of their own.
    open_apart: bool,
    /// Whether loads of the broadcast family wait for the arithmetic before them.
    in_order: bool,
    /// Whether rows of the broadcast family go through loops.
    rows_in_loops: bool,
    shader_int64: bool,
    max_submit_flops: f64,
    reasons: Vec<String>,
}

/// One dispatch.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Which kernel.
    pub skeleton: Skeleton,
    /// What of the problem it computes.
    pub region: Region,
    /// Whether it goes on from what an earlier pass left of the same rows.
    pub resume: bool,
    /// Whether `out` lies in the workspace, in `f32`: a later pass goes on from it.
    pub partial: bool,
    /// What the scores kernel hands out.
    pub emit: Emit,
    /// Where it writes the lse, or reads it from to hand out weights.
    pub lse: Lse,
    /// The region whose scores lie in the workspace meanwhile; `None` when they lie in the caller's weights, or nowhere.
    pub block: Option<Region>,
    /// How the split kernel cuts the keys, and what is to be joined.
    pub runs: Runs,
    /// Workgroups that have work.
    pub workgroups: u32,
    /// Floating-point operations, closed positions counted as open.
    pub flops: f64,
}

/// Runs of keys that workgroups of the split kernel visit side by side; none in other passes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Runs {
    /// How many.
    pub count: u32,
    /// Keys of each but the last.
    pub keys: u32,
}

/// Where a pass has the lse of its rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lse {
    /// Nowhere.
    None,
    /// Into the caller's lse.
    Caller,
    /// Into this plane of the workspace: a pass over later keys reads it back.
    Workspace(u32),
}

impl Plan {
    /// Plans a problem for a device.
    ///
    /// # Errors
    /// [`Error::Limit`] when a single tile of an operand is larger than the device can bind, or the work is so much that it
    /// would take more than 65,536 dispatches.
    ///
    /// ```
    /// use wgpu_attention::{AttentionDescriptor, AttentionShape, DeviceCaps, Plan, Problem};
    ///
    /// let shape = AttentionShape::new(1, 8, 512, 512, 64);
    /// let problem = Problem::new(&AttentionDescriptor { shape, ..Default::default() })?;
    /// let plan = Plan::new(&problem, &DeviceCaps::default())?;
    /// println!("{plan}");
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    pub fn new(problem: &Problem, caps: &DeviceCaps) -> Result<Self> {
        let tile = choose_tile(problem, caps)?;
        // What was measured speaks for a class of problems; where it does not do for this one, the built-in rows do.
        if let Some(tiles) = FusedTiles::tuned(problem, caps)
            && let Ok(plan) = Self::with_tiles(problem, caps, tile, &tiles)
        {
            return Ok(plan);
        }
        Self::with_tiles(problem, caps, tile, &FusedTiles::built_in(problem, caps, tile))
    }

    /// A plan with these tiles of fused kernels, or with the built-in ones if these were measured but do not do.
    fn with_tiles(problem: &Problem, caps: &DeviceCaps, tile: &Tile, tiles: &FusedTiles<'_>) -> Result<Self> {
        let built_in = || Self::with_tiles(problem, caps, tile, &FusedTiles::built_in(problem, caps, tile));
        let mut reasons = Vec::new();
        let FusedTiles { split, unsplit, tuned } = tiles;
        let mut fused_tile = split.as_ref().map_or(unsplit, |(split, _)| split);
        let algorithm = choose_algorithm(problem, [fused_tile, tile], caps, &mut reasons)?;
        if tuned.is_some() && algorithm == Algorithm::ThreeKernels {
            return built_in();
        }
        let mut planned = None;
        if let (Some((split, workgroups)), Algorithm::Fused | Algorithm::Auto) = (split, algorithm) {
            planned = Planner {
                problem,
                caps,
                fused_tile: split,
                tile,
            }
            .split(*workgroups)?;
            if planned.is_none() && tuned.is_some() {
                return built_in();
            }
            if planned.is_none() {
                fused_tile = unsplit;
            }
        }
        let shown = match algorithm {
            Algorithm::ThreeKernels => tile,
            Algorithm::Auto | Algorithm::Fused => fused_tile,
        };
        reasons.push(format!(
            "tile {}: {} query rows x {} keys, {} invocations, {} bytes of workgroup memory (tier {})",
            shown.name,
            shown.tile_q,
            shown.tile_kv(),
            shown.threads(),
            shown.workgroup_bytes_for(problem),
            caps.tier,
        ));
        if let Some(choice) = tuned {
            reasons.push(format!(
                "tuned on {} for {}: {} took {:.2} of the time of the built-in choice",
                choice.date,
                choice.class,
                choice.tile,
                choice.median_ms / choice.default_ms,
            ));
        }
        let planner = Planner {
            problem,
            caps,
            fused_tile,
            tile,
        };
        let (passes, workspace) = match (planned, algorithm) {
            (Some(planned), _) => planned,
            (None, Algorithm::ThreeKernels) => planner.three_kernels()?,
            (None, Algorithm::Auto | Algorithm::Fused) => planner.fused()?,
        };
        let plan = Self {
            problem: problem.clone(),
            algorithm,
            fused_tile: fused_tile.clone(),
            tile: tile.clone(),
            tuned: tuned.map(|choice| choice.tile.clone()),
            passes,
            workspace,
            operands: problem.operands().collect(),
            shader_f16: caps.shader_f16,
            shuffles: tile.shuffles(caps),
            open_apart: tuning::open_apart(caps),
            in_order: tuning::in_order(caps),
            rows_in_loops: caps.rows_in_loops,
            shader_int64: caps.shader_int64,
            max_submit_flops: caps.max_dispatch_flops,
            reasons,
        };
        Ok(plan.explained(caps))
    }

    /// Plans a projection: [`Problem::linear`].
    pub(crate) fn linear(problem: &Problem, caps: &DeviceCaps) -> Result<Self> {
        let tile = choose_tile(problem, caps)?;
        let planner = Planner::of_tile(problem, caps, tile);
        let passes = planner.product_passes(Skeleton::Linear, Emit::Softmax, &Region::whole(problem, tile))?;
        Ok(Self::simple(problem, caps, tile, passes))
    }

    /// Plans an average over heads: [`Problem::average_heads`].
    pub(crate) fn average_heads(problem: &Problem, caps: &DeviceCaps) -> Result<Self> {
        let tile = &tuning::ELEMENTWISE;
        let planner = Planner::of_tile(problem, caps, tile);
        let mut bounds = planner.bounds(Skeleton::AverageHeads, Emit::Softmax);
        bounds.kv_in_grid = true;
        bounds.heads_in_loop = true;
        bounds.flops = 2.0;
        let whole = Region {
            chunk: 0..1,
            ..Region::whole(problem, tile)
        };
        let passes = bounds.split(&whole)?;
        let passes = passes
            .into_iter()
            .map(|region| bounds.pass(Skeleton::AverageHeads, region))
            .collect();
        Ok(Self::simple(problem, caps, tile, passes))
    }

    /// A plan of one kernel besides attention's own: no workspace, and exactly the operands that the kernel binds.
    fn simple(problem: &Problem, caps: &DeviceCaps, tile: &Tile, passes: Vec<Pass>) -> Self {
        let mut plan = Self {
            problem: problem.clone(),
            algorithm: Algorithm::ThreeKernels,
            fused_tile: tile.clone(),
            tile: tile.clone(),
            tuned: None,
            passes,
            workspace: Workspace::default(),
            operands: Vec::new(),
            shader_f16: caps.shader_f16,
            shuffles: tile.shuffles(caps),
            open_apart: tuning::open_apart(caps),
            in_order: tuning::in_order(caps),
            rows_in_loops: caps.rows_in_loops,
            shader_int64: caps.shader_int64,
            max_submit_flops: caps.max_dispatch_flops,
            reasons: Vec::new(),
        };
        let kernel = plan.passes.first().map(|pass| plan.kernel(pass));
        let bindings = kernel.map(|kernel| kernel.bindings()).unwrap_or_default();
        let bound = |operand: &Operand| bindings.iter().any(|&(binding, _)| binding == binding_of(*operand));
        plan.operands = problem.operands().filter(bound).collect();
        plan
    }

    /// What is computed.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The way chosen: [`Algorithm::Fused`] or [`Algorithm::ThreeKernels`].
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The tile sizes chosen.
    pub fn tile(&self) -> &Tile {
        match self.algorithm {
            Algorithm::ThreeKernels => &self.tile,
            Algorithm::Auto | Algorithm::Fused => &self.fused_tile,
        }
    }

    /// What was measured on the device and is used here; `None` where the built-in rows chose.
    pub fn tuned(&self) -> Option<&TunedTile> {
        self.tuned.as_ref()
    }

    /// The tile sizes of a kernel.
    pub fn tile_of(&self, skeleton: Skeleton) -> &Tile {
        match is_fused(skeleton) {
            true => &self.fused_tile,
            false => &self.tile,
        }
    }

    /// The dispatches, in order.
    pub fn passes(&self) -> &[Pass] {
        &self.passes
    }

    /// The operands that a call may bind.
    pub(crate) fn operands(&self) -> &[Operand] {
        &self.operands
    }

    /// Memory needed besides the operands.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// The kernel of a pass, when no operand's binding begins at an odd place.
    pub fn kernel(&self, pass: &Pass) -> KernelConfig {
        self.kernel_at(pass, |_, _| true)
    }

    /// The kernel of a pass; `is_aligned` says whether an operand begins at a multiple of so many elements.
    pub(crate) fn kernel_at(&self, pass: &Pass, is_aligned: impl Fn(Operand, u32) -> bool) -> KernelConfig {
        let vectors = |operand, channels| {
            let extent = self.problem.extent(operand);
            extent.is_some_and(|extent| extent.is_vectors_of(channels)) && is_aligned(operand, channels)
        };
        let [vec4, vec8] = [4, 8].map(|channels| move |operand| vectors(operand, channels));
        KernelConfig::attention(
            pass.skeleton,
            &self.problem,
            self.tile_of(pass.skeleton),
            Variant {
                parts: pass.runs.count > 1,
                wide: self.shader_int64 && !matches!(self.tile_of(pass.skeleton).family, Family::Tile | Family::Matrix),
                resume: pass.resume,
                lse: pass.lse != Lse::None,
                emit: pass.emit,
                partial: pass.partial,
                shader_f16: self.shader_f16,
                shuffles: self.shuffles,
                open_apart: self.open_apart,
                in_order: self.in_order,
                rows_in_loops: self.rows_in_loops,
                query_vec4: vec4(Operand::Query),
                key_vec4: vec4(Operand::Key),
                value_vec4: vec4(Operand::Value),
                query_vec8: vec8(Operand::Query),
                key_vec8: vec8(Operand::Key),
                value_vec8: vec8(Operand::Value),
                out_vec4: pass.partial || vec4(Operand::Out),
            },
        )
    }

    /// Runs of passes that are short enough to be submitted together.
    pub(crate) fn submissions(&self) -> Vec<std::ops::Range<usize>> {
        let mut runs = Vec::new();
        let mut start = 0;
        let mut flops = 0.0;
        for (index, pass) in self.passes.iter().enumerate() {
            if index > start && flops + pass.flops > self.max_submit_flops {
                runs.push(start..index);
                (start, flops) = (index, 0.0);
            }
            flops += pass.flops;
        }
        runs.push(start..self.passes.len());
        runs
    }

    fn explained(mut self, caps: &DeviceCaps) -> Self {
        let whole = Region::whole(&self.problem, self.tile());
        let shape = self.problem.shape();
        if whole.chunk.end > 1 {
            self.reasons.push(format!(
                "{} chunks of {} value channels: an invocation's registers hold no more",
                whole.chunk.end,
                self.tile().chunk_channels(shape.head_dim_v)
            ));
        }
        if let Some(split) = self.passes.iter().find(|pass| pass.skeleton == Skeleton::Split) {
            self.reasons.push(format!(
                "few query rows: {} runs of {} keys side by side, {} rows that share a key/value head together",
                split.runs.count, split.runs.keys, self.fused_tile.tile_q
            ));
        }
        if self.workspace.tile_lists_bytes > 0 {
            self.reasons
                .push("a block mask: its closed tiles are listed out first, and never visited".into());
        }
        let cut = (self.passes.iter()).any(|pass| pass.region != whole && pass.skeleton != Skeleton::TileLists);
        self.reasons.push(if cut {
            format!(
                "{} passes: no binding beyond {} bytes, no dispatch beyond {:.0e} operations{}",
                self.passes.len(),
                caps.limits.max_storage_buffer_binding_bytes,
                caps.max_dispatch_flops,
                caps.max_loop_trips.map_or(String::new(), |trips| format!(
                    ", no invocation beyond {trips} loop trips"
                )),
            )
        } else {
            format!(
                "{} pass{}: the whole problem at once",
                self.passes.len(),
                if self.passes.len() == 1 { "" } else { "es" }
            )
        });
        self.reasons
            .push(format!("workspace: {} bytes", self.workspace.bytes()));
        self
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = self.problem.shape();
        writeln!(
            f,
            "batch {}, heads {} ({} of key and value), {} rows x {} keys, head_dim {} and {}",
            shape.batch, shape.heads, shape.kv_heads, shape.seqlen_q, shape.seqlen_k, shape.head_dim, shape.head_dim_v
        )?;
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        Ok(())
    }
}

/// Lists of the tiles that a block mask leaves to visit, `[batch, heads, units of rows, 1 + units of keys]`.
pub(crate) fn tile_lists_extent(problem: &Problem, tile: &Tile) -> Result<Option<Extent>> {
    let Some(mask) = problem.block_mask() else {
        return Ok(None);
    };
    let shape = problem.shape();
    let [unit_q, unit_kv] = tile.list_units(&mask);
    let units = [shape.seqlen_q.div_ceil(unit_q), shape.seqlen_k.div_ceil(unit_kv)];
    let sizes = [mask.batch, mask.heads, units[0], 1 + units[1]];
    Extent::contiguous(Operand::BlockMask, sizes).map(Some)
}

/// Whether a kernel works on the tiles of the fused ones.
fn is_fused(skeleton: Skeleton) -> bool {
    matches!(
        skeleton,
        Skeleton::Fused
            | Skeleton::Broadcast
            | Skeleton::Uniform
            | Skeleton::Split
            | Skeleton::Matrix
            | Skeleton::TileLists
    )
}

/// The fused kernel of a family.
fn fused_skeleton(tile: &Tile) -> Skeleton {
    match tile.family {
        Family::Broadcast => Skeleton::Broadcast,
        Family::Uniform => Skeleton::Uniform,
        Family::Split => Skeleton::Split,
        Family::Matrix => Skeleton::Matrix,
        Family::Tile => Skeleton::Fused,
    }
}

/// `tiles` are those of the fused kernel and of the three.
fn choose_algorithm(
    problem: &Problem,
    tiles: [&Tile; 2],
    caps: &DeviceCaps,
    reasons: &mut Vec<String>,
) -> Result<Algorithm> {
    let most = caps.limits.max_storage_buffers;
    let buffers = |algorithm| storage_buffers(problem, tiles, algorithm);
    let (algorithm, why) = match problem.algorithm() {
        Algorithm::Fused => (Algorithm::Fused, "asked for"),
        Algorithm::ThreeKernels => (Algorithm::ThreeKernels, "asked for"),
        Algorithm::Auto if problem.mods().prob_mod.is_some() => {
            (Algorithm::ThreeKernels, "prob_mod needs finished rows of weights")
        }
        Algorithm::Auto if problem.hands_out_all_weights() => (Algorithm::ThreeKernels, "the weights are wanted"),
        Algorithm::Auto if buffers(Algorithm::Fused) > most && buffers(Algorithm::ThreeKernels) <= most => (
            Algorithm::ThreeKernels,
            "the fused kernel would bind more storage buffers than the device allows",
        ),
        Algorithm::Auto if problem.outputs().weights => (Algorithm::Fused, "few rows' weights are wanted, after it"),
        Algorithm::Auto => (Algorithm::Fused, "nobody wants the weights, so they need not be stored"),
    };
    let (name, required) = match algorithm {
        Algorithm::ThreeKernels => ("three kernels", buffers(algorithm)),
        Algorithm::Auto | Algorithm::Fused => ("one fused kernel", buffers(algorithm)),
    };
    if required > most {
        return Err(Error::Limit {
            what: format!("the number of operands of {name}"),
            required: required.into(),
            limit_name: "maxStorageBuffersPerShaderStage",
            limit: most.into(),
        });
    }
    reasons.push(format!("{name}: {why}"));
    Ok(algorithm)
}

/// The most storage buffers that a kernel of this way to compute binds.
fn storage_buffers(problem: &Problem, [fused_tile, tile]: [&Tile; 2], algorithm: Algorithm) -> u32 {
    let variant = Variant {
        lse: problem.outputs().lse,
        ..Default::default()
    };
    let (tile, skeletons): (_, &[Skeleton]) = match algorithm {
        Algorithm::ThreeKernels => (tile, &[Skeleton::Scores, Skeleton::Softmax, Skeleton::WeightedValues]),
        Algorithm::Auto | Algorithm::Fused => (fused_tile, &[fused_skeleton(fused_tile)]),
    };
    let counts = skeletons
        .iter()
        .map(|&skeleton| KernelConfig::attention(skeleton, problem, tile, variant).storage_buffers());
    counts.max().unwrap_or(0)
}

fn choose_tile(problem: &Problem, caps: &DeviceCaps) -> Result<&'static Tile> {
    let shape = problem.shape();
    Tile::choose(&shape, caps).ok_or_else(|| Error::Limit {
        what: "the smallest tile".into(),
        required: tuning::TILES
            .iter()
            .filter(|tile| tile.max_seqlen_q.is_none_or(|most| shape.seqlen_q <= most))
            .map(|tile| tile.workgroup_bytes(&shape).into())
            .min()
            .unwrap_or(0),
        limit_name: "maxComputeWorkgroupStorageSize",
        limit: caps.limits.max_workgroup_bytes.into(),
    })
}
