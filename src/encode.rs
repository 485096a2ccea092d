//! A plan with its buffers: parameters and bind groups made once, then recorded into any encoder without allocating.

mod operands;
mod params;

use std::ops::Range;
use std::sync::Arc;

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::gpu::{CountedBuffer, Gpu};
use crate::kernel::params::Params;
use crate::kernel::{Emit, FIRST_CAPTURE, KernelConfig, PART_LSE, PARTIAL, PARTS, ROPE_STEPS, TILE_LISTS};
use crate::pipeline::{Pipeline, PipelineCache};
use crate::plan::schedule::{Region, window};
use crate::plan::{Lse, Pass, Plan, tile_lists_extent};
use crate::problem::Extent;
use crate::tensor::BufferAt;
pub(crate) use operands::Operands;
use params::{region_params, set_operand};

/// A prepared call on certain buffers: attention, a whole multi-head block, or an operation beside them. [`encode`](Self::encode)
/// it as often as you like; the contents of the buffers may change in between.
#[derive(Debug, Default)]
pub struct BoundAttention {
    pub(crate) dispatches: Vec<Dispatch>,
    /// Runs of dispatches that are short enough to be submitted together.
    pub(crate) runs: Vec<Range<usize>>,
    /// Referenced by the bind groups, and counted as memory in use as long as these live.
    pub(crate) buffers: Vec<CountedBuffer>,
}

impl BoundAttention {
    /// Records the whole call as one compute pass. Never submits, never blocks, makes no GPU object.
    ///
    /// On a desktop a very long call is better submitted in pieces, since the system resets a GPU that is busy for
    /// seconds: see [`submissions`](Self::submissions).
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        record(encoder, &self.dispatches, None);
    }

    /// As [`encode`](Self::encode), with timestamps written at the beginning and the end of the compute pass.
    pub fn encode_timed(&self, encoder: &mut wgpu::CommandEncoder, writes: wgpu::ComputePassTimestampWrites<'_>) {
        record(encoder, &self.dispatches, Some(writes));
    }

    /// How many submissions the plan advises: each short enough for a desktop's watchdog.
    pub fn submissions(&self) -> usize {
        self.runs.len()
    }

    /// Records one of the pieces that [`submissions`](Self::submissions) counts; out of range records nothing.
    pub fn encode_submission(&self, index: usize, encoder: &mut wgpu::CommandEncoder) {
        if let Some(run) = self.runs.get(index) {
            record(encoder, &self.dispatches[run.clone()], None);
        }
    }

    /// This and then that.
    pub(crate) fn append(&mut self, mut next: BoundAttention) {
        let first = self.dispatches.len();
        self.runs
            .extend(next.runs.iter().map(|run| run.start + first..run.end + first));
        self.dispatches.append(&mut next.dispatches);
        self.buffers.append(&mut next.buffers);
    }
}

/// One dispatch, ready to be recorded.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) bind_group: wgpu::BindGroup,
    pub(crate) grid: [u32; 2],
}

/// Records dispatches as one compute pass.
fn record(
    encoder: &mut wgpu::CommandEncoder,
    dispatches: &[Dispatch],
    timestamp_writes: Option<wgpu::ComputePassTimestampWrites<'_>>,
) {
    let label = Some("attention");
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
        label,
        timestamp_writes,
    });
    for dispatch in dispatches {
        pass.set_pipeline(&dispatch.pipeline.pipeline);
        pass.set_bind_group(0, &dispatch.bind_group, &[]);
        pass.dispatch_workgroups(dispatch.grid[0], dispatch.grid[1], 1);
    }
}

/// `workgroups` as a grid whose dimensions keep to the limit.
pub(crate) fn fold(workgroups: u32, caps: &DeviceCaps) -> [u32; 2] {
    let rows = workgroups.div_ceil(caps.limits.max_workgroups_per_dimension).max(1);
    [workgroups.div_ceil(rows), rows]
}

/// Binds a plan to buffers.
pub(crate) struct Binder<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) caps: &'a DeviceCaps,
    pub(crate) pipelines: &'a PipelineCache,
    pub(crate) plan: &'a Plan,
    /// The pipelines of the plan's passes for operands at multiples of eight elements, as far as somebody has kept them.
    pub(crate) prepared: &'a [Arc<Pipeline>],
    /// The workspace's scores and lse planes, as far as the plan needs them.
    pub(crate) scores: Option<&'a CountedBuffer>,
    pub(crate) lse_planes: Option<&'a CountedBuffer>,
    pub(crate) partial: Option<&'a CountedBuffer>,
    pub(crate) parts: Option<&'a CountedBuffer>,
    pub(crate) part_lse: Option<&'a CountedBuffer>,
    pub(crate) tile_lists: Option<&'a CountedBuffer>,
    pub(crate) rope_steps: Option<&'a CountedBuffer>,
}

/// An operand's piece of a buffer.
struct Place<'a> {
    buffer: &'a wgpu::Buffer,
    offset_bytes: u64,
    size_bytes: u64,
}

impl Binder<'_> {
    pub(crate) async fn bind(&self, operands: &Operands<'_>) -> Result<BoundAttention> {
        let problem = self.plan.problem();
        operands.validate(self.plan, self.caps)?;

        let stride = std::mem::size_of::<Params>().next_multiple_of(
            usize::try_from(self.caps.limits.uniform_offset_alignment_bytes)
                .unwrap_or(256)
                .max(16),
        );
        let mut params_bytes = vec![0u8; stride * self.plan.passes().len()];
        let mut prepared = Vec::new();
        let as_prepared = operands.are_aligned(problem);
        let passes = self.plan.passes().iter().zip(params_bytes.chunks_exact_mut(stride));
        for (index, (pass, bytes)) in passes.enumerate() {
            let pipeline = match self.prepared.get(index).filter(|_| as_prepared) {
                Some(pipeline) => Arc::clone(pipeline),
                None => {
                    let kernel = self.kernel(pass, operands);
                    self.pipelines.get_or_create(self.gpu, kernel).await?
                }
            };
            let (params, places, grid) = self.place(pass, &pipeline, operands)?;
            bytes[..std::mem::size_of::<Params>()].copy_from_slice(bytemuck::bytes_of(&params));
            prepared.push((pipeline, places, grid));
        }
        let usage = wgpu::BufferUsages::UNIFORM;
        let params = self
            .gpu
            .buffer(
                "attention params",
                params_bytes.len() as u64,
                usage,
                Some(&params_bytes),
            )
            .await?;

        let dispatches = self
            .gpu
            .scoped("bind the operands", || {
                let bound = prepared
                    .into_iter()
                    .enumerate()
                    .map(|(index, (pipeline, places, grid))| {
                        let uniform = wgpu::BufferBinding {
                            buffer: &params.buffer,
                            offset: (index * stride) as u64,
                            size: wgpu::BufferSize::new(std::mem::size_of::<Params>() as u64),
                        };
                        let mut entries = vec![wgpu::BindGroupEntry {
                            binding: 0,
                            resource: wgpu::BindingResource::Buffer(uniform),
                        }];
                        entries.extend(places.iter().map(|(binding, place)| wgpu::BindGroupEntry {
                            binding: *binding,
                            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                                buffer: place.buffer,
                                offset: place.offset_bytes,
                                size: wgpu::BufferSize::new(place.size_bytes),
                            }),
                        }));
                        let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                            label: problem.label(),
                            layout: &pipeline.layout,
                            entries: &entries,
                        });
                        Dispatch {
                            pipeline,
                            bind_group,
                            grid,
                        }
                    });
                bound.collect::<Vec<_>>()
            })
            .await?;
        let mut buffers = vec![params];
        let workspace = [
            self.scores,
            self.lse_planes,
            self.partial,
            self.parts,
            self.part_lse,
            self.tile_lists,
            self.rope_steps,
        ];
        buffers.extend(workspace.into_iter().flatten().cloned());
        Ok(BoundAttention {
            dispatches,
            runs: self.plan.submissions(),
            buffers,
        })
    }

    /// The kernel of a pass for buffers at these offsets: one that begins at an odd place is loaded one by one.
    fn kernel(&self, pass: &Pass, operands: &Operands<'_>) -> KernelConfig {
        let problem = self.plan.problem();
        self.plan.kernel_at(pass, |operand, elements| {
            operands.is_aligned(problem, operand, elements)
        })
    }

    /// Parameters, bindings and grid of a pass.
    #[allow(
        clippy::type_complexity,
        reason = "three things that are made together and used together, once"
    )]
    fn place<'b>(
        &'b self,
        pass: &Pass,
        pipeline: &Pipeline,
        operands: &Operands<'b>,
    ) -> Result<(Params, Vec<(u32, Place<'b>)>, [u32; 2])> {
        let problem = self.plan.problem();
        let grid = fold(pass.workgroups, self.caps);
        let mut params = region_params(problem, pass, self.plan, grid);
        let mut places = Vec::new();
        for &(binding, _) in pipeline.bindings.iter().filter(|&&(binding, _)| binding != 0) {
            if binding == TILE_LISTS {
                places.push((binding, self.place_tile_lists(&mut params)?));
                continue;
            }
            if binding == PARTS || binding == PART_LSE {
                places.push((binding, self.place_parts(binding, &mut params)?));
                continue;
            }
            if binding == ROPE_STEPS {
                places.push((binding, self.place_rope_steps()?));
                continue;
            }
            let operand = operand_at(binding, pass.emit);
            let (place, offset, extent) = match (operand, &pass.block, pass.lse) {
                (Operand::Weights, Some(block), _) => self.place_block(block)?,
                (Operand::Weights, ..) if binding == PARTIAL => self.place_partial(&pass.region)?,
                (Operand::Out, ..) if pass.partial => self.place_partial(&pass.region)?,
                (Operand::Lse, _, Lse::Workspace(plane)) => self.place_lse_plane(plane, &pass.region)?,
                _ => {
                    let extent = problem.extent(operand).ok_or(Error::MissingOperand { operand })?;
                    let at = operands.get(operand).ok_or(Error::MissingOperand { operand })?;
                    let (place, offset) = self.place_window(operand, &extent, at, &pass.region);
                    let first_row = match operand {
                        Operand::Scores | Operand::Weights => problem.rows().start.wrapping_mul(extent.strides[2]),
                        _ => 0,
                    };
                    (place, offset.wrapping_sub(first_row), extent)
                }
            };
            set_operand(&mut params, operand, offset, &extent);
            places.push((binding, place));
        }
        Ok((params, places, grid))
    }

    /// The part of an operand that a region touches, and where element `[0, 0, 0, 0]` lies from its start, modulo 2^32.
    fn place_window<'b>(
        &self,
        operand: Operand,
        extent: &Extent,
        at: BufferAt<'b>,
        region: &Region,
    ) -> (Place<'b>, u32) {
        self.place_elements(operand, extent, at, region, self.plan.problem().element_bytes(operand))
    }

    fn place_elements<'b>(
        &self,
        operand: Operand,
        extent: &Extent,
        at: BufferAt<'b>,
        region: &Region,
        element_bytes: u64,
    ) -> (Place<'b>, u32) {
        let window = window(self.plan.problem(), operand, extent, region);
        // Two vectors of four elements, which some kernels load at a time.
        let alignment = u64::from(self.caps.limits.storage_offset_alignment_bytes).max(32);
        let start = (at.offset_bytes + window.start * element_bytes) / alignment * alignment;
        let end = (at.offset_bytes + window.end * element_bytes).next_multiple_of(4);
        let offset = at.offset_bytes.wrapping_sub(start) as i64 / element_bytes as i64;
        let place = Place {
            buffer: at.buffer,
            offset_bytes: start,
            size_bytes: end - start,
        };
        (place, offset as u32)
    }

    /// The workspace's scores of a block of rows, contiguous.
    fn place_block(&self, block: &Region) -> Result<(Place<'_>, u32, Extent)> {
        let keys = self.plan.problem().shape().seqlen_k;
        let sizes = [&block.batch, &block.head, &block.q].map(|range| range.end - range.start);
        let extent = Extent::contiguous(Operand::Weights, [sizes[0], sizes[1], sizes[2], keys])?;
        let first = [block.batch.start, block.head.start, block.q.start]
            .into_iter()
            .zip(extent.strides)
            .fold(0u32, |sum, (index, stride)| {
                sum.wrapping_add(index.wrapping_mul(stride))
            });
        let buffer = self.scores.ok_or(Error::MissingOperand {
            operand: Operand::Weights,
        })?;
        let place = Place {
            buffer: &buffer.buffer,
            offset_bytes: 0,
            size_bytes: 4 * extent.span(),
        };
        Ok((place, 0u32.wrapping_sub(first), extent))
    }

    fn place_lse_plane(&self, plane: u32, region: &Region) -> Result<(Place<'_>, u32, Extent)> {
        let extent = self.plan.problem().lse_extent()?;
        let buffer = self.lse_planes.ok_or(Error::MissingOperand { operand: Operand::Lse })?;
        let offset_bytes = u64::from(plane) * self.plan.workspace().lse_plane_bytes;
        let at = BufferAt {
            buffer: &buffer.buffer,
            offset_bytes,
        };
        let (place, offset) = self.place_window(Operand::Lse, &extent, at, region);
        Ok((place, offset, extent))
    }
}

impl Binder<'_> {
    /// `out` in the workspace.
    fn place_partial(&self, region: &Region) -> Result<(Place<'_>, u32, Extent)> {
        let extent = self.plan.problem().partial_extent()?;
        let buffer = self.partial.ok_or(Error::MissingOperand { operand: Operand::Out })?;
        let at = BufferAt::from(&buffer.buffer);
        let (place, offset) = self.place_elements(Operand::Out, &extent, at, region, 4);
        Ok((place, offset, extent))
    }
}

impl Binder<'_> {
    /// What runs of keys made of each row, or their lse, whole.
    fn place_parts(&self, binding: u32, params: &mut Params) -> Result<Place<'_>> {
        let (problem, workspace) = (self.plan.problem(), self.plan.workspace());
        let (buffer, size_bytes) = match binding {
            PARTS => (self.parts, workspace.parts_bytes),
            _ => (self.part_lse, workspace.part_lse_bytes),
        };
        let buffer = buffer.ok_or(Error::MissingOperand { operand: Operand::Out })?;
        let (parts, lse) = (problem.partial_extent()?, problem.lse_extent()?);
        // The plan has made sure that all parts together can be bound.
        params.part_stride = parts.span() as u32;
        params.part_lse_stride = lse.span() as u32;
        [params.scores_batch, params.scores_head, params.scores_row, _] = parts.strides;
        [params.lse_batch, params.lse_head, ..] = lse.strides;
        Ok(Place {
            buffer: &buffer.buffer,
            offset_bytes: 0,
            size_bytes,
        })
    }

    /// What a rotary embedding turns by, whole.
    fn place_rope_steps(&self) -> Result<Place<'_>> {
        let buffer = self.rope_steps.ok_or(Error::MissingOperand {
            operand: Operand::Frequencies,
        })?;
        Ok(Place {
            buffer: &buffer.buffer,
            offset_bytes: 0,
            size_bytes: self.plan.workspace().rope_steps_bytes,
        })
    }

    /// The lists of tiles to visit, whole.
    fn place_tile_lists(&self, params: &mut Params) -> Result<Place<'_>> {
        let missing = Error::MissingOperand {
            operand: Operand::BlockMask,
        };
        let buffer = self.tile_lists.ok_or(missing.clone())?;
        let extent = tile_lists_extent(self.plan.problem(), self.plan.tile())?.ok_or(missing)?;
        [params.list_batch, params.list_head, params.list_row, _] = extent.strides;
        Ok(Place {
            buffer: &buffer.buffer,
            offset_bytes: 0,
            size_bytes: 4 * extent.span(),
        })
    }
}

/// The operand that a kernel binds at `binding`.
fn operand_at(binding: u32, emit: Emit) -> Operand {
    match binding {
        1 => Operand::Query,
        2 => Operand::Key,
        3 => Operand::Value,
        4 => Operand::Out,
        5 => Operand::Lse,
        6 if matches!(emit, Emit::Stage(_)) => Operand::Scores,
        // The workspace's out goes by the strides of the weights.
        6 | PARTIAL => Operand::Weights,
        7 => Operand::Mask,
        8 => Operand::Bias,
        9 => Operand::KeyPadding,
        10 => Operand::Sinks,
        11 => Operand::AlibiSlopes,
        12 => Operand::CuSeqlensQ,
        13 => Operand::CuSeqlensK,
        14 => Operand::DropoutMask,
        15 => Operand::BlockMask,
        19 => Operand::QueryPositionIds,
        20 => Operand::KeyPositionIds,
        _ => Operand::Capture(u8::try_from(binding.saturating_sub(FIRST_CAPTURE)).unwrap_or(u8::MAX)),
    }
}
