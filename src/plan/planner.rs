//! The passes of a plan, and the memory that they share: one method for each way to compute.

use super::schedule::{BoundOperand, Bounds, Region, validate_dispatches};
use super::tuning::Tile;
use super::workspace::Workspace;
use super::{Lse, Pass, Runs, fused_skeleton, is_fused, tile_lists_extent};
use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::{Emit, KernelConfig, Skeleton, Variant, binding_of};
use crate::problem::{DType, Extent, Problem};

/// The most that the scores of the three kernels may take when nobody wants the weights.
const MAX_SCORES_BYTES: u64 = 128 << 20;

/// What plans of one problem, device and choice of tiles have in common.
pub(super) struct Planner<'a> {
    pub(super) problem: &'a Problem,
    pub(super) caps: &'a DeviceCaps,
    /// The tile of the fused kernel, and that of all others.
    pub(super) fused_tile: &'a Tile,
    pub(super) tile: &'a Tile,
}

impl<'a> Planner<'a> {
    pub(super) fn of_tile(problem: &'a Problem, caps: &'a DeviceCaps, tile: &'a Tile) -> Self {
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

    pub(super) fn fused(&self) -> Result<(Vec<Pass>, Workspace)> {
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
        bounds.max_kv = self.fused_tile.max_kv(self.problem, self.caps);
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
    pub(super) fn split(&self, workgroups: u64) -> Result<Option<(Vec<Pass>, Workspace)>> {
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
            && keys <= tile.max_kv(self.problem, self.caps)
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

    pub(super) fn three_kernels(&self) -> Result<(Vec<Pass>, Workspace)> {
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
    pub(super) fn product_passes(&self, skeleton: Skeleton, emit: Emit, region: &Region) -> Result<Vec<Pass>> {
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
        bounds.max_kv = self.tile.max_kv(self.problem, self.caps);
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
    pub(super) fn bounds(&self, skeleton: Skeleton, emit: Emit) -> Bounds<'_> {
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
}
