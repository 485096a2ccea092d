//! What a block mask is made from, how it is cut into dispatches, and its lists. Pure.

use crate::caps::DeviceCaps;
use crate::error::{Error, Operand, Result};
use crate::kernel::params::BlockMaskParams;
use crate::kernel::source::Access;
use crate::kernel::{KernelConfig, binding_of, operations::THREADS};
use crate::operation::{
    OperandUse, Operation, OperationParams, OperationPass, Source, Window, max_elements, pieces, window_elements,
};
use crate::problem::mods::OwnedMods;
use crate::problem::{AttentionShape, BlockMaskShape, BlockState, Mods};

/// A block mask to be made from a `mask_mod`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockMaskDescriptor<'a> {
    /// The problem's sizes, of which query and key lengths, batch and heads matter.
    pub shape: AttentionShape,
    /// Sizes of the blocks, and for how many sequences and heads they are made.
    pub blocks: BlockMaskShape,
    /// The function, and what it reads. `score_mod` and `prob_mod` do not matter.
    pub mods: Mods<'a>,
}

impl<'a> BlockMaskDescriptor<'a> {
    /// A block mask for attention of these sizes.
    pub const fn new(shape: &AttentionShape, blocks: BlockMaskShape, mods: Mods<'a>) -> Self {
        Self {
            shape: *shape,
            blocks,
            mods,
        }
    }
}

impl OperationParams for BlockMaskParams {
    fn set_grid_x(&mut self, grid_x: u32) {
        self.grid_x = grid_x;
    }

    fn set_offset(&mut self, binding: u32, offset: u32) {
        // Captures begin where their binding does.
        if binding == STATES {
            self.states_offset = offset;
        }
    }
}

const STATES: u32 = 1;

/// The most positions of a block: what one workgroup looks at.
const MAX_POSITIONS: u64 = 1 << 26;

/// Cuts the making of a block mask into passes.
pub(super) fn plan(descriptor: &BlockMaskDescriptor<'_>, caps: &DeviceCaps) -> Result<Operation<BlockMaskParams>> {
    let BlockMaskDescriptor { shape, blocks, mods } = *descriptor;
    shape.validate()?;
    let extent = blocks.extent(&shape)?;
    let mods = OwnedMods::new(&mods)?;
    if mods.mask_mod.is_none() {
        return Err(Error::Unsupported {
            what: "a block mask without a mask_mod".into(),
            why: "it is made by asking mask_mod for each position".into(),
        });
    }
    let positions = u64::from(blocks.block_q) * u64::from(blocks.block_kv);
    let trips = caps
        .max_loop_trips
        .map_or(u64::MAX, |trips| u64::from(trips.saturating_sub(8)));
    let limit = trips.saturating_mul(THREADS.into()).min(MAX_POSITIONS);
    if positions > limit {
        return Err(Error::Limit {
            what: "a block of the block mask".into(),
            required: positions,
            limit_name: "number of positions that one workgroup looks at",
            limit,
        });
    }
    let kernel = KernelConfig::block_mask(
        vec![
            ("THREADS", THREADS),
            ("BLOCK_Q", blocks.block_q),
            ("BLOCK_KV", blocks.block_kv),
        ],
        &mods,
    );
    let [_, heads, q_blocks, kv_blocks] = extent.sizes;
    let mut operands = vec![OperandUse {
        operand: Operand::BlockMask,
        element_bytes: 4,
        elements: extent.span(),
        access: Access::ReadWrite,
    }];
    let mut captures = Vec::new();
    for (index, capture) in (0..).zip(mods.captures.iter()) {
        let operand = Operand::Capture(index);
        if capture.len == 0 {
            return Err(Error::ZeroSize {
                dimension: "len of a capture",
            });
        }
        operands.push(OperandUse {
            operand,
            element_bytes: 4,
            elements: capture.len.into(),
            access: Access::Read,
        });
        captures.push(Window {
            binding: binding_of(operand),
            source: Source::Operand(operand),
            elements: 0..capture.len.into(),
        });
    }
    let per_dimension = u64::from(caps.limits.max_workgroups_per_dimension);
    let most = (max_elements(caps) / positions.max(1))
        .min(window_elements(caps, 4))
        .min(per_dimension * per_dimension);
    let passes = pieces(extent.span(), most).map(|range| {
        let count = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
        let mut windows = vec![Window {
            binding: STATES,
            source: Source::Operand(Operand::BlockMask),
            elements: range.clone(),
        }];
        windows.extend(captures.iter().cloned());
        OperationPass {
            kernel: kernel.clone(),
            params: BlockMaskParams {
                block_begin: u32::try_from(range.start).unwrap_or(u32::MAX),
                blocks: count,
                heads,
                q_blocks,
                kv_blocks,
                seqlen_q: shape.seqlen_q,
                seqlen_k: shape.seqlen_k,
                ..Default::default()
            },
            workgroups: count,
            windows,
            elements: (range.end - range.start).saturating_mul(positions),
            wide: None,
        }
    });
    Ok(Operation {
        label: "block mask",
        passes: passes.collect(),
        operands,
        workspace_bytes: Vec::new(),
    })
}

/// A block mask as lists, in the form of PyTorch's `BlockMask`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BlockIndices {
    /// `[batch, heads, q blocks]`: how many blocks of keys are partly open.
    pub kv_num_blocks: Vec<u32>,
    /// `[batch, heads, q blocks, kv blocks]`: their numbers in ascending order, then those of the rest.
    pub kv_indices: Vec<u32>,
    /// As `kv_num_blocks`, of those that are wholly open.
    pub full_kv_num_blocks: Vec<u32>,
    /// As `kv_indices`, of those that are wholly open.
    pub full_kv_indices: Vec<u32>,
}

/// The lists of a block mask's states, `[batch, heads, q blocks, kv blocks]` with this many blocks of keys; states behind the
/// last whole row are left out.
///
/// ```
/// use wgpu_attention::{BlockState, block_indices};
///
/// let lists = block_indices(&[BlockState::Open as u32, BlockState::Closed as u32, BlockState::Partial as u32], 3);
/// assert_eq!((lists.kv_num_blocks[0], &lists.kv_indices[..1]), (1, &[2][..]));
/// assert_eq!((lists.full_kv_num_blocks[0], &lists.full_kv_indices[..1]), (1, &[0][..]));
/// ```
pub fn block_indices(states: &[u32], kv_blocks: u32) -> BlockIndices {
    let mut lists = BlockIndices::default();
    for row in states.chunks_exact(kv_blocks.max(1) as usize) {
        for (state, numbers, indices) in [
            (BlockState::Partial, &mut lists.kv_num_blocks, &mut lists.kv_indices),
            (
                BlockState::Open,
                &mut lists.full_kv_num_blocks,
                &mut lists.full_kv_indices,
            ),
        ] {
            let blocks = |of_state: bool| {
                (0..)
                    .zip(row)
                    .filter_map(move |(block, &found)| ((found == state as u32) == of_state).then_some(block))
            };
            numbers.push(blocks(true).count() as u32);
            indices.extend(blocks(true).chain(blocks(false)));
        }
    }
    lists
}
