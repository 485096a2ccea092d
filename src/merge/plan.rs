//! What is merged, and how it is cut into dispatches. Pure.

use std::ops::Range;

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::operations::{self, THREADS, per_word};
use crate::kernel::params::MergeParams;
use crate::kernel::source::Access;
use crate::operation::{
    OperandUse, Operation, OperationParams, OperationPass, Source, Wide, Window, count, max_elements, pieces,
    window_elements,
};
use crate::problem::DType;

/// Partial attention results to be joined: of the same queries, each over some of the keys.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MergeStatesDescriptor<'a> {
    /// Name for debugging.
    pub label: Option<&'a str>,
    /// How many partial results there are, at least 1.
    pub parts: u32,
    /// Number of sequences.
    pub batch: u32,
    /// Number of query heads.
    pub heads: u32,
    /// Rows of query in each sequence.
    pub seqlen_q: u32,
    /// Channels of out in each head.
    pub head_dim_v: u32,
    /// Storage type of the partial outputs.
    pub parts_dtype: DType,
    /// Storage type of the output.
    pub out_dtype: DType,
}

impl MergeStatesDescriptor<'_> {
    /// `parts` partial results, everything in `f32`.
    pub const fn new(parts: u32, batch: u32, heads: u32, seqlen_q: u32, head_dim_v: u32) -> Self {
        Self {
            label: None,
            parts,
            batch,
            heads,
            seqlen_q,
            head_dim_v,
            parts_dtype: DType::F32,
            out_dtype: DType::F32,
        }
    }

    /// The sizes, each checked to be at least 1 and to keep to 32-bit indexes.
    pub(crate) fn sizes(&self) -> Result<MergeSizes> {
        for (dimension, size) in [
            ("parts", self.parts),
            ("batch", self.batch),
            ("heads", self.heads),
            ("seqlen_q", self.seqlen_q),
            ("head_dim_v", self.head_dim_v),
        ] {
            if size == 0 {
                return Err(Error::ZeroSize { dimension });
            }
        }
        let [parts, batch, heads, seqlen_q, dim] =
            [self.parts, self.batch, self.heads, self.seqlen_q, self.head_dim_v].map(u64::from);
        count(Operand::OutParts, &[parts, batch, heads, seqlen_q, dim])?;
        Ok(MergeSizes {
            parts,
            rows: batch * heads * seqlen_q,
            dim,
        })
    }
}

/// `[parts, rows, dim]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct MergeSizes {
    pub(crate) parts: u64,
    pub(crate) rows: u64,
    pub(crate) dim: u64,
}

impl MergeSizes {
    pub(crate) fn out(&self) -> u64 {
        self.rows * self.dim
    }

    pub(crate) fn out_parts(&self) -> u64 {
        self.parts * self.out()
    }

    pub(crate) fn lse_parts(&self) -> u64 {
        self.parts * self.rows
    }
}

const OUT_PARTS: u32 = 1;
const LSE_PARTS: u32 = 2;
const OUT: u32 = 3;
const LSE: u32 = 4;
const EARLIER_LSE: u32 = 5;

/// Elements that one invocation owns in `shaders/merge_states_wide.wgsl`: whole vectors of 16 bytes of any type.
const WIDE_ELEMENTS: u64 = 8;

impl OperationParams for MergeParams {
    fn set_grid_x(&mut self, grid_x: u32) {
        self.grid_x = grid_x;
    }

    fn set_offset(&mut self, binding: u32, offset: u32) {
        match binding {
            OUT_PARTS => self.out_parts_offset = offset,
            LSE_PARTS => self.lse_parts_offset = offset,
            OUT => self.out_offset = offset,
            LSE => self.lse_offset = offset,
            _ => self.earlier_lse_offset = offset,
        }
    }
}

/// Cuts a merge into passes.
///
/// Usually one pass joins all parts. Where they are too large for one binding, or too many, each pass joins as many as fit
/// and later ones go on from its result, which stays in `f32` until the last.
pub(crate) fn plan(descriptor: &MergeStatesDescriptor<'_>, caps: &DeviceCaps) -> Result<Operation<MergeParams>> {
    let sizes = descriptor.sizes()?;
    let cut = Cut::new(descriptor, &sizes, caps)?;
    let mut planner = Planner {
        descriptor,
        sizes,
        rows: 0..0,
        passes: Vec::new(),
    };
    // Intermediate buffers: two of a lse each, used in turns, and one of out where out's own type would round.
    let resumes = cut.parts < sizes.parts;
    let converts = resumes && descriptor.out_dtype != DType::F32;
    let mut workspace_bytes = Vec::new();
    if resumes {
        workspace_bytes.extend([4 * cut.rows, 4 * cut.rows]);
    }
    if converts {
        workspace_bytes.push(4 * cut.rows * sizes.dim);
    }
    for rows in pieces(sizes.rows, cut.rows) {
        planner.rows = rows;
        planner.merge_rows(cut.parts, converts);
    }
    let operand = |operand, dtype: DType, elements, access| OperandUse {
        operand,
        element_bytes: dtype.bytes(),
        elements,
        access,
    };
    Ok(Operation {
        label: "merge states",
        operands: vec![
            operand(
                Operand::OutParts,
                descriptor.parts_dtype,
                sizes.out_parts(),
                Access::Read,
            ),
            operand(Operand::LseParts, DType::F32, sizes.lse_parts(), Access::Read),
            operand(Operand::Out, descriptor.out_dtype, sizes.out(), Access::ReadWrite),
            operand(Operand::Lse, DType::F32, sizes.rows, Access::ReadWrite),
        ],
        workspace_bytes,
        passes: planner.passes,
    })
}

/// The most that one pass takes.
struct Cut {
    rows: u64,
    parts: u64,
}

impl Cut {
    fn new(descriptor: &MergeStatesDescriptor<'_>, sizes: &MergeSizes, caps: &DeviceCaps) -> Result<Self> {
        let window = |dtype: DType| window_elements(caps, dtype.bytes());
        let (parts_window, lse_window) = (window(descriptor.parts_dtype), window(DType::F32));
        // Two sweeps over the parts for each element of a word.
        let sweeps = 2 * u64::from(per_word(descriptor.out_dtype));
        let by_trips = caps.max_loop_trips.map_or(u64::MAX, |trips| u64::from(trips) / sweeps);
        let by_binding = (parts_window / sizes.out()).min(lse_window / sizes.rows);
        let parts = by_binding.min(by_trips).clamp(1, sizes.parts);

        let mut out_window = window(descriptor.out_dtype);
        if parts < sizes.parts {
            out_window = out_window.min(window(DType::F32));
        }
        let by_binding = (parts_window.min(out_window) / sizes.dim).min(lse_window);
        if by_binding == 0 {
            let largest = descriptor.parts_dtype.bytes().max(descriptor.out_dtype.bytes());
            return Err(Error::Limit {
                what: "one row of the outputs to be merged".into(),
                required: sizes.dim * largest,
                limit_name: "maxStorageBufferBindingSize",
                limit: caps.limits.max_storage_buffer_binding_bytes,
            });
        }
        let by_work = max_elements(caps) / (sizes.dim * (parts + 1));
        let rows = by_binding.min(by_work).clamp(1, sizes.rows);
        Ok(Self { rows, parts })
    }
}

struct Planner<'a> {
    descriptor: &'a MergeStatesDescriptor<'a>,
    sizes: MergeSizes,
    /// Of the passes being made.
    rows: Range<u64>,
    passes: Vec<OperationPass<MergeParams>>,
}

impl Planner<'_> {
    /// All parts of some rows, `most` parts a pass.
    fn merge_rows(&mut self, most: u64, converts: bool) {
        let parts_dtype = self.descriptor.parts_dtype;
        let out_dtype = if converts {
            DType::F32
        } else {
            self.descriptor.out_dtype
        };
        for (index, parts) in pieces(self.sizes.parts, most).enumerate() {
            let last = parts.end == self.sizes.parts;
            let out = if converts {
                self.workspace_out()
            } else {
                Source::Operand(Operand::Out)
            };
            let lse = if last && !converts {
                Source::Operand(Operand::Lse)
            } else {
                self.workspace_lse(index)
            };
            let earlier = index.checked_sub(1).map(|index| self.workspace_lse(index));
            self.pass(Merge {
                parts: parts.clone(),
                inputs: [Source::Operand(Operand::OutParts), Source::Operand(Operand::LseParts)],
                outputs: [out, lse],
                earlier,
                dtypes: [parts_dtype, out_dtype],
            });
            if last && converts {
                // One part alone is itself: this rounds it to out's type.
                self.pass(Merge {
                    parts: 0..1,
                    inputs: [out, lse],
                    outputs: [Source::Operand(Operand::Out), Source::Operand(Operand::Lse)],
                    earlier: None,
                    dtypes: [DType::F32, self.descriptor.out_dtype],
                });
            }
        }
    }

    fn workspace_lse(&self, index: usize) -> Source {
        let first = self.rows.start;
        Source::Workspace {
            index: index % 2,
            first,
        }
    }

    fn workspace_out(&self) -> Source {
        let first = self.rows.start * self.sizes.dim;
        Source::Workspace { index: 2, first }
    }

    fn pass(&mut self, merge: Merge) {
        let sizes = &self.sizes;
        let rows = self.rows.clone();
        let elements = rows.start * sizes.dim..rows.end * sizes.dim;
        let (out_part_stride, lse_part_stride) = (sizes.out(), sizes.rows);
        let (first, last) = (merge.parts.start, merge.parts.end - 1);
        let mut windows = vec![
            Window {
                binding: OUT_PARTS,
                source: merge.inputs[0],
                elements: first * out_part_stride + elements.start..last * out_part_stride + elements.end,
            },
            Window {
                binding: LSE_PARTS,
                source: merge.inputs[1],
                elements: first * lse_part_stride + rows.start..last * lse_part_stride + rows.end,
            },
            Window {
                binding: OUT,
                source: merge.outputs[0],
                elements: elements.clone(),
            },
            Window {
                binding: LSE,
                source: merge.outputs[1],
                elements: rows.clone(),
            },
        ];
        windows.extend(merge.earlier.map(|source| Window {
            binding: EARLIER_LSE,
            source,
            elements: rows,
        }));
        let [parts_dtype, out_dtype] = merge.dtypes;
        let element_count = elements.end - elements.start;
        // The first word may begin with an element that is somebody else's.
        let words = element_count.div_ceil(per_word(out_dtype).into()) + 1;
        let part_count = merge.parts.end - merge.parts.start;
        // Every size keeps to 32 bits, as `count` saw to.
        let params = MergeParams {
            element_begin: elements.start as u32,
            element_count: element_count as u32,
            part_begin: first as u32,
            part_end: merge.parts.end as u32,
            out_part_stride: out_part_stride as u32,
            lse_part_stride: lse_part_stride as u32,
            head_dim_v: sizes.dim as u32,
            negative_infinity: f32::NEG_INFINITY,
            ..MergeParams::default()
        };
        let resume = merge.earlier.is_some();
        let wide = sizes.dim.is_multiple_of(WIDE_ELEMENTS).then(|| Wide {
            bindings: &[OUT_PARTS, OUT],
            kernel: operations::merge_states_wide(parts_dtype, out_dtype, resume),
            params,
            workgroups: (element_count / WIDE_ELEMENTS).div_ceil(THREADS.into()) as u32,
        });
        self.passes.push(OperationPass {
            kernel: operations::merge_states(parts_dtype, out_dtype, resume),
            params,
            workgroups: words.div_ceil(THREADS.into()) as u32,
            windows,
            elements: element_count * (part_count + 1),
            wide,
        });
    }
}

/// One pass over the planner's rows: where it reads the partial outputs and lse, and where it writes theirs.
struct Merge {
    parts: Range<u64>,
    inputs: [Source; 2],
    outputs: [Source; 2],
    earlier: Option<Source>,
    dtypes: [DType; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::assert_fits;

    const MANY: MergeStatesDescriptor<'static> = MergeStatesDescriptor::new(9, 2, 8, 4096, 128);

    fn caps(binding_bytes: u64) -> DeviceCaps {
        let mut caps = DeviceCaps::default();
        caps.limits.max_storage_buffer_binding_bytes = binding_bytes;
        caps
    }

    #[test]
    fn a_merge_that_fits_is_one_pass() {
        let operation = plan(&MergeStatesDescriptor::new(8, 1, 32, 1, 128), &DeviceCaps::default()).unwrap();
        assert_eq!(operation.passes.len(), 1);
        assert!(operation.workspace_bytes.is_empty());
    }

    /// Every part of every row is read once, and every row's result is written last to where the caller wants it.
    #[test]
    fn passes_cover_all_and_fit() {
        for binding_bytes in [1000, 50_000, 1 << 20, 40 << 20, 128 << 20] {
            for (parts_dtype, out_dtype) in [(DType::F32, DType::F32), (DType::F16, DType::Bf16)] {
                for (parts, rows, dim) in [(9, 4096, 128), (3, 100, 3), (1000, 7, 33), (70_000, 1, 1)] {
                    let descriptor = MergeStatesDescriptor {
                        parts_dtype,
                        out_dtype,
                        ..MergeStatesDescriptor::new(parts, 1, 1, rows, dim)
                    };
                    let caps = DeviceCaps {
                        max_loop_trips: Some(65_535),
                        ..caps(binding_bytes)
                    };
                    let operation = plan(&descriptor, &caps).unwrap();
                    assert_fits(&operation, &caps);
                    let mut read = vec![0u64; rows as usize];
                    let mut last = vec![None; rows as usize];
                    for pass in &operation.passes {
                        let rows = pass.params.element_begin / dim
                            ..(pass.params.element_begin + pass.params.element_count) / dim;
                        let source = |binding| {
                            let window = pass.windows.iter().find(|window| window.binding == binding);
                            window.map(|window| matches!(window.source, Source::Operand(_)))
                        };
                        for row in rows.start as usize..rows.end as usize {
                            if source(OUT_PARTS) == Some(true) {
                                read[row] += u64::from(pass.params.part_end - pass.params.part_begin);
                            }
                            last[row] = source(OUT).zip(source(LSE));
                        }
                    }
                    assert!(read.iter().all(|&read| read == u64::from(parts)), "{descriptor:?}");
                    assert!(last.iter().all(|&last| last == Some((true, true))), "{descriptor:?}");
                }
            }
        }
    }

    #[test]
    fn passes_are_short() {
        let caps = DeviceCaps {
            max_dispatch_flops: 1e7,
            ..DeviceCaps::default()
        };
        let operation = plan(&MANY, &caps).unwrap();
        assert_fits(&operation, &caps);
        assert!(operation.passes.len() > 100);
        assert!(operation.passes.iter().all(|pass| pass.elements <= max_elements(&caps)));
    }
}
