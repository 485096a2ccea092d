//! Rotary position embedding: pairs of channels of query and key turned by angles that grow with the position, so that scores
//! depend on how far apart two tokens are.

mod frequencies;
pub(crate) mod plan;
mod problem;

pub use frequencies::{RopeConfig, RopeFrequencies, RopeLlama3, RopeLongRope, RopeScaling, RopeYarn};
pub use problem::{
    RopeAngles, RopeDTypes, RopeDescriptor, RopeHostInputs, RopeLayouts, RopePairing, RopePositions, RopeProblem,
};

use crate::encode::BoundAttention;
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::kernel::params::RopeParams;
use crate::operation::PreparedOperation;
use crate::problem::DType;
use crate::readback::{self, Wait};
use crate::tensor::{BufferAt, Tensor};

/// A rotation that is planned and compiled, with its frequencies on the GPU. Made by [`Engine::prepare_rope`]; good for any
/// number of runs.
///
/// The angle of a row is exact at any position: its frequency is held in 2^-64 turns and multiplied in whole numbers, and only
/// the part within an eighth of a turn becomes an `f32`. What is left is the error of cos and sin themselves, about 1e-7.
///
/// ```
/// use wgpu_attention::{Engine, RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies, RopeInputs, RopePositions};
///
/// let engine = Engine::new()?;
/// let frequencies = RopeFrequencies::new(&RopeConfig::new(64))?;
/// // One token a step: its position lies in a buffer, so that one bound call serves every step.
/// let rope = engine.prepare_rope(&RopeDescriptor {
///     positions: RopePositions::SharedIds,
///     in_place: true,
///     ..RopeDescriptor::new([1, 8, 1, 64], RopeAngles::Frequencies(&frequencies))
/// })?;
/// let query = engine.upload(&vec![0.5; 8 * 64])?;
/// let position = engine.upload_bytes(&0i32.to_le_bytes())?;
/// let inputs = RopeInputs { position_ids: Some((&position).into()), ..RopeInputs::in_place() };
/// let bound = rope.bind(&inputs, &query)?;
/// for step in 0..3i32 {
///     engine.queue().write_buffer(position.buffer(), 0, &step.to_le_bytes());
///     engine.run(&bound)?;
/// }
/// // Turned by 0 + 1 + 2 positions, of which each turns the first pair by one radian.
/// let first = engine.read(&query)?[0];
/// assert!((f64::from(first) - 0.5 * (3f64.cos() - 3f64.sin())).abs() < 1e-6);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rope {
    problem: RopeProblem,
    prepared: PreparedOperation<RopeParams>,
    /// What the kernel computes angles from.
    steps: Option<Tensor>,
}

/// The operands that a rotation reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct RopeInputs<'a> {
    /// `[batch, heads, seqlen, head_dim]` in the descriptor's layout and storage type; `None` in place, where out is x.
    pub x: Option<BufferAt<'a>>,
    /// `[batch, seqlen]` or `[seqlen]`, `i32`, if the descriptor names them. (`u32` below 2³¹ is the same.) A position
    /// outside of the caches makes its row's rotated channels NaN.
    pub position_ids: Option<BufferAt<'a>>,
    /// `[max_positions, rotary_dim / 2]` or `[batch, seqlen, rotary_dim / 2]`, if the descriptor names it.
    pub cos: Option<BufferAt<'a>>,
    /// As cos.
    pub sin: Option<BufferAt<'a>>,
}

impl<'a> RopeInputs<'a> {
    /// x and nothing else.
    pub fn new(x: impl Into<BufferAt<'a>>) -> Self {
        Self {
            x: Some(x.into()),
            ..Self::default()
        }
    }

    /// Nothing: x is out.
    pub fn in_place() -> Self {
        Self::default()
    }
}

impl Engine {
    /// Plans a rotation, compiles what is not compiled yet and copies the frequencies to the GPU.
    ///
    /// # Errors
    /// Those of [`RopeProblem::new`]; a row, or cos and sin by position, that no binding of the device holds.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare_rope(&self, descriptor: &RopeDescriptor<'_>) -> Result<Rope> {
        pollster::block_on(self.prepare_rope_async(descriptor))
    }

    /// As [`prepare_rope`](Self::prepare_rope), for where blocking is not possible.
    pub async fn prepare_rope_async(&self, descriptor: &RopeDescriptor<'_>) -> Result<Rope> {
        let problem = RopeProblem::new(descriptor)?;
        let prepared = PreparedOperation::new(self, plan::plan(&problem, self.caps(), false)?).await?;
        let steps = match problem.frequencies() {
            None => None,
            Some(frequencies) => {
                let steps = plan::steps(frequencies.inv_freq());
                Some(self.upload_bytes_async(bytemuck::cast_slice(&steps)).await?)
            }
        };
        Ok(Rope {
            problem,
            prepared,
            steps,
        })
    }

    /// Rotates host slices: upload, run, read back. The result lies in memory by out's layout; gaps between its elements are
    /// 0, or x's own in place. See [`reference::rope`](crate::reference::rope).
    ///
    /// ```
    /// use wgpu_attention::{Engine, RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies, RopeHostInputs};
    ///
    /// let engine = Engine::new()?;
    /// let frequencies = RopeFrequencies::new(&RopeConfig::new(64))?;
    /// let descriptor = RopeDescriptor::new([1, 8, 6, 64], RopeAngles::Frequencies(&frequencies));
    /// let x = vec![0.5; 8 * 6 * 64];
    /// let out = engine.rope(&descriptor, &RopeHostInputs { x: &x, ..Default::default() })?;
    /// assert_eq!(out[..64], x[..64]); // position 0
    /// assert_ne!(out[64..128], x[64..128]);
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare_rope`](Self::prepare_rope); slices of another length than the descriptor says, and positions outside of
    /// the caches.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn rope(&self, descriptor: &RopeDescriptor<'_>, inputs: &RopeHostInputs<'_>) -> Result<Vec<f32>> {
        pollster::block_on(self.rope_waiting(descriptor, inputs, Wait::Here))
    }

    /// As [`rope`](Self::rope), for where blocking is not possible.
    pub async fn rope_async(&self, descriptor: &RopeDescriptor<'_>, inputs: &RopeHostInputs<'_>) -> Result<Vec<f32>> {
        self.rope_waiting(descriptor, inputs, Wait::Elsewhere).await
    }

    async fn rope_waiting(
        &self,
        descriptor: &RopeDescriptor<'_>,
        inputs: &RopeHostInputs<'_>,
        wait: Wait,
    ) -> Result<Vec<f32>> {
        inputs.validate(&RopeProblem::new(descriptor)?)?;
        let rope = self.prepare_rope_async(descriptor).await?;
        let dtypes = rope.problem.dtypes();
        let upload = async |bytes: Option<Vec<u8>>| match bytes {
            None => Ok(None),
            Some(bytes) => self.upload_bytes_async(&bytes).await.map(Some),
        };
        let x = self.upload_bytes_async(&dtypes.x.narrow(inputs.x)).await?;
        let position_ids = upload(inputs.position_ids.map(|ids| bytemuck::cast_slice(ids).to_vec())).await?;
        let cos = upload(inputs.cos.map(|cos| dtypes.cache.narrow(cos))).await?;
        let sin = upload(inputs.sin.map(|sin| dtypes.cache.narrow(sin))).await?;
        let in_place = rope.problem.in_place();
        let out = match in_place {
            true => x.clone(),
            false => self.allocate_async(rope.prepared.bytes(Operand::Out)).await?,
        };
        let gpu_inputs = RopeInputs {
            x: (!in_place).then_some((&x).into()),
            position_ids: position_ids.as_ref().map(Into::into),
            cos: cos.as_ref().map(Into::into),
            sin: sin.as_ref().map(Into::into),
        };
        let bound = rope.bind_async(&gpu_inputs, &out).await?;
        self.run_bound(&bound, wait).await?;
        let bytes = readback::read_bytes(self.gpu(), out.buffer(), out.bytes(), wait).await?;
        Ok(dtypes.out.widen(&bytes))
    }
}

impl Rope {
    /// What is rotated.
    pub fn problem(&self) -> &RopeProblem {
        &self.problem
    }

    /// Binds the rotation to buffers: makes its parameters and bind groups, so that encoding makes nothing. The contents of
    /// the buffers may change between encodings, those of position_ids too.
    ///
    /// # Errors
    /// Missing, unexpected, too small, misplaced or shared buffers, each by operand.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind<'a>(&self, inputs: &RopeInputs<'a>, out: impl Into<BufferAt<'a>>) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(inputs, out))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async<'a>(
        &self,
        inputs: &RopeInputs<'a>,
        out: impl Into<BufferAt<'a>>,
    ) -> Result<BoundAttention> {
        let out = out.into();
        let operands = [
            (Operand::Out, Some(out)),
            (Operand::X, inputs.x),
            (Operand::PositionIds, inputs.position_ids),
            (Operand::Frequencies, self.steps.as_ref().map(Into::into)),
            (Operand::Cos, inputs.cos),
            (Operand::Sin, inputs.sin),
        ];
        // Only a half type may begin in the middle of a word; then another kernel writes it.
        let begins_odd = self.problem.dtypes().out != DType::F32 && out.offset_bytes % 4 == 2;
        let mut bound = match begins_odd {
            false => self.prepared.bind(&operands).await?,
            true => {
                let engine = self.prepared.engine();
                let operation = plan::plan(&self.problem, engine.caps(), true)?;
                PreparedOperation::new(engine, operation).await?.bind(&operands).await?
            }
        };
        bound
            .buffers
            .extend(self.steps.iter().map(|steps| steps.buffer.clone()));
        Ok(bound)
    }

    /// Runs on GPU data, into a tensor made for it. Submits, and waits only for what long calls need between their pieces.
    ///
    /// # Errors
    /// As [`bind`](Self::bind); a rotation in place has its tensor already: bind it and [run](Engine::run) that.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, inputs: &RopeInputs<'_>) -> Result<Tensor> {
        pollster::block_on(self.run_waiting(inputs, Wait::Here))
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, inputs: &RopeInputs<'_>) -> Result<Tensor> {
        self.run_waiting(inputs, Wait::Elsewhere).await
    }

    async fn run_waiting(&self, inputs: &RopeInputs<'_>, wait: Wait) -> Result<Tensor> {
        if self.problem.in_place() {
            return Err(Error::Unsupported {
                what: "running a rotation in place into a new tensor".into(),
                why: "it rotates the tensor that it is bound to; bind it and run that".into(),
            });
        }
        let engine = self.prepared.engine();
        let out = engine.allocate_async(self.prepared.bytes(Operand::Out)).await?;
        let bound = self.bind_async(inputs, &out).await?;
        engine.run_bound(&bound, wait).await?;
        Ok(out)
    }
}
