//! Multi-head attention with its projections: `W_o · concat(heads of softmax(W_q x (W_k x)ᵀ) W_v x)`, all on the GPU.
//!
//! Heads are split and joined by strides: the projections write `[batch, seqlen, heads, head_dim]`, and attention reads it.

mod call;
mod parameters;

pub use call::{HeadWeights, MultiHeadCall, MultiHeadInputs, MultiHeadOutput};
pub use parameters::{MultiHeadDescriptor, MultiHeadParameters};

use crate::attention::Attention;
use crate::encode::{Binder, BoundAttention, Operands};
use crate::engine::Engine;
use crate::error::{Error, Operand, Result};
use crate::plan::Plan;
use crate::problem::{AttentionDescriptor, Linear, Problem};
use crate::readback::Wait;
use crate::tensor::{BufferAt, Inputs, OutputBuffers, Tensor};

/// A multi-head attention block with its weights on the GPU: PyTorch's `nn.MultiheadAttention`, forward.
///
/// ```no_run
/// use wgpu_attention::{Engine, MultiHeadAttention, MultiHeadCall, MultiHeadDescriptor, MultiHeadInputs};
/// use wgpu_attention::{HeadWeights, MultiHeadParameters};
///
/// let descriptor = MultiHeadDescriptor::new(512, 8); // 8 heads of 64
/// let file = std::fs::read("mha.safetensors").unwrap();
/// let parameters = MultiHeadParameters::from_safetensors(&file, "", &descriptor)?;
/// let block = MultiHeadAttention::new(&Engine::new()?, &descriptor, &parameters)?;
///
/// let x = vec![0.0; 6 * 512]; // one sentence of 6 words
/// let call = MultiHeadCall { weights: HeadWeights::Averaged, ..MultiHeadCall::self_attention(1, 6) };
/// let output = block.forward(&call, &MultiHeadInputs::self_attention(&x))?;
/// assert_eq!(output.output.len(), 6 * 512);
/// assert_eq!(output.weights.unwrap().len(), 6 * 6);
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MultiHeadAttention {
    engine: Engine,
    descriptor: MultiHeadDescriptor<'static>,
    query: Projection,
    key: Projection,
    value: Projection,
    out: Projection,
    appended: Option<[Vec<f32>; 2]>,
}

#[derive(Clone, Debug)]
struct Projection {
    weight: Tensor,
    bias: Option<Tensor>,
    in_features: u32,
}

/// The operands of a call on the GPU.
#[derive(Clone, Copy, Debug)]
pub struct MultiHeadBuffers<'a> {
    /// `[batch, seqlen_q, embed_dim]`.
    pub query: BufferAt<'a>,
    /// `[batch, seqlen_k, key_dim]`; may be the query's.
    pub key: BufferAt<'a>,
    /// `[batch, seqlen_k, value_dim]`; may be the query's or the key's.
    pub value: BufferAt<'a>,
    /// The boolean mask, if the call names one.
    pub mask: Option<BufferAt<'a>>,
    /// The additive bias, if the call names one.
    pub bias: Option<BufferAt<'a>>,
    /// The key padding, if the call names one.
    pub key_padding: Option<BufferAt<'a>>,
    /// `[batch, seqlen_q, embed_dim]`, written.
    pub output: BufferAt<'a>,
    /// The weights, written, if the call asks for them; their keys include appended ones.
    pub weights: Option<BufferAt<'a>>,
}

/// A call that is planned and compiled, with its intermediate tensors. Made by [`MultiHeadAttention::prepare`].
#[derive(Clone, Debug)]
pub struct PreparedMultiHead {
    block: MultiHeadAttention,
    call: MultiHeadCall,
    attention: Attention,
    projections: [Plan; 4],
    average: Option<Plan>,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    context: Tensor,
    head_weights: Option<Tensor>,
}

impl MultiHeadAttention {
    /// Copies the parameters to the GPU.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(
        engine: &Engine,
        descriptor: &MultiHeadDescriptor<'_>,
        parameters: &MultiHeadParameters,
    ) -> Result<Self> {
        pollster::block_on(Self::new_async(engine, descriptor, parameters))
    }

    /// As [`new`](Self::new), for where blocking is not possible.
    pub async fn new_async(
        engine: &Engine,
        descriptor: &MultiHeadDescriptor<'_>,
        parameters: &MultiHeadParameters,
    ) -> Result<Self> {
        parameters.validate(descriptor)?;
        let MultiHeadDescriptor {
            embed_dim,
            key_dim,
            value_dim,
            ..
        } = *descriptor;
        let project = async |weight: &[f32], bias: &Option<Vec<f32>>, in_features| -> Result<Projection> {
            let bias = match bias {
                None => None,
                Some(bias) => Some(engine.upload_async(bias).await?),
            };
            Ok(Projection {
                weight: engine.upload_async(weight).await?,
                bias,
                in_features,
            })
        };
        Ok(Self {
            query: project(&parameters.query_weight, &parameters.query_bias, embed_dim).await?,
            key: project(&parameters.key_weight, &parameters.key_bias, key_dim).await?,
            value: project(&parameters.value_weight, &parameters.value_bias, value_dim).await?,
            out: project(&parameters.out_weight, &parameters.out_bias, embed_dim).await?,
            appended: parameters.appended.clone(),
            descriptor: MultiHeadDescriptor {
                label: None,
                ..*descriptor
            },
            engine: engine.clone(),
        })
    }

    /// Keys that the block itself appends to those of a call.
    pub fn appended_keys(&self) -> u32 {
        u32::from(self.appended.is_some()) + u32::from(self.descriptor.add_zero_attn)
    }

    fn attention_descriptor(&self, call: &MultiHeadCall) -> Result<AttentionDescriptor<'static>> {
        call.attention(&self.descriptor, self.appended_keys())
    }

    /// Plans and compiles a call, and allocates what lies between its stages.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare(&self, call: &MultiHeadCall) -> Result<PreparedMultiHead> {
        pollster::block_on(self.prepare_async(call))
    }

    /// As [`prepare`](Self::prepare), for where blocking is not possible.
    pub async fn prepare_async(&self, call: &MultiHeadCall) -> Result<PreparedMultiHead> {
        let engine = &self.engine;
        let attention = engine.prepare_async(&self.attention_descriptor(call)?).await?;
        let shape = attention.plan().problem().shape();
        let embed = self.descriptor.embed_dim;
        let projections = [
            self.projection_plan(&self.query, call, call.seqlen_q, call.seqlen_q)?,
            self.projection_plan(&self.key, call, call.seqlen_k, shape.seqlen_k)?,
            self.projection_plan(&self.value, call, call.seqlen_k, shape.seqlen_k)?,
            self.out_plan(call)?,
        ];
        let average = match call.weights {
            HeadWeights::Averaged => {
                let problem = Problem::average_heads(call.batch, shape.heads, call.seqlen_q, shape.seqlen_k)?;
                Some(Plan::average_heads(&problem, engine.caps())?)
            }
            _ => None,
        };
        for plan in projections.iter().chain(&average) {
            for pass in plan.passes() {
                engine
                    .pipelines()
                    .get_or_create(engine.gpu(), plan.kernel(pass))
                    .await?;
            }
        }
        let rows_bytes = |rows: u32| 4 * u64::from(call.batch) * u64::from(rows) * u64::from(embed);
        let head_weights = match (&average, attention.plan().problem().span_bytes(Operand::Weights)) {
            (Some(_), Some(bytes)) => Some(engine.allocate_async(bytes).await?),
            _ => None,
        };
        let prepared = PreparedMultiHead {
            block: self.clone(),
            call: *call,
            projections,
            average,
            query: engine.allocate_async(rows_bytes(call.seqlen_q)).await?,
            key: engine.allocate_async(rows_bytes(shape.seqlen_k)).await?,
            value: engine.allocate_async(rows_bytes(shape.seqlen_k)).await?,
            context: engine.allocate_async(rows_bytes(call.seqlen_q)).await?,
            head_weights,
            attention,
        };
        prepared.write_appended().await?;
        Ok(prepared)
    }

    /// One call on host slices: upload, run, read back.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn forward(&self, call: &MultiHeadCall, inputs: &MultiHeadInputs<'_>) -> Result<MultiHeadOutput> {
        pollster::block_on(self.forward_waiting(call, inputs, Wait::Here))
    }

    /// As [`forward`](Self::forward), for where blocking is not possible.
    pub async fn forward_async(&self, call: &MultiHeadCall, inputs: &MultiHeadInputs<'_>) -> Result<MultiHeadOutput> {
        self.forward_waiting(call, inputs, Wait::Elsewhere).await
    }

    async fn forward_waiting(
        &self,
        call: &MultiHeadCall,
        inputs: &MultiHeadInputs<'_>,
        wait: Wait,
    ) -> Result<MultiHeadOutput> {
        let engine = &self.engine;
        let problem = Problem::new(&self.attention_descriptor(call)?)?;
        inputs.validate(call, &self.descriptor, &problem)?;
        let prepared = self.prepare_async(call).await?;
        let upload = async |data: Option<&[u8]>| match data {
            None => Ok(None),
            Some(bytes) => engine.upload_bytes_async(bytes).await.map(Some),
        };
        let query = engine.upload_async(inputs.query).await?;
        let key = upload(inputs.key.map(bytemuck::cast_slice)).await?;
        let value = upload(inputs.value.map(bytemuck::cast_slice)).await?;
        let mask = upload(inputs.mask).await?;
        let bias = upload(inputs.bias.map(bytemuck::cast_slice)).await?;
        let key_padding = upload(inputs.key_padding.map(|padding| padding.bytes())).await?;
        let output = engine.allocate_async(prepared.context.bytes()).await?;
        let weights = match prepared.weights_bytes() {
            0 => None,
            bytes => Some(engine.allocate_async(bytes).await?),
        };
        let key = key.as_ref().unwrap_or(&query);
        let bound = prepared
            .bind_async(&MultiHeadBuffers {
                query: (&query).into(),
                key: key.into(),
                value: value.as_ref().unwrap_or(key).into(),
                mask: mask.as_ref().map(Into::into),
                bias: bias.as_ref().map(Into::into),
                key_padding: key_padding.as_ref().map(Into::into),
                output: (&output).into(),
                weights: weights.as_ref().map(Into::into),
            })
            .await?;
        engine.run_bound(&bound, wait).await?;
        Ok(MultiHeadOutput {
            output: engine.read_waiting(&output, wait).await?,
            context: engine.read_waiting(&prepared.context, wait).await?,
            weights: match &weights {
                None => None,
                Some(weights) => Some(engine.read_waiting(weights, wait).await?),
            },
        })
    }

    /// Input rows to `[batch, total_rows, embed_dim]`, of which the projection writes the first `rows`.
    fn projection_plan(&self, to: &Projection, call: &MultiHeadCall, rows: u32, total_rows: u32) -> Result<Plan> {
        let embed = self.descriptor.embed_dim;
        self.linear_plan(&Linear {
            batch: call.batch,
            rows,
            in_features: to.in_features,
            out_features: embed,
            input: input_strides(call, rows, to.in_features)?,
            output: [product(total_rows, embed)?, embed],
            bias: to.bias.is_some(),
        })
    }

    fn out_plan(&self, call: &MultiHeadCall) -> Result<Plan> {
        let embed = self.descriptor.embed_dim;
        self.linear_plan(&Linear {
            batch: call.batch,
            rows: call.seqlen_q,
            in_features: embed,
            out_features: embed,
            input: [product(call.seqlen_q, embed)?, embed],
            output: input_strides(call, call.seqlen_q, embed)?,
            bias: self.out.bias.is_some(),
        })
    }

    fn linear_plan(&self, linear: &Linear) -> Result<Plan> {
        Plan::linear(&Problem::linear(linear)?, self.engine.caps())
    }
}

/// Strides of batch and row in a call's inputs and output.
fn input_strides(call: &MultiHeadCall, rows: u32, channels: u32) -> Result<[u32; 2]> {
    Ok(if call.sequence_first {
        [channels, product(call.batch, channels)?]
    } else {
        [product(rows, channels)?, channels]
    })
}

fn product(a: u32, b: u32) -> Result<u32> {
    a.checked_mul(b).ok_or(Error::IndexOverflow {
        operand: Operand::Projection,
        elements: u64::from(a) * u64::from(b),
        limit: u32::MAX.into(),
    })
}

impl PreparedMultiHead {
    /// What was decided for the attention itself.
    pub fn plan(&self) -> &Plan {
        self.attention.plan()
    }

    /// Bytes of the weights that the call hands out; 0 when it hands out none.
    pub fn weights_bytes(&self) -> u64 {
        let bytes = self.plan().problem().span_bytes(Operand::Weights).unwrap_or(0);
        match self.call.weights {
            HeadWeights::Averaged => bytes / u64::from(self.block.descriptor.heads),
            HeadWeights::PerHead => bytes,
            HeadWeights::None => 0,
        }
    }

    /// Binds the call to buffers: makes its parameters and bind groups, so that encoding makes nothing.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn bind(&self, buffers: &MultiHeadBuffers<'_>) -> Result<BoundAttention> {
        pollster::block_on(self.bind_async(buffers))
    }

    /// As [`bind`](Self::bind), for where blocking is not possible.
    pub async fn bind_async(&self, buffers: &MultiHeadBuffers<'_>) -> Result<BoundAttention> {
        let wanted = self.call.weights != HeadWeights::None;
        match buffers.weights {
            Some(_) if !wanted => {
                return Err(Error::UnexpectedOperand {
                    operand: Operand::Weights,
                });
            }
            None if wanted => {
                return Err(Error::MissingOperand {
                    operand: Operand::Weights,
                });
            }
            _ => {}
        }
        let mut bound = BoundAttention::default();
        let block = &self.block;
        let [query_plan, key_plan, value_plan, out_plan] = &self.projections;
        for (operand, plan, projection, input, output) in [
            (Operand::Query, query_plan, &block.query, buffers.query, &self.query),
            (Operand::Key, key_plan, &block.key, buffers.key, &self.key),
            (Operand::Value, value_plan, &block.value, buffers.value, &self.value),
        ] {
            let linear = self.bind_linear(plan, projection, input, output.into()).await;
            bound.append(linear.map_err(|error| error.naming(operand))?);
        }
        let inputs = Inputs {
            mask: buffers.mask,
            bias: buffers.bias,
            key_padding: buffers.key_padding,
            ..Inputs::new(&self.query, &self.key, &self.value)
        };
        let weights = self.head_weights.as_ref().map(Into::into).or(buffers.weights);
        let outputs = OutputBuffers {
            weights,
            ..OutputBuffers::new(&self.context)
        };
        bound.append(self.attention.bind_async(&inputs, &outputs).await?);
        if let (Some(plan), Some(from)) = (&self.average, &self.head_weights) {
            let operands = Operands::default()
                .with(Operand::Weights, Some(from.into()))
                .with(Operand::Out, buffers.weights);
            let average = self.binder(plan).bind(&operands).await;
            bound.append(average.map_err(|error| error.naming(Operand::Weights))?);
        }
        let context = (&self.context).into();
        let linear = self.bind_linear(out_plan, &block.out, context, buffers.output).await;
        bound.append(linear.map_err(|error| error.naming(Operand::Out))?);
        bound.keep(self);
        Ok(bound)
    }

    async fn bind_linear<'a>(
        &'a self,
        plan: &Plan,
        projection: &'a Projection,
        input: BufferAt<'a>,
        output: BufferAt<'a>,
    ) -> Result<BoundAttention> {
        let operands = Operands::default()
            .with(Operand::Query, Some(input))
            .with(Operand::Key, Some((&projection.weight).into()))
            .with(Operand::Bias, projection.bias.as_ref().map(Into::into))
            .with(Operand::Weights, Some(output));
        self.binder(plan).bind(&operands).await
    }

    fn binder<'a>(&'a self, plan: &'a Plan) -> Binder<'a> {
        let engine = &self.block.engine;
        let (gpu, caps, pipelines) = (engine.gpu(), engine.caps(), engine.pipelines());
        Binder {
            gpu,
            caps,
            pipelines,
            plan,
            prepared: &[],
            scores: None,
            lse_planes: None,
            partial: None,
            parts: None,
            part_lse: None,
            tile_lists: None,
            rope_steps: None,
        }
    }

    /// Writes the learned key and value behind those of each sequence. Zeros need no writing: tensors are made of them.
    async fn write_appended(&self) -> Result<()> {
        let Some(rows) = &self.block.appended else {
            return Ok(());
        };
        let total_rows = u64::from(self.plan().problem().shape().seqlen_k);
        let row_bytes = 4 * u64::from(self.block.descriptor.embed_dim);
        let gpu = self.block.engine.gpu();
        gpu.scoped("write the appended keys", || {
            for (tensor, row) in [&self.key, &self.value].into_iter().zip(rows) {
                for batch in 0..u64::from(self.call.batch) {
                    let at = (batch * total_rows + u64::from(self.call.seqlen_k)) * row_bytes;
                    gpu.queue.write_buffer(tensor.buffer(), at, bytemuck::cast_slice(row));
                }
            }
        })
        .await
    }
}

impl BoundAttention {
    /// Counts a call's intermediate tensors as in use as long as this lives.
    fn keep(&mut self, prepared: &PreparedMultiHead) {
        let tensors = [&prepared.query, &prepared.key, &prepared.value, &prepared.context];
        let tensors = tensors.into_iter().chain(&prepared.head_weights);
        self.buffers.extend(tensors.map(|tensor| tensor.buffer.clone()));
    }
}
