//! From a problem and a device to a list of dispatches. Pure: the same problem and caps give the same plan, and its
//! [`Display`](fmt::Display) says in a line each why it is as it is.

pub mod schedule;
pub mod tuning;
pub mod workspace;

use std::fmt;

use crate::caps::{DeviceCaps, Family};
use crate::error::{Error, Operand, Result};
use crate::kernel::{Emit, KernelConfig, Skeleton, Variant, binding_of};
use crate::problem::{Algorithm, DType, DropoutKeep, Extent, Problem};
use crate::tune::TunedTile;
use schedule::{BoundOperand, Bounds, Region, validate_dispatches};
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

struct Planner<'a> {
    problem: &'a Problem,
    caps: &'a DeviceCaps,
    /// The tile of the fused kernel, and that of all others.
    fused_tile: &'a Tile,
    tile: &'a Tile,
}

impl<'a> Planner<'a> {
    fn of_tile(problem: &'a Problem, caps: &'a DeviceCaps, tile: &'a Tile) -> Self {
        Self {
            problem,
            caps,
            fused_tile: tile,
            tile,
        }
    }

    fn tile_of(&self, skeleton: Skeleton) -> &'a Tile {
        match is_fused(skeleton) {
            true => self.fused_tile,
            false => self.tile,
        }
    }

    fn fused(&self) -> Result<(Vec<Pass>, Workspace)> {
        let shape = self.problem.shape();
        let lse = self.problem.lse_extent()?;
        let skeleton = fused_skeleton(self.fused_tile);
        let mut bounds = self.bounds(skeleton, Emit::Softmax);
        bounds.operands.retain(|bound| bound.operand != Operand::Lse);
        bounds.operands.push(BoundOperand {
            operand: Operand::Lse,
            extent: lse,
            element_bytes: 4,
        });
        bounds.flops = 2.0 * (f64::from(shape.head_dim) + f64::from(shape.head_dim_v));
        bounds.max_kv = self.max_kv(self.fused_tile);
        let whole = Region::whole(self.problem, self.fused_tile);
        let mut regions = bounds.split(&whole)?;
        let keys_cut = regions.iter().any(|region| region.kv != whole.kv);
        let partial = keys_cut && self.needs_partial();
        if partial {
            self.accumulate_in_workspace(&mut bounds)?;
            regions = bounds.split(&whole)?;
        }
        if keys_cut && whole.chunk.end > 1 {
            // A later pass reads back the lse of its own chunk of channels, so each chunk needs passes of its own.
            regions.clear();
            for chunk in 0..whole.chunk.end {
                regions.extend(bounds.split(&Region {
                    chunk: chunk..chunk + 1,
                    ..whole.clone()
                })?);
                validate_dispatches(regions.len())?;
            }
        }
        let wants_lse = self.problem.outputs().weights;
        let mut planes = 0;
        let mut passes = Vec::new();
        for region in regions {
            let lse = match region.chunk.start {
                0 if self.problem.outputs().lse => Lse::Caller,
                chunk if keys_cut || (wants_lse && chunk == 0) => Lse::Workspace(chunk),
                _ => Lse::None,
            };
            if let Lse::Workspace(plane) = lse {
                planes = planes.max(plane + 1);
            }
            passes.push(Pass {
                lse,
                partial,
                resume: region.kv.start > 0,
                ..bounds.pass(skeleton, region)
            });
        }
        if partial {
            passes.extend(self.narrow_passes(&whole)?);
        }
        passes.extend(self.looks(self.problem.outputs().weights)?);
        let lists = self.tile_lists()?;
        let tile_lists_bytes = self.tile_lists_extent()?.map_or(0, |extent| 4 * extent.span());
        passes.splice(0..0, lists);
        let workspace = Workspace {
            tile_lists_bytes,
            rope_steps_bytes: self.rope_steps_bytes(),
            lse_planes: planes,
            lse_plane_bytes: 4 * lse.span(),
            partial_bytes: if partial {
                4 * self.problem.partial_extent()?.span()
            } else {
                0
            },
            ..Workspace::default()
        };
        workspace.validate(self.caps)?;
        Ok((passes, workspace))
    }

    /// Few rows, all of the problem at once; `None` if that is too much for one dispatch.
    fn split(&self, workgroups: u64) -> Result<Option<(Vec<Pass>, Workspace)>> {
        let (shape, outputs, limits) = (self.problem.shape(), self.problem.outputs(), &self.caps.limits);
        let tile = self.fused_tile;
        let lse = self.problem.lse_extent()?;
        let whole = Region::whole(self.problem, tile);
        let mut bounds = self.bounds(Skeleton::Split, Emit::Softmax);
        bounds.flops = 2.0 * (f64::from(shape.head_dim) + f64::from(shape.head_dim_v));
        let keys = tile.run_keys(&shape, workgroups);
        let count = shape.seqlen_k.div_ceil(keys);
        let [parts_bytes, part_lse_bytes] =
            [self.problem.partial_extent()?, lse].map(|extent| 4 * extent.span() * u64::from(count));
        let packed_tiles = (u64::from(shape.seqlen_q) * u64::from(shape.group_size())).div_ceil(tile.tile_q.into());
        let workgroups = u64::from(shape.batch) * u64::from(shape.kv_heads) * packed_tiles * u64::from(count);
        let variant = Variant {
            parts: count > 1,
            lse: outputs.lse,
            ..Default::default()
        };
        let buffers = KernelConfig::attention(Skeleton::Split, self.problem, tile, variant).storage_buffers();
        let fits = bounds.split(&whole)?.len() == 1
            && buffers <= limits.max_storage_buffers
            && keys <= self.max_kv(tile)
            && workgroups <= limits.max_workgroups_per_dimension.into()
            && parts_bytes.max(part_lse_bytes) <= limits.max_storage_buffer_binding_bytes.min(limits.max_buffer_bytes);
        if !fits {
            return Ok(None);
        }
        let final_lse = match outputs.lse {
            true => Lse::Caller,
            false if outputs.weights => Lse::Workspace(0),
            false => Lse::None,
        };
        let runs = Runs { count, keys };
        let mut passes = vec![Pass {
            runs,
            lse: if count > 1 { Lse::None } else { final_lse },
            workgroups: u32::try_from(workgroups).unwrap_or(u32::MAX),
            ..bounds.pass(Skeleton::Split, whole.clone())
        }];
        if count > 1 {
            let one_row = self.one_row();
            let mut bounds = self.bounds(Skeleton::Join, Emit::Softmax);
            bounds.tile = &one_row;
            bounds.whole_rows = true;
            let regions = bounds.split(&Region { chunk: 0..1, ..whole })?;
            passes.extend(regions.into_iter().map(|region| Pass {
                runs,
                lse: final_lse,
                ..bounds.pass(Skeleton::Join, region)
            }));
        }
        passes.extend(self.looks(outputs.weights)?);
        let joined = count > 1;
        let workspace = Workspace {
            rope_steps_bytes: self.rope_steps_bytes(),
            lse_planes: u32::from(matches!(final_lse, Lse::Workspace(_))),
            lse_plane_bytes: 4 * lse.span(),
            parts_bytes: if joined { parts_bytes } else { 0 },
            part_lse_bytes: if joined { part_lse_bytes } else { 0 },
            ..Workspace::default()
        };
        workspace.validate(self.caps)?;
        Ok(Some((passes, workspace)))
    }

    fn three_kernels(&self) -> Result<(Vec<Pass>, Workspace)> {
        let shape = self.problem.shape();
        let whole = Region::whole(self.problem, self.tile);
        let outputs = self.problem.outputs();
        let handed_out = self.problem.hands_out_all_weights();
        let looks_at_weights = outputs.weights && !handed_out;
        let lse = match outputs.lse {
            true => Lse::Caller,
            false if looks_at_weights => Lse::Workspace(0),
            false => Lse::None,
        };
        let blocks = if handed_out {
            vec![whole.clone()]
        } else {
            // As many rows at a time as a binding, or a reasonable workspace, holds the scores of.
            let mut bounds = self.unbound();
            let limits = &self.caps.limits;
            let most = limits
                .max_storage_buffer_binding_bytes
                .min(limits.max_buffer_bytes)
                .min(MAX_SCORES_BYTES);
            bounds.max_scores_bytes = Some(most);
            // Scores and softmax are the same for all chunks of a row.
            let one_chunk = Region {
                chunk: 0..1,
                ..whole.clone()
            };
            let blocks = bounds.split(&one_chunk)?.into_iter().map(|block| Region {
                chunk: whole.chunk.clone(),
                ..block
            });
            blocks.collect::<Vec<_>>()
        };
        // All rows of out lie in the workspace, or none.
        let mut partial = false;
        for region in &blocks {
            partial |= self.value_passes(region, false)?.iter().any(|pass| pass.partial);
        }
        let mut passes = Vec::new();
        let mut scores_bytes = 0;
        for region in blocks {
            if !handed_out {
                scores_bytes = scores_bytes.max(4 * region.rows() * u64::from(shape.seqlen_k));
            }
            let block = (!handed_out).then(|| region.clone());
            let stages = [
                self.product_passes(Skeleton::Scores, Emit::Softmax, &region)?,
                self.softmax_passes(&region, lse)?,
                self.value_passes(&region, partial)?,
            ];
            passes.extend(stages.into_iter().flatten().map(|pass| Pass {
                block: block.clone(),
                ..pass
            }));
            validate_dispatches(passes.len())?;
        }
        if partial {
            passes.extend(self.narrow_passes(&whole)?);
        }
        passes.extend(self.looks(looks_at_weights)?);
        let workspace = Workspace {
            rope_steps_bytes: self.rope_steps_bytes(),
            scores_bytes,
            lse_planes: u32::from(matches!(lse, Lse::Workspace(_))),
            lse_plane_bytes: 4 * self.problem.lse_extent()?.span(),
            partial_bytes: if partial {
                4 * self.problem.partial_extent()?.span()
            } else {
                0
            },
            ..Workspace::default()
        };
        workspace.validate(self.caps)?;
        Ok((passes, workspace))
    }

    fn rope_steps_bytes(&self) -> u64 {
        self.problem
            .rope()
            .map_or(0, |rope| 4 * u64::from(rope.frequencies.rotary_dim()))
    }

    /// Lists of the tiles that a block mask leaves to visit, `[batch, heads, units of rows, 1 + units of keys]`.
    fn tile_lists_extent(&self) -> Result<Option<Extent>> {
        tile_lists_extent(self.problem, self.fused_tile)
    }

    /// Before all else: makes those lists.
    fn tile_lists(&self) -> Result<Option<Pass>> {
        let (Some(mask), Some(extent)) = (self.problem.block_mask(), self.tile_lists_extent()?) else {
            return Ok(None);
        };
        let limits = &self.caps.limits;
        let fits = |what: &str, required: u64, limit_name, limit: u64| match required > limit {
            false => Ok(()),
            true => Err(Error::Limit {
                what: what.into(),
                required,
                limit_name,
                limit,
            }),
        };
        let binding = limits.max_storage_buffer_binding_bytes;
        fits(
            "the lists of a block mask's tiles",
            4 * extent.span(),
            "maxStorageBufferBindingSize",
            binding,
        )?;
        let states = self.problem.span_bytes(Operand::BlockMask).unwrap_or(0);
        fits("a block mask", states, "maxStorageBufferBindingSize", binding)?;
        let [batch, heads, rows, _] = extent.sizes;
        let workgroups = u64::from(batch) * u64::from(heads) * u64::from(rows);
        let per_dimension = u64::from(limits.max_workgroups_per_dimension);
        let most = (per_dimension * per_dimension).min(u32::MAX.into());
        fits(
            "the lists of a block mask",
            workgroups,
            "maxComputeWorkgroupsPerDimension",
            most,
        )?;
        // For each unit of a lane: the blocks that it touches, and a look at what the other lanes found.
        let units = self.fused_tile.list_units(&mask);
        let touched = |unit: u32, block: u32| u64::from(unit.div_ceil(block)) + 2;
        let blocks = touched(units[0], mask.block_q) * (touched(units[1], mask.block_kv) + 1);
        let threads = u64::from(self.fused_tile.threads());
        let trips = u64::from(extent.sizes[3]).div_ceil(threads) * (blocks + threads + 2);
        if let Some(limit) = self.caps.max_loop_trips {
            let name = "number of loop trips (a fault of this driver)";
            fits("the lists of a block mask", trips, name, limit.into())?;
        }
        let whole = Region::whole(self.problem, self.tile);
        Ok(Some(Pass {
            workgroups: u32::try_from(workgroups).unwrap_or(u32::MAX),
            flops: 0.0,
            ..self.unbound().pass(
                Skeleton::TileLists,
                Region {
                    batch: 0..batch,
                    head: 0..heads,
                    q: 0..rows,
                    chunk: 0..1,
                    ..whole
                },
            )
        }))
    }

    /// After all else: the scores that somebody wants to look at, and the weights if they are computed from the lse.
    fn looks(&self, weights: bool) -> Result<Vec<Pass>> {
        let outputs = self.problem.outputs();
        let rows = Region {
            q: self.problem.rows(),
            ..Region::whole(self.problem, self.tile)
        };
        let mut passes = Vec::new();
        if weights {
            let lse = if outputs.lse { Lse::Caller } else { Lse::Workspace(0) };
            let looks = self.product_passes(Skeleton::Scores, Emit::Weights, &rows)?;
            passes.extend(looks.into_iter().map(|pass| Pass { lse, ..pass }));
        }
        if let Some(stage) = outputs.scores {
            passes.extend(self.product_passes(Skeleton::Scores, Emit::Stage(stage), &rows)?);
        }
        Ok(passes)
    }

    /// Tiles of `query keyᵀ`: scores, or a projection.
    fn product_passes(&self, skeleton: Skeleton, emit: Emit, region: &Region) -> Result<Vec<Pass>> {
        let mut bounds = self.bounds(skeleton, emit);
        bounds.flops = 2.0 * f64::from(self.problem.shape().head_dim);
        bounds.kv_in_grid = true;
        let regions = bounds.split(&Region {
            chunk: 0..1,
            ..region.clone()
        })?;
        let passes = regions.into_iter().map(|region| Pass {
            emit,
            ..bounds.pass(skeleton, region)
        });
        Ok(passes.collect())
    }

    fn softmax_passes(&self, region: &Region, lse: Lse) -> Result<Vec<Pass>> {
        let seqlen_k = self.problem.shape().seqlen_k;
        // Three sweeps over the row, and two reductions over the workgroup.
        let trips = 3 * u64::from(seqlen_k).div_ceil(self.tile.threads().into()) + 32;
        if let Some(most) = self.caps.max_loop_trips.filter(|&most| trips > most.into()) {
            return Err(Error::Limit {
                what: format!("the softmax of a row of {seqlen_k} keys (Algorithm::Fused does not)"),
                required: trips,
                limit_name: "number of loop trips (a fault of this driver)",
                limit: most.into(),
            });
        }
        let one_row = self.one_row();
        let mut bounds = self.bounds(Skeleton::Softmax, Emit::Softmax);
        bounds.tile = &one_row;
        bounds.whole_rows = true;
        bounds.flops = 10.0;
        let regions = bounds.split(&Region {
            chunk: 0..1,
            ..region.clone()
        })?;
        Ok(regions
            .into_iter()
            .map(|region| Pass {
                lse,
                ..bounds.pass(Skeleton::Softmax, region)
            })
            .collect())
    }

    /// Weights · value; `partial` says that out lies in the workspace even if no row's keys are cut here.
    fn value_passes(&self, region: &Region, partial: bool) -> Result<Vec<Pass>> {
        let mut bounds = self.bounds(Skeleton::WeightedValues, Emit::Softmax);
        bounds.flops = 2.0 * f64::from(self.problem.shape().head_dim_v);
        bounds.max_kv = self.max_kv(self.tile);
        let mut regions = bounds.split(region)?;
        let keys_cut = regions.iter().any(|piece| piece.kv != region.kv);
        let partial = partial || (keys_cut && self.needs_partial());
        if partial {
            self.accumulate_in_workspace(&mut bounds)?;
            regions = bounds.split(region)?;
        }
        let passes = regions.into_iter().map(|region| Pass {
            partial,
            resume: region.kv.start > 0,
            ..bounds.pass(Skeleton::WeightedValues, region)
        });
        Ok(passes.collect())
    }

    /// Whether several passes over the keys would round in between if they went on from the caller's `out`.
    fn needs_partial(&self) -> bool {
        self.problem.dtypes().out != DType::F32
    }

    fn accumulate_in_workspace(&self, bounds: &mut Bounds<'_>) -> Result<()> {
        bounds.operands.retain(|bound| bound.operand != Operand::Out);
        bounds.operands.push(BoundOperand {
            operand: Operand::Out,
            extent: self.problem.partial_extent()?,
            element_bytes: 4,
        });
        Ok(())
    }

    /// The workspace's `out` to the caller's.
    fn narrow_passes(&self, region: &Region) -> Result<Vec<Pass>> {
        let one_row = self.one_row();
        let mut bounds = self.bounds(Skeleton::Narrow, Emit::Softmax);
        bounds.operands.push(BoundOperand {
            operand: Operand::Out,
            extent: self.problem.partial_extent()?,
            element_bytes: 4,
        });
        bounds.tile = &one_row;
        bounds.whole_rows = true;
        let regions = bounds.split(&Region {
            chunk: 0..1,
            ..region.clone()
        })?;
        Ok(regions
            .into_iter()
            .map(|region| bounds.pass(Skeleton::Narrow, region))
            .collect())
    }

    /// The tile of kernels that own one row a workgroup.
    fn one_row(&self) -> Tile {
        Tile {
            tile_q: 1,
            ty: 1,
            ..self.tile.clone()
        }
    }

    /// Bounds of a kernel that binds nothing.
    fn unbound(&self) -> Bounds<'_> {
        Bounds {
            problem: self.problem,
            caps: self.caps,
            tile: self.tile,
            operands: Vec::new(),
            flops: 0.0,
            max_kv: u32::MAX,
            max_scores_bytes: None,
            kv_in_grid: false,
            whole_rows: false,
            heads_in_loop: false,
        }
    }

    /// Bounds of a kernel, with the operands that it binds, as far as the problem has them.
    fn bounds(&self, skeleton: Skeleton, emit: Emit) -> Bounds<'_> {
        let variant = Variant {
            emit,
            lse: true,
            ..Default::default()
        };
        let tile = self.tile_of(skeleton);
        let bindings = KernelConfig::attention(skeleton, self.problem, tile, variant).bindings();
        let bound = self.problem.operands().filter(|&operand| {
            bindings.iter().any(|&(binding, _)| binding == binding_of(operand)) && emit.binds(operand)
        });
        let operands = bound.filter_map(|operand| {
            Some(BoundOperand {
                operand,
                extent: self.problem.extent(operand)?,
                element_bytes: self.problem.element_bytes(operand),
            })
        });
        Bounds {
            operands: operands.collect(),
            tile,
            ..self.unbound()
        }
    }

    /// The longest run of keys that one invocation may loop over.
    fn max_kv(&self, tile: &Tile) -> u32 {
        let shape = self.problem.shape();
        let keep = self.problem.dropout().map(|dropout| dropout.keep);
        let generates = matches!(keep, Some(DropoutKeep::Philox { .. }));
        // Before and after the loop over tiles: staging the query tile and the odds and ends.
        let outside = shape.head_dim.saturating_add(64);
        self.caps.max_loop_trips.map_or(u32::MAX, |most| {
            let tiles = most.saturating_sub(outside) / tile.trips_per_tile(&shape, generates);
            tiles.max(1).saturating_mul(tile.tile_kv())
        })
    }
}

/// The most that the scores of the three kernels may take when nobody wants the weights.
const MAX_SCORES_BYTES: u64 = 128 << 20;
