//! From a problem and a device to a list of dispatches. Pure: the same problem and caps give the same plan, and its
//! [`Display`](fmt::Display) says in a line each why it is as it is.

pub mod schedule;
pub mod tuning;
pub mod workspace;

use std::fmt;

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::{KernelConfig, Skeleton, Variant, binding_of};
use crate::problem::{Algorithm, Extent, Problem};
use schedule::{Bounds, Region};
use tuning::Tile;
use workspace::Workspace;

/// Everything decided before a buffer is touched.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    problem: Problem,
    algorithm: Algorithm,
    tile: Tile,
    passes: Vec<Pass>,
    workspace: Workspace,
    operands: Vec<Operand>,
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
    /// Where it writes the lse.
    pub lse: Lse,
    /// The region whose scores lie in the workspace meanwhile; `None` when they lie in the caller's weights, or nowhere.
    pub block: Option<Region>,
    /// Workgroups that have work.
    pub workgroups: u32,
    /// Floating-point operations, closed positions counted as open.
    pub flops: f64,
}

/// Where a pass writes the lse of its rows.
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
    /// [`Error::Limit`] when a single tile of an operand is larger than the device can bind.
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
        let shape = problem.shape();
        let mut reasons = Vec::new();
        let algorithm = choose_algorithm(problem, &mut reasons);
        let tile = Tile::choose(&shape, caps.class, caps.tier, &caps.limits).ok_or(Error::Limit {
            what: "the smallest tile".into(),
            required: tuning::TILES
                .iter()
                .map(|tile| tile.workgroup_bytes(&shape).into())
                .min()
                .unwrap_or(0),
            limit_name: "maxComputeWorkgroupStorageSize",
            limit: caps.limits.max_workgroup_bytes.into(),
        })?;
        reasons.push(format!(
            "tile {}: {} query rows x {} keys, {} invocations, {} bytes of workgroup memory (tier {})",
            tile.name,
            tile.tile_q,
            tile.tile_kv(),
            tile.threads(),
            tile.workgroup_bytes(&shape),
            caps.tier,
        ));
        let planner = Planner { problem, caps, tile };
        let (passes, workspace) = match algorithm {
            Algorithm::ThreeKernels => planner.three_kernels()?,
            Algorithm::Auto | Algorithm::Fused => planner.fused()?,
        };
        let plan = Self {
            problem: problem.clone(),
            algorithm,
            tile: tile.clone(),
            passes,
            workspace,
            operands: OPERANDS.to_vec(),
            max_submit_flops: caps.max_dispatch_flops,
            reasons,
        };
        Ok(plan.explained(caps))
    }

    /// Plans a projection: [`Problem::linear`].
    pub(crate) fn linear(problem: &Problem, caps: &DeviceCaps) -> Result<Self> {
        let tile = choose_tile(problem, caps)?;
        let planner = Planner { problem, caps, tile };
        let passes = planner.product_passes(Skeleton::Linear, &Region::whole(problem, tile))?;
        Ok(Self::simple(problem, caps, tile, passes))
    }

    /// Plans an average over heads: [`Problem::average_heads`].
    pub(crate) fn average_heads(problem: &Problem, caps: &DeviceCaps) -> Result<Self> {
        let tile = &tuning::ELEMENTWISE;
        let planner = Planner { problem, caps, tile };
        let mut bounds = planner.bounds(&[Operand::Weights, Operand::Out]);
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
            tile: tile.clone(),
            passes,
            workspace: Workspace::default(),
            operands: Vec::new(),
            max_submit_flops: caps.max_dispatch_flops,
            reasons: Vec::new(),
        };
        let kernel = plan.passes.first().map(|pass| plan.kernel(pass));
        let bindings = kernel.map(|kernel| kernel.bindings()).unwrap_or_default();
        let bound = |operand: &Operand| bindings.iter().any(|&(binding, _)| binding == binding_of(*operand));
        plan.operands = OPERANDS.into_iter().filter(bound).collect();
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
        &self.tile
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
        let vec4 = |operand| self.problem.extent(operand).is_some_and(|extent| extent.is_vec4());
        KernelConfig::attention(
            pass.skeleton,
            &self.problem,
            &self.tile,
            Variant {
                resume: pass.resume,
                lse: pass.lse != Lse::None,
                query_vec4: vec4(Operand::Query),
                key_vec4: vec4(Operand::Key),
                value_vec4: vec4(Operand::Value),
                out_vec4: vec4(Operand::Out),
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
        let whole = Region::whole(&self.problem, &self.tile);
        let shape = self.problem.shape();
        if whole.chunk.end > 1 {
            self.reasons.push(format!(
                "{} chunks of {} value channels: an invocation's registers hold no more",
                whole.chunk.end,
                self.tile.chunk_channels(shape.head_dim_v)
            ));
        }
        let cut = self.passes.iter().any(|pass| pass.region != whole);
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

fn choose_algorithm(problem: &Problem, reasons: &mut Vec<String>) -> Algorithm {
    let (algorithm, why) = match problem.algorithm() {
        Algorithm::Fused => (Algorithm::Fused, "asked for"),
        Algorithm::ThreeKernels => (Algorithm::ThreeKernels, "asked for"),
        Algorithm::Auto if problem.outputs().weights => (Algorithm::ThreeKernels, "the weights are wanted"),
        Algorithm::Auto => (Algorithm::Fused, "nobody wants the weights, so they need not be stored"),
    };
    let name = if algorithm == Algorithm::Fused {
        "one fused kernel"
    } else {
        "three kernels"
    };
    reasons.push(format!("{name}: {why}"));
    algorithm
}

fn choose_tile(problem: &Problem, caps: &DeviceCaps) -> Result<&'static Tile> {
    let shape = problem.shape();
    Tile::choose(&shape, caps.class, caps.tier, &caps.limits).ok_or_else(|| Error::Limit {
        what: "the smallest tile".into(),
        required: tuning::TILES
            .iter()
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
    tile: &'a Tile,
}

impl Planner<'_> {
    fn fused(&self) -> Result<(Vec<Pass>, Workspace)> {
        let shape = self.problem.shape();
        let lse = Extent::contiguous(Operand::Lse, [shape.batch, shape.heads, 1, shape.seqlen_q])?;
        let mut bounds = self.bounds(&[
            Operand::Query,
            Operand::Key,
            Operand::Value,
            Operand::Out,
            Operand::Mask,
            Operand::Bias,
            Operand::KeyPadding,
        ]);
        bounds.operands.push((Operand::Lse, lse));
        bounds.flops = 2.0 * (f64::from(shape.head_dim) + f64::from(shape.head_dim_v));
        bounds.max_kv = self.max_kv();
        let whole = Region::whole(self.problem, self.tile);
        let mut regions = bounds.split(&whole)?;
        let keys_cut = regions.iter().any(|region| region.kv != whole.kv);
        if keys_cut && whole.chunk.end > 1 {
            // A later pass reads back the lse of its own chunk of channels, so each chunk needs passes of its own.
            regions.clear();
            for chunk in 0..whole.chunk.end {
                regions.extend(bounds.split(&Region {
                    chunk: chunk..chunk + 1,
                    ..whole.clone()
                })?);
            }
        }
        let mut planes = 0;
        let mut passes = Vec::new();
        for region in regions {
            let lse = match region.chunk.start {
                0 if self.problem.outputs().lse => Lse::Caller,
                chunk if keys_cut => Lse::Workspace(chunk),
                _ => Lse::None,
            };
            if let Lse::Workspace(plane) = lse {
                planes = planes.max(plane + 1);
            }
            passes.push(Pass {
                lse,
                resume: region.kv.start > 0,
                ..bounds.pass(Skeleton::Fused, region)
            });
        }
        let workspace = Workspace {
            scores_bytes: 0,
            lse_planes: planes,
            lse_plane_bytes: 4 * lse.span(),
        };
        workspace.validate(self.caps)?;
        Ok((passes, workspace))
    }

    fn three_kernels(&self) -> Result<(Vec<Pass>, Workspace)> {
        let shape = self.problem.shape();
        let whole = Region::whole(self.problem, self.tile);
        let handed_out = self.problem.outputs().weights;
        let blocks = if handed_out {
            vec![whole]
        } else {
            // As many rows at a time as a binding, or a reasonable workspace, holds the scores of.
            let mut bounds = self.bounds(&[]);
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
            blocks.collect()
        };
        let mut passes = Vec::new();
        let mut scores_bytes = 0;
        for region in blocks {
            if !handed_out {
                scores_bytes = scores_bytes.max(4 * region.rows() * u64::from(shape.seqlen_k));
            }
            let block = (!handed_out).then(|| region.clone());
            let stages = [
                self.product_passes(Skeleton::Scores, &region)?,
                self.softmax_passes(&region)?,
                self.value_passes(&region)?,
            ];
            passes.extend(stages.into_iter().flatten().map(|pass| Pass {
                block: block.clone(),
                ..pass
            }));
        }
        let workspace = Workspace {
            scores_bytes,
            lse_planes: 0,
            lse_plane_bytes: 0,
        };
        workspace.validate(self.caps)?;
        Ok((passes, workspace))
    }

    /// Tiles of `query keyᵀ`: scores, or a projection.
    fn product_passes(&self, skeleton: Skeleton, region: &Region) -> Result<Vec<Pass>> {
        let mut bounds = self.bounds(&[
            Operand::Query,
            Operand::Key,
            Operand::Mask,
            Operand::Bias,
            Operand::KeyPadding,
            Operand::Weights,
        ]);
        bounds.flops = 2.0 * f64::from(self.problem.shape().head_dim);
        bounds.kv_in_grid = true;
        let regions = bounds.split(&Region {
            chunk: 0..1,
            ..region.clone()
        })?;
        Ok(regions
            .into_iter()
            .map(|region| bounds.pass(skeleton, region))
            .collect())
    }

    fn softmax_passes(&self, region: &Region) -> Result<Vec<Pass>> {
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
        let one_row = Tile {
            tile_q: 1,
            ty: 1,
            ..self.tile.clone()
        };
        let mut bounds = self.bounds(&[Operand::Weights, Operand::Lse]);
        bounds.tile = &one_row;
        bounds.whole_rows = true;
        bounds.flops = 10.0;
        let lse = if self.problem.outputs().lse {
            Lse::Caller
        } else {
            Lse::None
        };
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

    fn value_passes(&self, region: &Region) -> Result<Vec<Pass>> {
        let mut bounds = self.bounds(&[Operand::Value, Operand::Out, Operand::Weights]);
        bounds.flops = 2.0 * f64::from(self.problem.shape().head_dim_v);
        bounds.max_kv = self.max_kv();
        let passes = bounds.split(region)?.into_iter().map(|region| Pass {
            resume: region.kv.start > 0,
            ..bounds.pass(Skeleton::WeightedValues, region)
        });
        Ok(passes.collect())
    }

    /// Bounds of a kernel that binds these operands, as far as the problem has them.
    fn bounds(&self, operands: &[Operand]) -> Bounds<'_> {
        let present = |&operand: &Operand| Some((operand, self.problem.extent(operand)?));
        Bounds {
            problem: self.problem,
            caps: self.caps,
            tile: self.tile,
            operands: operands.iter().filter_map(present).collect(),
            flops: 0.0,
            max_kv: u32::MAX,
            max_scores_bytes: None,
            kv_in_grid: false,
            whole_rows: false,
            heads_in_loop: false,
        }
    }

    /// The longest run of keys that one invocation may loop over.
    fn max_kv(&self) -> u32 {
        let shape = self.problem.shape();
        // Before and after the loop over tiles: staging the query tile and the odds and ends.
        let outside = shape.head_dim.saturating_add(64);
        self.caps.max_loop_trips.map_or(u32::MAX, |most| {
            let tiles = most.saturating_sub(outside) / self.tile.trips_per_tile(&shape);
            tiles.max(1).saturating_mul(self.tile.tile_kv())
        })
    }
}

/// All operands of an attention call.
const OPERANDS: [Operand; 9] = [
    Operand::Query,
    Operand::Key,
    Operand::Value,
    Operand::Out,
    Operand::Lse,
    Operand::Weights,
    Operand::Mask,
    Operand::Bias,
    Operand::KeyPadding,
];

/// The most that the scores of the three kernels may take when nobody wants the weights.
const MAX_SCORES_BYTES: u64 = 128 << 20;
