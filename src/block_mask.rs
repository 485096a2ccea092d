//! Block masks: which blocks of positions a `mask_mod` closes, found on the GPU once and used by any number of calls.

mod plan;

pub use plan::{BlockIndices, BlockMaskDescriptor, block_indices};

use crate::encode::BoundAttention;
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::kernel::params::BlockMaskParams;
use crate::operation::PreparedOperation;
use crate::readback::Wait;
use crate::tensor::{BufferAt, Tensor};

/// The making of a block mask, planned and compiled. Made by [`Engine::prepare_block_mask`].
#[derive(Clone, Debug)]
pub struct BlockMaskBuilder {
    prepared: PreparedOperation<BlockMaskParams>,
    captures: Vec<u64>,
}

impl Engine {
    /// Plans and compiles the making of a block mask.
    ///
    /// ```no_run
    /// use wgpu_attention::{
    ///     AttentionDescriptor, AttentionShape, BlockMaskDescriptor, BlockMaskShape, Engine, Inputs, Mods,
    /// };
    ///
    /// // Of 8,192 positions each sees those of its own stretch of 1,024.
    /// let mask_mod = "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool {
    ///     return q_idx / 1024u == kv_idx / 1024u;
    /// }";
    /// let shape = AttentionShape::new(1, 8, 8192, 8192, 64);
    /// let blocks = BlockMaskShape { batch: 1, heads: 1, block_q: 128, block_kv: 128 };
    /// let mods = Mods { mask_mod: Some(mask_mod), ..Default::default() };
    /// let engine = Engine::new()?;
    /// let block_mask = engine.prepare_block_mask(&BlockMaskDescriptor::new(&shape, blocks, mods))?.run(&[])?;
    ///
    /// let descriptor = AttentionDescriptor { shape, mods, block_mask: Some(blocks), ..Default::default() };
    /// let attention = engine.prepare(&descriptor)?;
    /// # let (query, key, value) = (&block_mask, &block_mask, &block_mask);
    /// let inputs = Inputs { block_mask: Some((&block_mask).into()), ..Inputs::new(query, key, value) };
    /// let outputs = attention.run(&inputs)?; // an eighth of the work
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Mod`] when the function does not compile, [`Error::Limit`] when a block is too large for the device.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_block_mask(&self, descriptor: &BlockMaskDescriptor<'_>) -> Result<BlockMaskBuilder> {
        pollster::block_on(self.prepare_block_mask_async(descriptor))
    }

    /// As [`prepare_block_mask`](Self::prepare_block_mask), for where blocking is not possible.
    pub async fn prepare_block_mask_async(&self, descriptor: &BlockMaskDescriptor<'_>) -> Result<BlockMaskBuilder> {
        let operation = plan::plan(descriptor, self.caps())?;
        let captures = descriptor
            .mods
            .captures
            .iter()
            .map(|capture| 4 * u64::from(capture.len));
        Ok(BlockMaskBuilder {
            prepared: PreparedOperation::new(self, operation).await?,
            captures: captures.collect(),
        })
    }

    /// The states of a block mask on the host, from the bytes of the captures: one [`BlockState`](crate::BlockState) as
    /// number for each block.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn block_mask(&self, descriptor: &BlockMaskDescriptor<'_>, captures: &[&[u8]]) -> Result<Vec<u32>> {
        pollster::block_on(self.block_mask_waiting(descriptor, captures, Wait::Here))
    }

    /// As [`block_mask`](Self::block_mask), for where blocking is not possible.
    pub async fn block_mask_async(&self, descriptor: &BlockMaskDescriptor<'_>, captures: &[&[u8]]) -> Result<Vec<u32>> {
        self.block_mask_waiting(descriptor, captures, Wait::Elsewhere).await
    }

    async fn block_mask_waiting(
        &self,
        descriptor: &BlockMaskDescriptor<'_>,
        captures: &[&[u8]],
        wait: Wait,
    ) -> Result<Vec<u32>> {
        let builder = self.prepare_block_mask_async(descriptor).await?;
        for (index, (data, &expected)) in (0..).zip(captures.iter().zip(&builder.captures)) {
            if data.len() as u64 != expected {
                return Err(Error::Length {
                    operand: Operand::Capture(index),
                    actual: data.len() as u64 / 4,
                    expected: expected / 4,
                });
            }
        }
        let mut tensors = Vec::new();
        for data in captures {
            tensors.push(self.upload_bytes_async(data).await?);
        }
        let places: Vec<_> = tensors.iter().map(BufferAt::from).collect();
        let states = builder.run_waiting(&places, wait).await?;
        let numbers = self.read_waiting(&states, wait).await?;
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    }
}

impl BlockMaskBuilder {
    /// Bytes of the states.
    pub fn bytes(&self) -> u64 {
        self.prepared.bytes(Operand::BlockMask)
    }

    /// Makes the states, in a tensor of their own, from the captures on the GPU.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, captures: &[BufferAt<'_>]) -> Result<Tensor> {
        pollster::block_on(self.run_waiting(captures, Wait::Here))
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, captures: &[BufferAt<'_>]) -> Result<Tensor> {
        self.run_waiting(captures, Wait::Elsewhere).await
    }

    async fn run_waiting(&self, captures: &[BufferAt<'_>], wait: Wait) -> Result<Tensor> {
        let engine = self.prepared.engine();
        let states = engine.allocate_async(self.bytes()).await?;
        let bound = self.bind_async(captures, (&states).into()).await?;
        engine.run_bound(&bound, wait).await?;
        Ok(states)
    }

    /// Binds the making to buffers: the captures, each at a multiple of the device's storage offset alignment, and where
    /// the states go, `u32`, `[batch, heads, q blocks, kv blocks]`.
    ///
    /// # Errors
    /// Missing, unexpected, too small, misplaced or shared buffers, each by operand.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind(&self, captures: &[BufferAt<'_>], states: BufferAt<'_>) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(captures, states))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async(&self, captures: &[BufferAt<'_>], states: BufferAt<'_>) -> Result<BoundAttention> {
        let limits = &self.prepared.engine().caps().limits;
        let alignment_bytes = u64::from(limits.storage_offset_alignment_bytes);
        let mut operands = vec![(Operand::BlockMask, Some(states))];
        for (index, &at) in captures.iter().enumerate() {
            let operand = Operand::Capture(u8::try_from(index).unwrap_or(u8::MAX));
            let offset_bytes = at.offset_bytes;
            if !offset_bytes.is_multiple_of(alignment_bytes) {
                return Err(Error::BufferOffset {
                    operand,
                    offset_bytes,
                    alignment_bytes,
                });
            }
            operands.push((operand, Some(at)));
        }
        self.prepared.bind(&operands).await
    }
}
