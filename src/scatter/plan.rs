//! What is written into a cache, and how that is cut into dispatches. Pure.

use std::ops::Range;

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::operations::{self, THREADS, per_word};
use crate::kernel::params::{CopyParams, ScatterParams};
use crate::kernel::source::Access;
use crate::operation::{
    OperandUse, Operation, OperationParams, OperationPass, Source, Wide, Window, count, max_elements, pieces,
    window_elements,
};
use crate::problem::{DType, MAX_ROWS};

/// New rows for a cache: ONNX's `TensorScatter` (opset 24).
///
/// The cache is `[batch, outer, cache_len, inner]`, the update `[batch, outer, update_len, inner]`. A cache of keys
/// `[batch, heads, seqlen, head_dim]` has `outer` heads of `inner` channels; one of `[batch, seqlen, heads, head_dim]` has one
/// `outer` and `heads * head_dim` channels. [`from_shapes`](Self::from_shapes) reads both from shapes and an axis.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TensorScatterDescriptor<'a> {
    /// Name for debugging.
    pub label: Option<&'a str>,
    /// Number of sequences.
    pub batch: u32,
    /// What lies between the sequences and their rows: heads.
    pub outer: u32,
    /// Rows of the cache in each sequence.
    pub cache_len: u32,
    /// New rows of each sequence, at most `cache_len`.
    pub update_len: u32,
    /// Elements of a row.
    pub inner: u32,
    /// Storage type of the cache and the update.
    pub dtype: DType,
    /// What happens at the cache's end.
    pub mode: ScatterMode,
    /// Each sequence's update begins at a row of its own, given by `write_indices`; otherwise at row 0.
    pub write_indices: bool,
}

/// Where row `t` of an update goes whose sequence's write index is `w`, in a cache of `n` rows.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ScatterMode {
    /// To row `w + t`. If that is not in the cache, before its beginning or behind its end, the row is dropped.
    #[default]
    Linear,
    /// To row `(w + t) mod n`, counted from the cache's beginning for a negative `w` too.
    Circular,
}

impl TensorScatterDescriptor<'_> {
    /// Rows of `f32` for a cache `[batch, outer, cache_len, inner]`, from write indices on, in linear mode.
    pub const fn new(batch: u32, outer: u32, cache_len: u32, update_len: u32, inner: u32) -> Self {
        Self {
            label: None,
            batch,
            outer,
            cache_len,
            update_len,
            inner,
            dtype: DType::F32,
            mode: ScatterMode::Linear,
            write_indices: true,
        }
    }

    /// As [`new`](Self::new), from shapes as ONNX has them: batch first, rows at `axis`, which counts from the end if
    /// negative (ONNX's default is -2).
    ///
    /// ```
    /// use wgpu_attention::TensorScatterDescriptor;
    ///
    /// let descriptor = TensorScatterDescriptor::from_shapes(&[2, 8, 1024, 64], &[2, 8, 1, 64], -2)?;
    /// assert_eq!(descriptor, TensorScatterDescriptor::new(2, 8, 1024, 1, 64));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// An axis that is none, or the batch's; shapes that differ at another place than the axis.
    pub fn from_shapes(cache: &[u32], update: &[u32], axis: i64) -> Result<Self> {
        let rank = cache.len();
        let from_start = if axis < 0 {
            axis.checked_add(rank as i64)
        } else {
            Some(axis)
        };
        let axis = from_start
            .and_then(|axis| usize::try_from(axis).ok())
            .filter(|axis| (1..rank).contains(axis))
            .ok_or_else(|| Error::Unsupported {
                what: format!("axis {axis} of a cache of shape {cache:?}"),
                why: "rows lie along an axis behind the first, which is the batch".into(),
            })?;
        let fits = update.len() == rank && (0..rank).all(|at| at == axis || update[at] == cache[at]);
        if !fits {
            return Err(Error::Shape {
                operand: Operand::Update,
                actual: update.to_vec(),
                expected: format!("{cache:?}, or another size at axis {axis}"),
            });
        }
        let product = |sizes: &[u32]| -> Result<u32> {
            let sizes: Vec<u64> = sizes.iter().copied().map(u64::from).collect();
            // `count` keeps it to 32 bits.
            Ok(count(Operand::PastCache, &sizes)? as u32)
        };
        Ok(Self::new(
            cache[0],
            product(&cache[1..axis])?,
            cache[axis],
            update[axis],
            product(&cache[axis + 1..])?,
        ))
    }

    /// The sizes, each checked to be at least 1 and to keep to 32-bit indexes.
    pub(crate) fn sizes(&self) -> Result<ScatterSizes> {
        for (dimension, size) in [
            ("batch", self.batch),
            ("outer", self.outer),
            ("cache_len", self.cache_len),
            ("update_len", self.update_len),
            ("inner", self.inner),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
        }
        if self.update_len > self.cache_len {
            return Err(Error::Shape {
                operand: Operand::Update,
                actual: vec![self.batch, self.outer, self.update_len, self.inner],
                expected: format!("at most as many rows as the cache has, which is {}", self.cache_len),
            });
        }
        // Shaders compute rows as signed numbers.
        if self.cache_len > MAX_ROWS {
            return Err(Error::IndexOverflow {
                operand: Operand::PastCache,
                elements: self.cache_len.into(),
                limit: MAX_ROWS.into(),
            });
        }
        let [batch, outer, cache_len, update_len, inner] =
            [self.batch, self.outer, self.cache_len, self.update_len, self.inner].map(u64::from);
        count(Operand::PastCache, &[batch, outer, cache_len, inner])?;
        Ok(ScatterSizes {
            batch,
            outer,
            cache_len,
            update_len,
            inner,
        })
    }
}

/// A block is what one sequence has in one of `outer`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ScatterSizes {
    pub(crate) batch: u64,
    pub(crate) outer: u64,
    pub(crate) cache_len: u64,
    pub(crate) update_len: u64,
    pub(crate) inner: u64,
}

impl ScatterSizes {
    fn blocks(&self) -> u64 {
        self.batch * self.outer
    }

    pub(crate) fn cache(&self) -> u64 {
        self.blocks() * self.cache_len * self.inner
    }

    pub(crate) fn update(&self) -> u64 {
        self.blocks() * self.update_len * self.inner
    }
}

const SOURCE: u32 = 1;
const DESTINATION: u32 = 2;

impl OperationParams for CopyParams {
    fn set_grid_x(&mut self, grid_x: u32) {
        self.grid_x = grid_x;
    }

    fn set_offset(&mut self, binding: u32, offset: u32) {
        match binding {
            SOURCE => self.source_offset = offset,
            _ => self.destination_offset = offset,
        }
    }
}

/// The whole past cache to the present one.
pub(crate) fn plan_copy(descriptor: &TensorScatterDescriptor<'_>, caps: &DeviceCaps) -> Result<Operation<CopyParams>> {
    let elements = descriptor.sizes()?.cache();
    let dtype = descriptor.dtype;
    let most = window_elements(caps, dtype.bytes()).min(max_elements(caps) / 2);
    // So that every piece but the last is one of whole vectors.
    let most = most / per_vector(dtype) * per_vector(dtype);
    let passes = pieces(elements, most).map(|range| {
        let window = |binding, operand| Window {
            binding,
            source: Source::Operand(operand),
            elements: range.clone(),
        };
        let element_count = range.end - range.start;
        // The first word may begin with an element that is somebody else's.
        let words = element_count.div_ceil(per_word(dtype).into()) + 1;
        // Every size keeps to 32 bits, as `sizes` saw to.
        let params = CopyParams {
            element_begin: range.start as u32,
            element_count: element_count as u32,
            ..CopyParams::default()
        };
        let per_vector = per_vector(dtype);
        let by_vectors = range.start.is_multiple_of(per_vector) && element_count.is_multiple_of(per_vector);
        OperationPass {
            kernel: operations::copy(dtype, false),
            params,
            workgroups: words.div_ceil(THREADS.into()) as u32,
            windows: vec![
                window(SOURCE, Operand::PastCache),
                window(DESTINATION, Operand::PresentCache),
            ],
            elements: 2 * element_count,
            wide: by_vectors.then(|| Wide {
                bindings: &[SOURCE, DESTINATION],
                kernel: operations::copy(dtype, true),
                params,
                workgroups: (element_count / per_vector).div_ceil(THREADS.into()) as u32,
            }),
        }
    });
    let operand = |operand, access| OperandUse {
        operand,
        element_bytes: dtype.bytes(),
        elements,
        access,
    };
    Ok(Operation {
        label: "copy cache",
        operands: vec![
            operand(Operand::PastCache, Access::Read),
            operand(Operand::PresentCache, Access::ReadWrite),
        ],
        workspace_bytes: Vec::new(),
        passes: passes.collect(),
    })
}

const UPDATE: u32 = 1;
const WRITE_INDICES: u32 = 2;
const PRESENT_CACHE: u32 = 3;

impl OperationParams for ScatterParams {
    fn set_grid_x(&mut self, grid_x: u32) {
        self.grid_x = grid_x;
    }

    fn set_offset(&mut self, binding: u32, offset: u32) {
        match binding {
            UPDATE => self.update_offset = offset,
            WRITE_INDICES => self.write_indices_offset = offset,
            _ => self.present_cache_offset = offset,
        }
    }
}

/// The update into the present cache.
///
/// Usually one pass writes all. Where blocks are too large for one binding, the cache is bound in windows, and each pass
/// writes the rows that go to its window: which ones, only the GPU knows.
pub(crate) fn plan_update(
    descriptor: &TensorScatterDescriptor<'_>,
    caps: &DeviceCaps,
) -> Result<Operation<ScatterParams>> {
    let sizes = descriptor.sizes()?;
    let (dtype, inner) = (descriptor.dtype, sizes.inner);
    let window = window_elements(caps, dtype.bytes());
    if window < inner {
        return Err(Error::Limit {
            what: "one row of the cache".into(),
            required: inner * dtype.bytes(),
            limit_name: "maxStorageBufferBindingSize",
            limit: caps.limits.max_storage_buffer_binding_bytes,
        });
    }
    let work = max_elements(caps) / 2;
    let slots = (window / inner).min(sizes.cache_len);
    let rows = (window.min(work) / inner).clamp(1, sizes.update_len);
    // Several blocks a pass only where all of each is bound. Each has one write index at most.
    let blocks = if slots < sizes.cache_len || rows < sizes.update_len {
        1
    } else {
        let largest = (window / (sizes.cache_len * inner)).min(work / (sizes.update_len * inner));
        largest.min(window_elements(caps, 4)).max(1)
    };
    let mut passes = Vec::new();
    for blocks in pieces(sizes.blocks(), blocks) {
        for rows in pieces(sizes.update_len, rows) {
            for slots in pieces(sizes.cache_len, slots) {
                passes.push(update_pass(descriptor, &sizes, [blocks.clone(), rows.clone(), slots]));
            }
        }
    }
    let operand = |operand, element_bytes, elements, access| OperandUse {
        operand,
        element_bytes,
        elements,
        access,
    };
    let bytes = dtype.bytes();
    let mut operands = vec![
        operand(Operand::Update, bytes, sizes.update(), Access::Read),
        operand(Operand::PresentCache, bytes, sizes.cache(), Access::ReadWrite),
    ];
    if descriptor.write_indices {
        operands.push(operand(Operand::WriteIndices, 4, sizes.batch, Access::Read));
    }
    Ok(Operation {
        label: "update cache",
        operands,
        workspace_bytes: Vec::new(),
        passes,
    })
}

/// Some blocks, some rows of their updates, and some rows of the cache.
fn update_pass(
    descriptor: &TensorScatterDescriptor<'_>,
    sizes: &ScatterSizes,
    [blocks, rows, slots]: [Range<u64>; 3],
) -> OperationPass<ScatterParams> {
    let dtype = descriptor.dtype;
    // From the first row of the first block to the last of the last.
    let elements = |len: u64, rows: &Range<u64>| {
        (blocks.start * len + rows.start) * sizes.inner..((blocks.end - 1) * len + rows.end) * sizes.inner
    };
    let window = |binding, operand, elements| Window {
        binding,
        source: Source::Operand(operand),
        elements,
    };
    let mut windows = vec![
        window(UPDATE, Operand::Update, elements(sizes.update_len, &rows)),
        window(PRESENT_CACHE, Operand::PresentCache, elements(sizes.cache_len, &slots)),
    ];
    if descriptor.write_indices {
        let batches = blocks.start / sizes.outer..(blocks.end - 1) / sizes.outer + 1;
        windows.push(window(WRITE_INDICES, Operand::WriteIndices, batches));
    }
    let row_count = rows.end - rows.start;
    let row_total = (blocks.end - blocks.start) * row_count;
    // Every size keeps to 32 bits, as `sizes` saw to; a row has no more chunks than elements.
    let chunked = |chunks_of_row: u64| {
        let chunks = row_total * chunks_of_row;
        let params = ScatterParams {
            chunks: chunks as u32,
            chunks_of_row: chunks_of_row as u32,
            block_begin: blocks.start as u32,
            row_begin: rows.start as u32,
            row_count: row_count as u32,
            slot_begin: slots.start as u32,
            slot_end: slots.end as u32,
            outer: descriptor.outer,
            cache_len: descriptor.cache_len,
            update_len: descriptor.update_len,
            inner: descriptor.inner,
            ..ScatterParams::default()
        };
        (params, chunks.div_ceil(THREADS.into()) as u32)
    };
    let circular = descriptor.mode == ScatterMode::Circular;
    let kernel = |wide| operations::tensor_scatter(dtype, circular, descriptor.write_indices, wide);
    // A row may begin and end within a word.
    let per_word = u64::from(per_word(dtype));
    let (params, workgroups) = chunked((sizes.inner + 2 * (per_word - 1)) / per_word);
    OperationPass {
        kernel: kernel(false),
        params,
        workgroups,
        windows,
        elements: 2 * row_total * sizes.inner,
        wide: sizes.inner.is_multiple_of(per_vector(dtype)).then(|| {
            let (params, workgroups) = chunked(sizes.inner / per_vector(dtype));
            Wide {
                bindings: &[UPDATE, PRESENT_CACHE],
                kernel: kernel(true),
                params,
                workgroups,
            }
        }),
    }
}

/// Elements of a vector of 16 bytes.
fn per_vector(dtype: DType) -> u64 {
    16 / dtype.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::assert_fits;

    #[test]
    fn an_update_that_fits_is_one_pass() {
        let descriptor = TensorScatterDescriptor::new(2, 8, 8192, 1, 128);
        let caps = DeviceCaps::default();
        assert_eq!(plan_update(&descriptor, &caps).unwrap().passes.len(), 1);
        assert_eq!(plan_copy(&descriptor, &caps).unwrap().passes.len(), 1);
    }

    /// Every element is copied once; every row of the update meets every row of the cache in one pass.
    #[test]
    fn passes_cover_all_and_fit() {
        for binding_bytes in [3000, 50_000, 1 << 20] {
            for max_dispatch_flops in [1e5, 1e10] {
                for dtype in [DType::F32, DType::F16] {
                    for (batch, outer, cache_len, update_len, inner) in [
                        (5, 2, 60, 7, 130),
                        (2, 3, 500, 500, 5),
                        (1, 1, 3000, 40, 64),
                        (40_000, 1, 2, 1, 1),
                    ] {
                        let descriptor = TensorScatterDescriptor {
                            dtype,
                            ..TensorScatterDescriptor::new(batch, outer, cache_len, update_len, inner)
                        };
                        let mut caps = DeviceCaps {
                            max_dispatch_flops,
                            ..DeviceCaps::default()
                        };
                        caps.limits.max_storage_buffer_binding_bytes = binding_bytes;
                        let (copy, update) = (
                            plan_copy(&descriptor, &caps).unwrap(),
                            plan_update(&descriptor, &caps).unwrap(),
                        );
                        assert_fits(&copy, &caps);
                        assert_fits(&update, &caps);
                        let mut end = 0;
                        for pass in &copy.passes {
                            assert_eq!(pass.params.element_begin, end);
                            end += pass.params.element_count;
                        }
                        assert_eq!(end, batch * outer * cache_len * inner);
                        let mut met = 0;
                        for pass in &update.passes {
                            let params = &pass.params;
                            let rows = u64::from(params.chunks / params.chunks_of_row);
                            met += rows * u64::from(params.slot_end - params.slot_begin);
                        }
                        let rows = u64::from(batch * outer) * u64::from(update_len);
                        assert_eq!(met, rows * u64::from(cache_len));
                    }
                }
            }
        }
    }
}
