//! A prepared attention call: planned and compiled, ready for any buffers of its sizes.

use std::sync::Arc;

use crate::encode::{Binder, BoundAttention, Operands};
use crate::engine::Engine;
use crate::error::{Operand, Result};
use crate::gpu::CountedBuffer;
use crate::pipeline::Pipeline;
use crate::plan::Plan;
use crate::readback::Wait;
use crate::rope::plan as rope_plan;
use crate::tensor::{Inputs, OutputBuffers, OutputTensors, Tensor};

/// A call that is planned and compiled, with its workspace. Made by [`Engine::prepare`]; good for any number of runs.
///
/// Calls bound from one `Attention` share its workspace, so record them into queues of one device in order, as wgpu does.
#[derive(Clone, Debug)]
pub struct Attention {
    engine: Engine,
    plan: Plan,
    /// One of each pass, for operands that begin at multiples of eight elements.
    pipelines: Vec<Arc<Pipeline>>,
    scores: Option<CountedBuffer>,
    lse_planes: Option<CountedBuffer>,
    partial: Option<CountedBuffer>,
    parts: Option<CountedBuffer>,
    part_lse: Option<CountedBuffer>,
    tile_lists: Option<CountedBuffer>,
    rope_steps: Option<CountedBuffer>,
}

impl Attention {
    pub(crate) async fn new(engine: &Engine, plan: Plan) -> Result<Self> {
        let mut pipelines = Vec::new();
        for pass in plan.passes() {
            let pipeline = engine.pipelines().get_or_create(engine.gpu(), plan.kernel(pass));
            pipelines.push(pipeline.await?);
        }
        let workspace = *plan.workspace();
        let scores = allocate(engine, "attention scores", workspace.scores_bytes).await?;
        let planes_bytes = u64::from(workspace.lse_planes) * workspace.lse_plane_bytes;
        let lse_planes = allocate(engine, "attention lse", planes_bytes).await?;
        let partial = allocate(engine, "attention partial out", workspace.partial_bytes).await?;
        let parts = allocate(engine, "attention parts", workspace.parts_bytes).await?;
        let part_lse = allocate(engine, "attention lse of parts", workspace.part_lse_bytes).await?;
        let tile_lists = allocate(engine, "attention tile lists", workspace.tile_lists_bytes).await?;
        let rope_steps = match plan.problem().rope() {
            None => None,
            Some(rope) => {
                let steps = rope_plan::steps(rope.frequencies.inv_freq());
                let contents: &[u8] = bytemuck::cast_slice(&steps);
                let usage = wgpu::BufferUsages::STORAGE;
                let label = "attention rotary embedding";
                Some(
                    engine
                        .gpu()
                        .buffer(label, contents.len() as u64, usage, Some(contents))
                        .await?,
                )
            }
        };
        Ok(Self {
            engine: engine.clone(),
            plan,
            pipelines,
            scores,
            lse_planes,
            partial,
            parts,
            part_lse,
            tile_lists,
            rope_steps,
        })
    }

    /// What was decided.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Binds the call to buffers: makes its parameters and bind groups, so that encoding makes nothing.
    ///
    /// # Errors
    /// Missing, unexpected, too small, misplaced or shared buffers, each by operand.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind(&self, inputs: &Inputs<'_>, outputs: &OutputBuffers<'_>) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(inputs, outputs))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async(&self, inputs: &Inputs<'_>, outputs: &OutputBuffers<'_>) -> Result<BoundAttention> {
        self.binder().bind(&Operands::attention(inputs, outputs)).await
    }

    pub(crate) fn binder(&self) -> Binder<'_> {
        Binder {
            gpu: self.engine.gpu(),
            caps: self.engine.caps(),
            pipelines: self.engine.pipelines(),
            plan: &self.plan,
            prepared: &self.pipelines,
            scores: self.scores.as_ref(),
            lse_planes: self.lse_planes.as_ref(),
            partial: self.partial.as_ref(),
            parts: self.parts.as_ref(),
            part_lse: self.part_lse.as_ref(),
            tile_lists: self.tile_lists.as_ref(),
            rope_steps: self.rope_steps.as_ref(),
        }
    }

    /// Runs on GPU data, into tensors made for it. Submits, and waits only for what long calls need between their pieces.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, inputs: &Inputs<'_>) -> Result<OutputTensors> {
        pollster::block_on(self.run_waiting(inputs, Wait::Here))
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, inputs: &Inputs<'_>) -> Result<OutputTensors> {
        self.run_waiting(inputs, Wait::Elsewhere).await
    }

    pub(crate) async fn run_waiting(&self, inputs: &Inputs<'_>, wait: Wait) -> Result<OutputTensors> {
        let tensors = OutputTensors {
            out: self
                .output(Operand::Out)
                .await?
                .ok_or(crate::Error::MissingOperand { operand: Operand::Out })?,
            lse: self.output(Operand::Lse).await?,
            weights: self.output(Operand::Weights).await?,
            scores: self.output(Operand::Scores).await?,
        };
        let outputs = OutputBuffers {
            out: (&tensors.out).into(),
            lse: tensors.lse.as_ref().map(Into::into),
            weights: tensors.weights.as_ref().map(Into::into),
            scores: tensors.scores.as_ref().map(Into::into),
        };
        let bound = self.bind_async(inputs, &outputs).await?;
        self.engine.run_bound(&bound, wait).await?;
        Ok(tensors)
    }

    async fn output(&self, operand: Operand) -> Result<Option<Tensor>> {
        match self.plan.problem().span_bytes(operand) {
            None => Ok(None),
            Some(bytes) => self.engine.allocate_async(bytes).await.map(Some),
        }
    }
}

async fn allocate(engine: &Engine, label: &str, bytes: u64) -> Result<Option<CountedBuffer>> {
    match bytes {
        0 => Ok(None),
        _ => engine
            .gpu()
            .buffer(label, bytes, wgpu::BufferUsages::STORAGE, None)
            .await
            .map(Some),
    }
}
