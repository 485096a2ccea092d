//! New rows into a cache of keys or values: ONNX's `TensorScatter`.

mod plan;

pub use plan::{ScatterMode, TensorScatterDescriptor};

use crate::encode::BoundAttention;
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::kernel::params::{CopyParams, ScatterParams};
use crate::operation::{PreparedOperation, max_elements};
use crate::readback::{self, Wait};
use crate::tensor::{BufferAt, Tensor};

/// An update of a cache that is planned and compiled. Made by [`Engine::prepare_tensor_scatter`].
#[derive(Clone, Debug)]
pub struct TensorScatter {
    copy: PreparedOperation<CopyParams>,
    update: PreparedOperation<ScatterParams>,
    /// Whether both are short enough to be submitted together.
    short: bool,
}

/// What an update of a cache reads.
#[derive(Clone, Copy, Debug)]
pub struct TensorScatterInputs<'a> {
    /// `[batch, outer, cache_len, inner]`, of the descriptor's `dtype`: it is copied first. `None` updates the present cache
    /// in place, and touches nothing of it but the rows that are written.
    pub past_cache: Option<BufferAt<'a>>,
    /// `[batch, outer, update_len, inner]`, of the descriptor's `dtype`.
    pub update: BufferAt<'a>,
    /// `[batch]`, `i32` (ONNX has 64 bits here), if the descriptor names them. Any value is allowed: see [`ScatterMode`].
    pub write_indices: Option<BufferAt<'a>>,
}

impl<'a> TensorScatterInputs<'a> {
    /// A new cache from a past one; without write indices.
    pub fn new(past_cache: impl Into<BufferAt<'a>>, update: impl Into<BufferAt<'a>>) -> Self {
        Self {
            past_cache: Some(past_cache.into()),
            ..Self::in_place(update)
        }
    }

    /// The present cache updated in place; without write indices.
    pub fn in_place(update: impl Into<BufferAt<'a>>) -> Self {
        Self {
            past_cache: None,
            update: update.into(),
            write_indices: None,
        }
    }
}

impl Engine {
    /// Plans an update of a cache, and compiles what is not compiled yet.
    ///
    /// # Errors
    /// A size that is 0, more new rows than the cache has, a cache beyond 2³² elements or 2³⁰ rows, or a row that no binding
    /// of the device holds.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_tensor_scatter(&self, descriptor: &TensorScatterDescriptor<'_>) -> Result<TensorScatter> {
        pollster::block_on(self.prepare_tensor_scatter_async(descriptor))
    }

    /// As [`prepare_tensor_scatter`](Self::prepare_tensor_scatter), for where blocking is not possible.
    pub async fn prepare_tensor_scatter_async(
        &self,
        descriptor: &TensorScatterDescriptor<'_>,
    ) -> Result<TensorScatter> {
        let (copy, update) = (
            plan::plan_copy(descriptor, self.caps())?,
            plan::plan_update(descriptor, self.caps())?,
        );
        let copied = copy.passes.iter().map(|pass| pass.elements).sum::<u64>();
        let updated = update.passes.iter().map(|pass| pass.elements).sum::<u64>();
        Ok(TensorScatter {
            short: copied + updated <= max_elements(self.caps()),
            copy: PreparedOperation::new(self, copy).await?,
            update: PreparedOperation::new(self, update).await?,
        })
    }

    /// Writes new rows into a cache on host slices and gives back the new cache: ONNX's `TensorScatter`. See
    /// [`reference::tensor_scatter`](crate::reference::tensor_scatter).
    ///
    /// `past_cache` is `[batch, outer, cache_len, inner]`, `update` is `[batch, outer, update_len, inner]`, both rounded to the
    /// descriptor's `dtype`; `write_indices` is `[batch]`, if the descriptor names them. What becomes of rows that do not
    /// fit is the descriptor's [`ScatterMode`]: nothing is ever written outside of a sequence's rows.
    ///
    /// ```
    /// use wgpu_attention::{Engine, TensorScatterDescriptor};
    ///
    /// let engine = Engine::new()?;
    /// // Two sequences of three rows of one number; one new row each.
    /// let descriptor = TensorScatterDescriptor::new(2, 1, 3, 1, 1);
    /// let past = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    /// let present = engine.tensor_scatter(&descriptor, &past, &[8.0, 9.0], Some(&[0, 2]))?;
    /// assert_eq!(present, [8.0, 2.0, 3.0, 4.0, 5.0, 9.0]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare_tensor_scatter`](Self::prepare_tensor_scatter), and slices of another length than the descriptor says.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn tensor_scatter(
        &self,
        descriptor: &TensorScatterDescriptor<'_>,
        past_cache: &[f32],
        update: &[f32],
        write_indices: Option<&[i64]>,
    ) -> Result<Vec<f32>> {
        pollster::block_on(self.tensor_scatter_waiting(descriptor, past_cache, update, write_indices, Wait::Here))
    }

    /// As [`tensor_scatter`](Self::tensor_scatter), for where blocking is not possible.
    pub async fn tensor_scatter_async(
        &self,
        descriptor: &TensorScatterDescriptor<'_>,
        past_cache: &[f32],
        update: &[f32],
        write_indices: Option<&[i64]>,
    ) -> Result<Vec<f32>> {
        self.tensor_scatter_waiting(descriptor, past_cache, update, write_indices, Wait::Elsewhere)
            .await
    }

    async fn tensor_scatter_waiting(
        &self,
        descriptor: &TensorScatterDescriptor<'_>,
        past_cache: &[f32],
        update: &[f32],
        write_indices: Option<&[i64]>,
        wait: Wait,
    ) -> Result<Vec<f32>> {
        let lengths = [past_cache.len(), update.len()];
        validate_lengths(descriptor, lengths, write_indices.map(<[i64]>::len))?;
        let scatter = self.prepare_tensor_scatter_async(descriptor).await?;
        let upload = async |data: &[f32]| self.upload_bytes_async(&descriptor.dtype.narrow(data)).await;
        let (past_cache, update) = (upload(past_cache).await?, upload(update).await?);
        let write_indices = match write_indices {
            None => None,
            Some(indices) => {
                let indices: Vec<i32> = indices.iter().map(|&index| narrow_index(descriptor, index)).collect();
                Some(self.upload_bytes_async(bytemuck::cast_slice(&indices)).await?)
            }
        };
        let inputs = TensorScatterInputs {
            write_indices: write_indices.as_ref().map(Into::into),
            ..TensorScatterInputs::new(&past_cache, &update)
        };
        let present = scatter.run_waiting(&inputs, wait).await?;
        let bytes = readback::read_bytes(self.gpu(), present.buffer(), present.bytes(), wait).await?;
        Ok(descriptor.dtype.widen(&bytes))
    }
}

/// A write index in 32 bits that means the same: far outside is outside, and a circle begins anew.
fn narrow_index(descriptor: &TensorScatterDescriptor<'_>, index: i64) -> i32 {
    let index = match descriptor.mode {
        ScatterMode::Linear => index.clamp(i32::MIN.into(), i32::MAX.into()),
        ScatterMode::Circular => index.rem_euclid(descriptor.cache_len.max(1).into()),
    };
    // A cache has at most 2^30 rows.
    index as i32
}

/// Fails unless cache, update and write indices are as long as the descriptor says.
pub(crate) fn validate_lengths(
    descriptor: &TensorScatterDescriptor<'_>,
    [past_cache, update]: [usize; 2],
    write_indices: Option<usize>,
) -> Result<()> {
    let sizes = descriptor.sizes()?;
    let operand = Operand::WriteIndices;
    match (descriptor.write_indices, write_indices) {
        (true, None) => return Err(Error::MissingOperand { operand }),
        (false, Some(_)) => return Err(Error::UnexpectedOperand { operand }),
        _ => {}
    }
    let write_indices = write_indices.map_or(sizes.batch, |len| len as u64);
    for (operand, actual, expected) in [
        (Operand::PastCache, past_cache as u64, sizes.cache()),
        (Operand::Update, update as u64, sizes.update()),
        (Operand::WriteIndices, write_indices, sizes.batch),
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

impl TensorScatter {
    /// Binds the update to buffers: makes its parameters and bind groups, so that encoding makes nothing. The present cache
    /// must share its buffer with nothing that is read; without a past cache it is updated in place.
    ///
    /// # Errors
    /// Missing, unexpected, too small, misplaced or shared buffers, each by operand.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind<'a>(
        &self,
        inputs: &TensorScatterInputs<'a>,
        present_cache: impl Into<BufferAt<'a>>,
    ) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(inputs, present_cache))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async<'a>(
        &self,
        inputs: &TensorScatterInputs<'a>,
        present_cache: impl Into<BufferAt<'a>>,
    ) -> Result<BoundAttention> {
        let present = (Operand::PresentCache, Some(present_cache.into()));
        let update = self
            .update
            .bind(&[
                (Operand::Update, Some(inputs.update)),
                (Operand::WriteIndices, inputs.write_indices),
                present,
            ])
            .await?;
        if inputs.past_cache.is_none() {
            return Ok(update);
        }
        let mut bound = self
            .copy
            .bind(&[(Operand::PastCache, inputs.past_cache), present])
            .await?;
        bound.append(update);
        if self.short {
            bound.runs = std::iter::once(0..bound.dispatches.len()).collect();
        }
        Ok(bound)
    }

    /// Runs on GPU data, and gives back the present cache: the past one's buffer is left alone, and without a past cache the
    /// new rows lie among zeros. Submits, and waits only for what long calls need between their pieces.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, inputs: &TensorScatterInputs<'_>) -> Result<Tensor> {
        pollster::block_on(self.run_waiting(inputs, Wait::Here))
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, inputs: &TensorScatterInputs<'_>) -> Result<Tensor> {
        self.run_waiting(inputs, Wait::Elsewhere).await
    }

    async fn run_waiting(&self, inputs: &TensorScatterInputs<'_>, wait: Wait) -> Result<Tensor> {
        let engine = self.update.engine();
        let present = engine.allocate_async(self.update.bytes(Operand::PresentCache)).await?;
        let bound = self.bind_async(inputs, &present).await?;
        engine.run_bound(&bound, wait).await?;
        Ok(present)
    }
}
