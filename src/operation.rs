//! Operations beside attention, each one small kernel over rows or elements.
//!
//! An [`Operation`] is what a pure planning function makes of a descriptor and a device: the operands, and the passes, one
//! dispatch each, with the windows of the operands that each pass touches. What is here is common to all of them: compiling,
//! the workspace, the checks of the caller's buffers, bindings no larger than the device allows, grids folded over two
//! dimensions, and submissions that end before a desktop's watchdog looks. `merge.rs` is an operation to learn from.

use std::ops::Range;

use bytemuck::Pod;

use crate::caps::DeviceCaps;
use crate::encode::{BoundAttention, Dispatch, fold};
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::gpu::CountedBuffer;
use crate::kernel::KernelConfig;
use crate::kernel::source::Access;
use crate::tensor::BufferAt;

/// An operation, planned.
#[derive(Clone, Debug)]
pub(crate) struct Operation<P> {
    /// Its name for debugging.
    pub(crate) label: &'static str,
    /// The caller's operands. A call must give each of them, and no other.
    pub(crate) operands: Vec<OperandUse>,
    /// Sizes of the intermediate buffers, which hold `f32`.
    pub(crate) workspace_bytes: Vec<u64>,
    /// What is dispatched, in order.
    pub(crate) passes: Vec<OperationPass<P>>,
}

/// How an operation uses one of the caller's operands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperandUse {
    pub(crate) operand: Operand,
    pub(crate) element_bytes: u64,
    /// From the first to the last, both counted.
    pub(crate) elements: u64,
    /// `ReadWrite` for outputs, which may share no buffer with anything else that a dispatch binds.
    pub(crate) access: Access,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub(crate) struct OperationPass<P> {
    pub(crate) kernel: KernelConfig,
    /// All but what [`OperationParams`] sets.
    pub(crate) params: P,
    pub(crate) workgroups: u32,
    /// One for each storage binding of the kernel.
    pub(crate) windows: Vec<Window>,
    /// Elements loaded and stored, by which submissions are cut.
    pub(crate) elements: u64,
    /// The same work by vectors of 16 bytes, if the sizes allow it.
    pub(crate) wide: Option<Wide<P>>,
}

/// What a pass is when certain operands begin at multiples of 16 bytes. The windows are the pass's own.
#[derive(Clone, Debug)]
pub(crate) struct Wide<P> {
    /// The bindings of those operands.
    pub(crate) bindings: &'static [u32],
    pub(crate) kernel: KernelConfig,
    pub(crate) params: P,
    pub(crate) workgroups: u32,
}

/// The part of an operand that a pass touches.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) binding: u32,
    pub(crate) source: Source,
    /// Indexes of elements, counted from the operand's element 0.
    pub(crate) elements: Range<u64>,
}

/// Where a window lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// In the caller's buffer.
    Operand(Operand),
    /// In an intermediate buffer whose first number is this element.
    Workspace { index: usize, first: u64 },
}

/// The host twin of an operation's uniform struct: what binding fills in.
pub(crate) trait OperationParams: Pod {
    /// How many workgroups lie along x; the rest fold into y.
    fn set_grid_x(&mut self, grid_x: u32);

    /// Where the operand's element 0 lies, in elements from the start of its binding, modulo 2^32: a window into a large
    /// operand begins after it, and the sum with an index wraps back to the right place.
    fn set_offset(&mut self, binding: u32, offset: u32);
}

/// Elements of this size that a window may span, wherever the operand begins: what a binding holds, less what aligning its
/// start and its end may take.
pub(crate) fn window_elements(caps: &DeviceCaps, element_bytes: u64) -> u64 {
    let slack = u64::from(caps.limits.storage_offset_alignment_bytes).max(16) + 4;
    caps.limits.max_storage_buffer_binding_bytes.saturating_sub(slack) / element_bytes
}

/// Elements that one dispatch may load and store, by the same bound as attention's dispatches.
pub(crate) fn max_elements(caps: &DeviceCaps) -> u64 {
    (caps.max_dispatch_flops / FLOPS_OF_AN_ELEMENT) as u64
}

/// Operations that pass while an element is loaded or stored, on a device that is slow at it: an integrated one of
/// 40 GFLOP/s and 10 GB/s.
const FLOPS_OF_AN_ELEMENT: f64 = 16.0;

/// `0..total` in ranges of `most` (at least 1), of which the last may be shorter.
pub(crate) fn pieces(total: u64, most: u64) -> impl Iterator<Item = Range<u64>> {
    let most = most.max(1);
    (0..total.div_ceil(most)).map(move |index| index * most..((index + 1) * most).min(total))
}

/// Fails if indexes of 32 bits do not reach the last of an operand's elements, the product of these sizes.
pub(crate) fn count(operand: Operand, sizes: &[u64]) -> Result<u64> {
    let elements = sizes.iter().fold(1u64, |product, &size| product.saturating_mul(size));
    let limit = u64::from(u32::MAX);
    if elements > limit {
        return Err(Error::IndexOverflow {
            operand,
            elements,
            limit,
        });
    }
    Ok(elements)
}

/// An operation that is compiled, with its workspace.
#[derive(Clone, Debug)]
pub(crate) struct PreparedOperation<P> {
    engine: Engine,
    operation: Operation<P>,
    workspace: Vec<CountedBuffer>,
}

/// A binding's piece of a buffer.
struct Place<'a> {
    binding: u32,
    buffer: &'a wgpu::Buffer,
    offset_bytes: u64,
    size_bytes: u64,
}

impl<P: OperationParams> PreparedOperation<P> {
    pub(crate) async fn new(engine: &Engine, operation: Operation<P>) -> Result<Self> {
        for pass in &operation.passes {
            // What buffers at usual offsets need; another kernel is compiled when they turn out otherwise.
            let kernel = pass.wide.as_ref().map_or(&pass.kernel, |wide| &wide.kernel);
            engine.pipelines().get_or_create(engine.gpu(), kernel.clone()).await?;
        }
        let mut workspace = Vec::new();
        for &bytes in &operation.workspace_bytes {
            let usage = wgpu::BufferUsages::STORAGE;
            workspace.push(engine.gpu().buffer(operation.label, bytes, usage, None).await?);
        }
        Ok(Self {
            engine: engine.clone(),
            operation,
            workspace,
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Bytes of an operand; 0 for one that the operation does not have.
    pub(crate) fn bytes(&self, operand: Operand) -> u64 {
        self.used(operand).map_or(0, |used| used.elements * used.element_bytes)
    }

    fn used(&self, operand: Operand) -> Option<&OperandUse> {
        self.operation.operands.iter().find(|used| used.operand == operand)
    }

    /// Makes parameters and bind groups, so that encoding makes nothing. Absent operands may be listed as `None`.
    pub(crate) async fn bind(&self, operands: &[(Operand, Option<BufferAt<'_>>)]) -> Result<BoundAttention> {
        self.validate(operands)?;
        let (gpu, caps) = (self.engine.gpu(), self.engine.caps());
        let size = std::mem::size_of::<P>();
        let alignment = usize::try_from(caps.limits.uniform_offset_alignment_bytes).unwrap_or(256);
        let stride = size.next_multiple_of(alignment.max(16));
        let mut params_bytes = vec![0u8; stride * self.operation.passes.len()];
        let mut prepared = Vec::new();
        for (pass, bytes) in self.operation.passes.iter().zip(params_bytes.chunks_exact_mut(stride)) {
            let (kernel, mut params, workgroups) = match self.wide(pass, operands)? {
                Some(wide) => (&wide.kernel, wide.params, wide.workgroups),
                None => (&pass.kernel, pass.params, pass.workgroups),
            };
            let pipeline = self.engine.pipelines().get_or_create(gpu, kernel.clone()).await?;
            let grid = fold(workgroups, caps);
            params.set_grid_x(grid[0]);
            let mut places = Vec::new();
            for window in &pass.windows {
                let (place, offset) = self.place(window, operands)?;
                params.set_offset(window.binding, offset);
                places.push(place);
            }
            bytes[..size].copy_from_slice(bytemuck::bytes_of(&params));
            prepared.push((pipeline, places, grid));
        }
        let usage = wgpu::BufferUsages::UNIFORM;
        let bytes = params_bytes.len() as u64;
        let params = gpu
            .buffer(self.operation.label, bytes, usage, Some(&params_bytes))
            .await?;
        let dispatches = gpu
            .scoped("bind the operands", || {
                let bound = prepared
                    .into_iter()
                    .enumerate()
                    .map(|(index, (pipeline, places, grid))| {
                        let uniform = Place {
                            binding: 0,
                            buffer: &params.buffer,
                            offset_bytes: (index * stride) as u64,
                            size_bytes: size as u64,
                        };
                        let entries: Vec<_> = std::iter::once(&uniform).chain(&places).map(Place::entry).collect();
                        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                            label: Some(self.operation.label),
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
        buffers.extend(self.workspace.iter().cloned());
        Ok(BoundAttention {
            dispatches,
            runs: self.submissions(),
            buffers,
        })
    }

    /// Runs of passes that are short enough to be submitted together.
    fn submissions(&self) -> Vec<Range<usize>> {
        let most = max_elements(self.engine.caps());
        let mut runs = Vec::new();
        let (mut start, mut elements) = (0, 0u64);
        for (index, pass) in self.operation.passes.iter().enumerate() {
            if index > start && elements.saturating_add(pass.elements) > most {
                runs.push(start..index);
                (start, elements) = (index, 0);
            }
            elements = elements.saturating_add(pass.elements);
        }
        runs.push(start..self.operation.passes.len());
        runs
    }

    /// The pass by vectors, if it has that and the operands lie so.
    fn wide<'p>(
        &self,
        pass: &'p OperationPass<P>,
        operands: &[(Operand, Option<BufferAt<'_>>)],
    ) -> Result<Option<&'p Wide<P>>> {
        let Some(wide) = &pass.wide else { return Ok(None) };
        for window in pass
            .windows
            .iter()
            .filter(|window| wide.bindings.contains(&window.binding))
        {
            let (_, element_bytes, element_0) = self.find(window.source, operands)?;
            let begin = element_0.wrapping_add(window.elements.start * element_bytes);
            if !element_0.is_multiple_of(16) || !begin.is_multiple_of(16) {
                return Ok(None);
            }
        }
        Ok(Some(wide))
    }

    /// A window's place, and where element 0 lies from its start, modulo 2^32.
    fn place<'b>(&'b self, window: &Window, operands: &[(Operand, Option<BufferAt<'b>>)]) -> Result<(Place<'b>, u32)> {
        let (buffer, element_bytes, element_0) = self.find(window.source, operands)?;
        let alignment = u64::from(self.engine.caps().limits.storage_offset_alignment_bytes).max(16);
        let begin = element_0.wrapping_add(window.elements.start * element_bytes);
        let end = element_0.wrapping_add(window.elements.end * element_bytes);
        let start = begin / alignment * alignment;
        let offset = element_0.wrapping_sub(start) as i64 / element_bytes as i64;
        let place = Place {
            binding: window.binding,
            buffer,
            offset_bytes: start,
            size_bytes: end.next_multiple_of(4) - start,
        };
        Ok((place, offset as u32))
    }

    /// The buffer of a source, bytes of an element, and where element 0 lies in the buffer, modulo 2^64.
    fn find<'b>(
        &'b self,
        source: Source,
        operands: &[(Operand, Option<BufferAt<'b>>)],
    ) -> Result<(&'b wgpu::Buffer, u64, u64)> {
        Ok(match source {
            Source::Operand(operand) => {
                let missing = || Error::MissingOperand { operand };
                let used = self.used(operand).ok_or_else(missing)?;
                let at = given(operands, operand).ok_or_else(missing)?;
                (at.buffer, used.element_bytes, at.offset_bytes)
            }
            Source::Workspace { index, first } => {
                let label = self.operation.label;
                let buffer = self.workspace.get(index).ok_or_else(|| Error::Validation {
                    operation: "bind the workspace",
                    message: format!("{label} has no intermediate buffer {index}"),
                })?;
                (&buffer.buffer, 4, 0u64.wrapping_sub(4 * first))
            }
        })
    }

    fn validate(&self, operands: &[(Operand, Option<BufferAt<'_>>)]) -> Result<()> {
        for &(operand, at) in operands {
            if at.is_some() && self.used(operand).is_none() {
                return Err(Error::UnexpectedOperand { operand });
            }
        }
        for used in &self.operation.operands {
            let operand = used.operand;
            let at = given(operands, operand).ok_or(Error::MissingOperand { operand })?;
            validate_place(used, at)?;
        }
        for output in &self.operation.operands {
            if output.access == Access::ReadWrite {
                self.validate_apart(output, operands)?;
            }
        }
        Ok(())
    }

    /// Fails if an output shares its buffer with an input, or lies so near another output that their bindings, whose
    /// starts are aligned, would overlap: WebGPU forbids both within one dispatch.
    fn validate_apart(&self, output: &OperandUse, operands: &[(Operand, Option<BufferAt<'_>>)]) -> Result<()> {
        let alignment = u64::from(self.engine.caps().limits.storage_offset_alignment_bytes).max(16);
        let Some(at) = given(operands, output.operand) else {
            return Ok(());
        };
        let range = |used: &OperandUse, at: BufferAt<'_>| {
            let end = at.offset_bytes + used.elements * used.element_bytes;
            at.offset_bytes / alignment * alignment..end.next_multiple_of(4)
        };
        for other in &self.operation.operands {
            let shared = given(operands, other.operand).filter(|shared| shared.buffer == at.buffer);
            let Some(shared) = shared.filter(|_| other.operand != output.operand) else {
                continue;
            };
            let (ours, theirs) = (range(output, at), range(other, shared));
            let apart = ours.end <= theirs.start || theirs.end <= ours.start;
            if other.access != Access::ReadWrite || !apart {
                return Err(Error::SharedBuffer {
                    operand: output.operand,
                    other: other.operand,
                });
            }
        }
        Ok(())
    }
}

impl Place<'_> {
    fn entry(&self) -> wgpu::BindGroupEntry<'_> {
        wgpu::BindGroupEntry {
            binding: self.binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: self.buffer,
                offset: self.offset_bytes,
                size: wgpu::BufferSize::new(self.size_bytes),
            }),
        }
    }
}

fn given<'a>(operands: &[(Operand, Option<BufferAt<'a>>)], operand: Operand) -> Option<BufferAt<'a>> {
    operands.iter().find_map(|&(name, at)| at.filter(|_| name == operand))
}

fn validate_place(used: &OperandUse, at: BufferAt<'_>) -> Result<()> {
    let (operand, alignment_bytes) = (used.operand, used.element_bytes);
    if !at.buffer.usage().contains(wgpu::BufferUsages::STORAGE) {
        return Err(Error::BufferUsage {
            operand,
            expected: "STORAGE",
        });
    }
    let BufferAt { offset_bytes, .. } = at;
    if !offset_bytes.is_multiple_of(alignment_bytes) {
        return Err(Error::BufferOffset {
            operand,
            offset_bytes,
            alignment_bytes,
        });
    }
    let end = offset_bytes
        .checked_add(used.elements * used.element_bytes)
        .and_then(|end| end.checked_next_multiple_of(4));
    if end.is_none_or(|end| end > at.buffer.size()) {
        return Err(Error::BufferTooSmall {
            operand,
            actual_bytes: at.buffer.size(),
            offset_bytes,
            expected_bytes: end.map_or(u64::MAX, |end| end - offset_bytes),
        });
    }
    Ok(())
}

/// Fails unless every window of every pass fits a binding, wherever its operand begins, and every grid folds.
#[cfg(test)]
pub(crate) fn assert_fits<P>(operation: &Operation<P>, caps: &DeviceCaps) {
    for pass in &operation.passes {
        for window in &pass.windows {
            let (element_bytes, elements) = match window.source {
                Source::Operand(operand) => operation
                    .operands
                    .iter()
                    .find(|used| used.operand == operand)
                    .map(|used| (used.element_bytes, 0..used.elements))
                    .expect("a window is of an operand"),
                Source::Workspace { index, first } => (4, first..first + operation.workspace_bytes[index] / 4),
            };
            assert!(window.elements.start < window.elements.end);
            assert!(elements.start <= window.elements.start && window.elements.end <= elements.end);
            let bytes = (window.elements.end - window.elements.start) * element_bytes;
            // The worst that alignment adds before and behind.
            let aligned = bytes + u64::from(caps.limits.storage_offset_alignment_bytes).max(16) + 3;
            assert!(aligned <= caps.limits.max_storage_buffer_binding_bytes, "{window:?}");
        }
        let most = caps.limits.max_workgroups_per_dimension;
        for workgroups in [Some(pass.workgroups), pass.wide.as_ref().map(|wide| wide.workgroups)] {
            let grid = fold(workgroups.unwrap_or(1), caps);
            assert!(
                workgroups != Some(0) && grid.iter().all(|&size| size <= most),
                "{grid:?}"
            );
        }
    }
}
