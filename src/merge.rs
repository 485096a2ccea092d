//! Merging partial attention results by their log-sum-exp: what split keys, ring attention and cascades end with.

mod plan;

pub use plan::MergeStatesDescriptor;

use crate::encode::BoundAttention;
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::kernel::params::MergeParams;
use crate::operation::PreparedOperation;
use crate::readback::Wait;
use crate::tensor::{BufferAt, Tensor};

/// A merge that is planned and compiled, with its workspace. Made by [`Engine::prepare_merge_states`].
///
/// Calls bound from one `MergeStates` share its workspace, so record them into queues of one device in order.
#[derive(Clone, Debug)]
pub struct MergeStates {
    prepared: PreparedOperation<MergeParams>,
}

/// The partial results that a merge reads.
#[derive(Clone, Copy, Debug)]
pub struct MergeInputs<'a> {
    /// `[parts, batch, heads, seqlen_q, head_dim_v]`, of the descriptor's `parts_dtype`.
    pub out_parts: BufferAt<'a>,
    /// `[parts, batch, heads, seqlen_q]`, `f32`: natural logarithms; negative infinity for a part without open keys.
    pub lse_parts: BufferAt<'a>,
}

impl<'a> MergeInputs<'a> {
    /// Both.
    pub fn new(out_parts: impl Into<BufferAt<'a>>, lse_parts: impl Into<BufferAt<'a>>) -> Self {
        Self {
            out_parts: out_parts.into(),
            lse_parts: lse_parts.into(),
        }
    }
}

/// What a merge writes. Neither may share a buffer with an input; both may lie in one buffer, if a multiple of the device's
/// `minStorageBufferOffsetAlignment` lies between them.
#[derive(Clone, Copy, Debug)]
pub struct MergeOutputs<'a> {
    /// `[batch, heads, seqlen_q, head_dim_v]`, of the descriptor's `out_dtype`.
    pub out: BufferAt<'a>,
    /// `[batch, heads, seqlen_q]`, `f32`.
    pub lse: BufferAt<'a>,
}

impl<'a> MergeOutputs<'a> {
    /// Both.
    pub fn new(out: impl Into<BufferAt<'a>>, lse: impl Into<BufferAt<'a>>) -> Self {
        Self {
            out: out.into(),
            lse: lse.into(),
        }
    }
}

/// What a merge of tensors gives back.
#[derive(Clone, Debug)]
pub struct MergeTensors {
    /// `[batch, heads, seqlen_q, head_dim_v]`, of the descriptor's `out_dtype`.
    pub out: Tensor,
    /// `[batch, heads, seqlen_q]`, `f32`.
    pub lse: Tensor,
}

/// What a merge of host slices gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct MergedStates {
    /// `[batch, heads, seqlen_q, head_dim_v]`.
    pub out: Vec<f32>,
    /// `[batch, heads, seqlen_q]`.
    pub lse: Vec<f32>,
}

impl Engine {
    /// Plans a merge, compiles what is not compiled yet and allocates the workspace.
    ///
    /// # Errors
    /// A size that is 0, or partial outputs beyond 2³² elements; a row that no binding of the device holds.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_merge_states(&self, descriptor: &MergeStatesDescriptor<'_>) -> Result<MergeStates> {
        pollster::block_on(self.prepare_merge_states_async(descriptor))
    }

    /// As [`prepare_merge_states`](Self::prepare_merge_states), for where blocking is not possible.
    pub async fn prepare_merge_states_async(&self, descriptor: &MergeStatesDescriptor<'_>) -> Result<MergeStates> {
        let operation = plan::plan(descriptor, self.caps())?;
        let prepared = PreparedOperation::new(self, operation).await?;
        Ok(MergeStates { prepared })
    }

    /// Joins partial attention results on host slices: `lse = ln(sum(exp(lse_n)))`, `out = sum(exp(lse_n - lse) * out_n)`,
    /// which is the attention over the keys of all parts together. See [`reference::merge_states`](crate::reference::merge_states).
    ///
    /// `out_parts` is `[parts, batch, heads, seqlen_q, head_dim_v]`, rounded to the descriptor's `parts_dtype`; `lse_parts` is
    /// `[parts, batch, heads, seqlen_q]`. A part whose lse is negative infinity saw no key, and counts for nothing whatever
    /// its out holds; where all parts are so, out is 0 and the lse negative infinity. NaN or positive infinity in an lse
    /// makes the row NaN.
    ///
    /// ```
    /// use wgpu_attention::{Engine, MergeStatesDescriptor};
    ///
    /// let engine = Engine::new()?;
    /// // Two parts, one row of two channels: the second part saw three times the weight of the first.
    /// let descriptor = MergeStatesDescriptor::new(2, 1, 1, 1, 2);
    /// let merged = engine.merge_states(&descriptor, &[1.0, 2.0, 5.0, 6.0], &[0.0, 3f32.ln()])?;
    /// assert!((merged.out[0] - 4.0).abs() < 1e-5 && (merged.out[1] - 5.0).abs() < 1e-5);
    /// assert!((merged.lse[0] - 4f32.ln()).abs() < 1e-5);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare_merge_states`](Self::prepare_merge_states), and slices of another length than the descriptor says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn merge_states(
        &self,
        descriptor: &MergeStatesDescriptor<'_>,
        out_parts: &[f32],
        lse_parts: &[f32],
    ) -> Result<MergedStates> {
        pollster::block_on(self.merge_states_waiting(descriptor, out_parts, lse_parts, Wait::Here))
    }

    /// As [`merge_states`](Self::merge_states), for where blocking is not possible.
    pub async fn merge_states_async(
        &self,
        descriptor: &MergeStatesDescriptor<'_>,
        out_parts: &[f32],
        lse_parts: &[f32],
    ) -> Result<MergedStates> {
        self.merge_states_waiting(descriptor, out_parts, lse_parts, Wait::Elsewhere)
            .await
    }

    async fn merge_states_waiting(
        &self,
        descriptor: &MergeStatesDescriptor<'_>,
        out_parts: &[f32],
        lse_parts: &[f32],
        wait: Wait,
    ) -> Result<MergedStates> {
        validate_lengths(descriptor, out_parts, lse_parts)?;
        let merge = self.prepare_merge_states_async(descriptor).await?;
        let out_parts = self
            .upload_bytes_async(&descriptor.parts_dtype.narrow(out_parts))
            .await?;
        let lse_parts = self.upload_async(lse_parts).await?;
        let tensors = merge
            .run_waiting(&MergeInputs::new(&out_parts, &lse_parts), wait)
            .await?;
        let out = crate::readback::read_bytes(self.gpu(), tensors.out.buffer(), tensors.out.bytes(), wait).await?;
        Ok(MergedStates {
            out: descriptor.out_dtype.widen(&out),
            lse: self.read_waiting(&tensors.lse, wait).await?,
        })
    }
}

/// Fails unless the slices are as long as the descriptor says.
pub(crate) fn validate_lengths(
    descriptor: &MergeStatesDescriptor<'_>,
    out_parts: &[f32],
    lse_parts: &[f32],
) -> Result<()> {
    let sizes = descriptor.sizes()?;
    for (operand, actual, expected) in [
        (Operand::OutParts, out_parts.len() as u64, sizes.out_parts()),
        (Operand::LseParts, lse_parts.len() as u64, sizes.lse_parts()),
    ] {
        if actual != expected {
            return Err(Error::Length {
                operand,
                actual,
                expected,
            });
        }
    }
    Ok(())
}

impl MergeStates {
    /// Binds the merge to buffers: makes its parameters and bind groups, so that encoding makes nothing.
    ///
    /// # Errors
    /// Too small, misplaced or shared buffers, each by operand.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind(&self, inputs: &MergeInputs<'_>, outputs: &MergeOutputs<'_>) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(inputs, outputs))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async(&self, inputs: &MergeInputs<'_>, outputs: &MergeOutputs<'_>) -> Result<BoundAttention> {
        self.prepared
            .bind(&[
                (Operand::OutParts, Some(inputs.out_parts)),
                (Operand::LseParts, Some(inputs.lse_parts)),
                (Operand::Out, Some(outputs.out)),
                (Operand::Lse, Some(outputs.lse)),
            ])
            .await
    }

    /// Runs on GPU data, into tensors made for it. Submits, and waits only for what long calls need between their pieces.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, inputs: &MergeInputs<'_>) -> Result<MergeTensors> {
        pollster::block_on(self.run_waiting(inputs, Wait::Here))
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, inputs: &MergeInputs<'_>) -> Result<MergeTensors> {
        self.run_waiting(inputs, Wait::Elsewhere).await
    }

    async fn run_waiting(&self, inputs: &MergeInputs<'_>, wait: Wait) -> Result<MergeTensors> {
        let engine = self.prepared.engine();
        let tensors = MergeTensors {
            out: engine.allocate_async(self.prepared.bytes(Operand::Out)).await?,
            lse: engine.allocate_async(self.prepared.bytes(Operand::Lse)).await?,
        };
        let bound = self
            .bind_async(inputs, &MergeOutputs::new(&tensors.out, &tensors.lse))
            .await?;
        engine.run_bound(&bound, wait).await?;
        Ok(tensors)
    }
}
