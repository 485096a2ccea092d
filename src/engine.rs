//! The device, and the ways to run: one-shot on host slices, on tensors, and prepared for the caller's own encoder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::attention::Attention;
use crate::caps::{DeviceCaps, DeviceClass, Tier};
use crate::encode::BoundAttention;
use crate::error::{Error, Operand, Result};
use crate::gpu::{Gpu, MemoryUse};
use crate::kernel::binding_of;
#[cfg(not(target_arch = "wasm32"))]
use crate::matrices;
use crate::pipeline::{PipelineCache, TextOptions};
use crate::plan::Plan;
use crate::problem::{AttentionDescriptor, DType, HostInputs, Problem};
use crate::readback::{self, Wait};
#[cfg(not(target_arch = "wasm32"))]
use crate::store::{PipelineStore, user_folder, user_tuning};
use crate::tensor::{BufferAt, Inputs, Tensor};
use crate::tune::Tuning;

/// A device that attention runs on, with the kernels compiled so far. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gpu: Gpu,
    caps: DeviceCaps,
    pipelines: PipelineCache,
}

/// How to choose an adapter and a device.
#[derive(Clone, Debug, Default)]
pub struct EngineDescriptor<'a> {
    /// Part of the adapter's name, whatever the case; `None` is the environment's `WGPU_ADAPTER_NAME`, else the best there is.
    pub adapter_name: Option<&'a str>,
    /// Which backends to look at; `None` is the environment's `WGPU_BACKEND`, else all.
    pub backends: Option<wgpu::Backends>,
    /// Use no more than this tier allows.
    pub tier: Option<Tier>,
    /// Measurements that plans go by.
    pub tuning: TuningSource,
    /// Where the driver's compiled kernels are kept from run to run.
    pub pipelines: PipelineFolder<'a>,
}

/// Where an engine has its [`Tuning`] from. In a browser there are no files, and `User` is as `Off`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TuningSource {
    /// The file that `attn tune` wrote for this adapter, if there is one: [`Tuning::of_user`]. A file that is corrupt or stale is
    /// ignored with a warning.
    #[default]
    User,
    /// Only the built-in rows.
    Off,
    /// The program's own.
    Given(Arc<Tuning>),
}

/// Where an engine keeps wgpu's pipeline cache, on backends that have one (Vulkan). Files that are corrupt or of another driver, and
/// folders that cannot be written, are ignored with a warning. In a browser nothing is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PipelineFolder<'a> {
    /// The folder that the environment's `ATTN_PIPELINE_CACHE` names, nowhere if that is `off`, else `wgpu-attention` in the
    /// platform's cache folder.
    #[default]
    User,
    /// Nowhere.
    Off,
    /// Here; it is made if need be.
    At(&'a Path),
}

/// What a one-shot call gives back.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionOutput {
    /// `[batch, heads, seqlen_q, head_dim_v]` in the descriptor's layout; a narrower type than `f32` is widened.
    pub out: Vec<f32>,
    /// `[batch, heads, seqlen_q]`, if asked for.
    pub lse: Option<Vec<f32>>,
    /// `[batch, heads, rows, seqlen_k]`, if asked for.
    pub weights: Option<Vec<f32>>,
    /// `[batch, heads, rows, seqlen_k]`, if asked for.
    pub scores: Option<Vec<f32>>,
}

impl Engine {
    /// The best adapter: a real GPU before a software one. Honours `WGPU_ADAPTER_NAME` and `WGPU_BACKEND`.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] says what was found and what to install.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new() -> Result<Self> {
        Self::with(&EngineDescriptor::default())
    }

    /// As [`new`](Self::new), with choices.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn with(descriptor: &EngineDescriptor<'_>) -> Result<Self> {
        pollster::block_on(Self::with_async(descriptor))
    }

    /// As [`new`](Self::new), for where blocking is not possible.
    pub async fn new_async() -> Result<Self> {
        Self::with_async(&EngineDescriptor::default()).await
    }

    /// As [`with`](Self::with), for where blocking is not possible.
    pub async fn with_async(descriptor: &EngineDescriptor<'_>) -> Result<Self> {
        let adapter = choose_adapter(descriptor).await?;
        let engine = Self::from_adapter(&adapter).await?;
        let engine = match descriptor.tier {
            Some(tier) => engine.at_most(tier),
            None => engine,
        };
        let tuning = match &descriptor.tuning {
            TuningSource::Off => None,
            TuningSource::Given(tuning) => Some(Arc::clone(tuning)),
            TuningSource::User => user_tuning(engine.caps()).map(Arc::new),
        };
        Ok(engine.with_tuning(tuning).with_pipelines(descriptor.pipelines))
    }

    /// A device of our own on this adapter, with its best limits and the features that kernels may use; `EXPERIMENTAL_COOPERATIVE_MATRIX`
    /// is among them, and tested, where the adapter has it ([`DeviceCaps::matrix_shapes`]). Reads and writes no file:
    /// see [`with_tuning`](Self::with_tuning) and [`with_pipelines`](Self::with_pipelines).
    pub async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self> {
        let info = adapter.get_info();
        let useful = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SHADER_INT64
            | wgpu::Features::PIPELINE_CACHE;
        let plain_features = adapter.features() & useful;
        let required_limits = adapter.limits();
        let listed = adapter.cooperative_matrix_properties();
        let caps_with =
            |features| DeviceCaps::from_wgpu(&info, features, &required_limits).with_matrices(features, &listed);
        let mut required_features = plain_features;
        if !caps_with(adapter.features()).matrix_shapes.is_empty() {
            required_features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        }
        let mut requested = request_device(adapter, required_features, &required_limits).await;
        if requested.is_err() && required_features != plain_features {
            required_features = plain_features;
            requested = request_device(adapter, required_features, &required_limits).await;
        }
        let (device, queue) = requested.map_err(|error| Error::NoDevice {
            adapter: info.name.clone(),
            message: error.to_string(),
        })?;
        let caps = caps_with(required_features);
        tracing::info!(adapter = %caps.name, driver = %caps.driver, tier = %caps.tier, "using");
        let gpu = Gpu::owned(device, queue);
        #[cfg(not(target_arch = "wasm32"))]
        let caps = matrices::proven(&gpu, caps, Wait::Elsewhere).await;
        Ok(Self::assemble(gpu, caps))
    }

    /// Shares a device that the caller made, with the limits and features that it was made with.
    ///
    /// The device's lost callback and error handler stay the caller's. wgpu's errors during calls of this crate still
    /// come back as [`Error`]. Where the device has `EXPERIMENTAL_COOPERATIVE_MATRIX`, blocks until a short test of it has run. Reads and
    /// writes no file: see [`with_tuning`](Self::with_tuning) and
    /// [`with_pipelines`](Self::with_pipelines).
    pub fn from_wgpu(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let caps = DeviceCaps::from_wgpu(&adapter.get_info(), device.features(), &device.limits())
            .with_matrices(device.features(), &adapter.cooperative_matrix_properties());
        let gpu = Gpu::shared(device, queue);
        #[cfg(not(target_arch = "wasm32"))]
        let caps = pollster::block_on(matrices::proven(&gpu, caps, Wait::Here));
        Self::assemble(gpu, caps)
    }

    /// The same device with plans that use no more than a tier allows.
    #[must_use]
    pub fn at_most(&self, tier: Tier) -> Self {
        Self::assemble(self.shared.gpu.clone(), self.shared.caps.clone().at_most(tier))
    }

    /// The same device with plans made for these capabilities: lower limits than the device has, for tests.
    #[must_use]
    pub fn with_caps(&self, caps: DeviceCaps) -> Self {
        Self::assemble(self.shared.gpu.clone(), caps)
    }

    /// The same device with plans that try these measurements before the built-in rows, or none.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wgpu_attention::{Engine, Tuning};
    ///
    /// let adapter = wgpu_attention::adapters(None).remove(0);
    /// let engine = pollster::block_on(Engine::from_adapter(&adapter))?;
    /// // What `Engine::new` does by itself:
    /// let tuning = Tuning::of_user(engine.caps())?;
    /// let engine = engine.with_tuning(tuning.map(Arc::new));
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[must_use]
    pub fn with_tuning(&self, tuning: Option<Arc<Tuning>>) -> Self {
        self.with_caps(DeviceCaps {
            tuning,
            ..self.caps().clone()
        })
    }

    /// The same device with the driver's compiled kernels kept in a folder, as far as the device has `PIPELINE_CACHE`. They are
    /// read now, and written when the last engine and the last prepared call of this device go, or by
    /// [`save_pipelines`](Self::save_pipelines).
    #[must_use]
    pub fn with_pipelines(&self, folder: PipelineFolder<'_>) -> Self {
        #[cfg_attr(target_arch = "wasm32", allow(unused_mut, reason = "nothing is kept there"))]
        let mut gpu = self.shared.gpu.clone();
        #[cfg(not(target_arch = "wasm32"))]
        {
            let folder = match folder {
                PipelineFolder::Off => None,
                PipelineFolder::User => user_folder(),
                PipelineFolder::At(path) => Some(path.to_owned()),
            };
            let store = folder.and_then(|folder| PipelineStore::open(&gpu.device, &folder));
            gpu.store = store.map(Arc::new);
        }
        #[cfg(target_arch = "wasm32")]
        let _ = folder;
        Self::assemble(gpu, self.shared.caps.clone())
    }

    /// Writes the driver's compiled kernels now, if they are kept and there are new ones: for programs that never drop their engine.
    ///
    /// # Errors
    /// [`Error::File`] where the folder cannot be written.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save_pipelines(&self) -> Result<()> {
        self.shared.gpu.store.as_deref().map_or(Ok(()), PipelineStore::save)
    }

    /// The same device with kernels made of their texts in another way: for the tests that all compute the same.
    #[doc(hidden)]
    #[must_use]
    pub fn with_text_options(&self, options: TextOptions) -> Self {
        let (gpu, caps) = (self.shared.gpu.clone(), self.shared.caps.clone());
        let pipelines = PipelineCache::new(options);
        Self {
            shared: Arc::new(Shared { gpu, caps, pipelines }),
        }
    }

    fn assemble(gpu: Gpu, caps: DeviceCaps) -> Self {
        let pipelines = PipelineCache::default();
        Self {
            shared: Arc::new(Shared { gpu, caps, pipelines }),
        }
    }

    /// What plans are made for.
    pub fn caps(&self) -> &DeviceCaps {
        &self.shared.caps
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.shared.gpu.device
    }

    /// The queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.shared.gpu.queue
    }

    /// GPU memory in buffers that this engine made.
    pub fn memory(&self) -> MemoryUse {
        self.shared.gpu.memory()
    }

    /// Begins a new peak at what is in use now.
    pub fn reset_memory_peak(&self) {
        self.shared.gpu.reset_memory_peak();
    }

    pub(crate) fn gpu(&self) -> &Gpu {
        &self.shared.gpu
    }

    pub(crate) fn pipelines(&self) -> &PipelineCache {
        &self.shared.pipelines
    }

    /// Plans without preparing: pure, touches no GPU.
    pub fn plan(&self, descriptor: &AttentionDescriptor<'_>) -> Result<Plan> {
        Plan::new(&Problem::new(descriptor)?, self.caps())
    }

    /// Plans, compiles what is not compiled yet and allocates the workspace.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn prepare(&self, descriptor: &AttentionDescriptor<'_>) -> Result<Attention> {
        pollster::block_on(self.prepare_async(descriptor))
    }

    /// As [`prepare`](Self::prepare), for where blocking is not possible.
    pub async fn prepare_async(&self, descriptor: &AttentionDescriptor<'_>) -> Result<Attention> {
        Attention::new(self, self.plan(descriptor)?).await
    }

    /// One call on host slices: upload, run, read back.
    ///
    /// ```no_run
    /// use wgpu_attention::{AttentionDescriptor, AttentionShape, Engine, HostInputs};
    ///
    /// let engine = Engine::new()?;
    /// let shape = AttentionShape::new(1, 8, 6, 6, 64);
    /// let x = vec![0.1; 8 * 6 * 64];
    /// let inputs = HostInputs::new(&x, &x, &x);
    /// let output = engine.attention(&AttentionDescriptor { shape, ..Default::default() }, &inputs)?;
    /// assert_eq!(output.out.len(), x.len());
    /// # Ok::<(), wgpu_attention::Error>(())
    /// ```
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attention(&self, descriptor: &AttentionDescriptor<'_>, inputs: &HostInputs<'_>) -> Result<AttentionOutput> {
        pollster::block_on(self.attention_waiting(descriptor, inputs, Wait::Here))
    }

    /// As [`attention`](Self::attention), for where blocking is not possible.
    pub async fn attention_async(
        &self,
        descriptor: &AttentionDescriptor<'_>,
        inputs: &HostInputs<'_>,
    ) -> Result<AttentionOutput> {
        self.attention_waiting(descriptor, inputs, Wait::Elsewhere).await
    }

    async fn attention_waiting(
        &self,
        descriptor: &AttentionDescriptor<'_>,
        inputs: &HostInputs<'_>,
        wait: Wait,
    ) -> Result<AttentionOutput> {
        let problem = Problem::new(descriptor)?;
        inputs.validate(&problem)?;
        let attention = Attention::new(self, Plan::new(&problem, self.caps())?).await?;
        let mut tensors = BTreeMap::new();
        for operand in problem.operands() {
            if let Some(bytes) = inputs.bytes(operand) {
                tensors.insert(binding_of(operand), self.upload_bytes_async(bytes).await?);
            }
        }
        let at = |operand| tensors.get(&binding_of(operand)).map(BufferAt::from);
        let needed = |operand| at(operand).ok_or(Error::MissingOperand { operand });
        let captures = (0..problem.mods().captures.len())
            .map(|index| needed(Operand::Capture(u8::try_from(index).unwrap_or(u8::MAX))))
            .collect::<Result<Vec<_>>>()?;
        let gpu_inputs = Inputs {
            query: needed(Operand::Query)?,
            key: needed(Operand::Key)?,
            value: needed(Operand::Value)?,
            mask: at(Operand::Mask),
            bias: at(Operand::Bias),
            key_padding: at(Operand::KeyPadding),
            alibi_slopes: at(Operand::AlibiSlopes),
            sinks: at(Operand::Sinks),
            dropout_mask: at(Operand::DropoutMask),
            block_mask: at(Operand::BlockMask),
            cu_seqlens_q: at(Operand::CuSeqlensQ),
            cu_seqlens_k: at(Operand::CuSeqlensK),
            query_position_ids: at(Operand::QueryPositionIds),
            key_position_ids: at(Operand::KeyPositionIds),
            captures: &captures,
        };
        let output = attention.run_waiting(&gpu_inputs, wait).await?;
        let read = async |tensor: &Option<Tensor>| match tensor {
            None => Ok(None),
            Some(tensor) => self.read_waiting(tensor, wait).await.map(Some),
        };
        // A tensor of halves ends at a whole word; the numbers end where they end.
        let mut out = self.read_as_waiting(&output.out, problem.dtypes().out, wait).await?;
        let span = problem.extent(Operand::Out).map_or(0, |extent| extent.span());
        out.truncate(usize::try_from(span).unwrap_or(usize::MAX));
        Ok(AttentionOutput {
            out,
            lse: read(&output.lse).await?,
            weights: read(&output.weights).await?,
            scores: read(&output.scores).await?,
        })
    }

    /// Copies numbers to the GPU.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn upload(&self, data: &[f32]) -> Result<Tensor> {
        pollster::block_on(self.upload_async(data))
    }

    /// As [`upload`](Self::upload), for where blocking is not possible.
    pub async fn upload_async(&self, data: &[f32]) -> Result<Tensor> {
        self.upload_bytes_async(bytemuck::cast_slice(data)).await
    }

    /// Copies bytes to the GPU: boolean masks and padding.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn upload_bytes(&self, data: &[u8]) -> Result<Tensor> {
        pollster::block_on(self.upload_bytes_async(data))
    }

    /// As [`upload_bytes`](Self::upload_bytes), for where blocking is not possible.
    pub async fn upload_bytes_async(&self, data: &[u8]) -> Result<Tensor> {
        let buffer = self
            .gpu()
            .buffer("tensor", data.len() as u64, TENSOR_USAGE, Some(data))
            .await?;
        Ok(Tensor {
            buffer,
            bytes: data.len() as u64,
        })
    }

    /// A tensor of zeros, this many bytes long.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn allocate(&self, bytes: u64) -> Result<Tensor> {
        pollster::block_on(self.allocate_async(bytes))
    }

    /// As [`allocate`](Self::allocate), for where blocking is not possible.
    pub async fn allocate_async(&self, bytes: u64) -> Result<Tensor> {
        Ok(Tensor {
            buffer: self.gpu().buffer("tensor", bytes, TENSOR_USAGE, None).await?,
            bytes,
        })
    }

    /// Copies a tensor of numbers back. Waits for everything submitted before.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        pollster::block_on(self.read_waiting(tensor, Wait::Here))
    }

    /// As [`read`](Self::read), for where blocking is not possible.
    pub async fn read_async(&self, tensor: &Tensor) -> Result<Vec<f32>> {
        self.read_waiting(tensor, Wait::Elsewhere).await
    }

    /// Copies a tensor of another storage type back, widened. A tensor that ends within a word of four bytes may come with
    /// one number more.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read_as(&self, tensor: &Tensor, dtype: DType) -> Result<Vec<f32>> {
        pollster::block_on(self.read_as_waiting(tensor, dtype, Wait::Here))
    }

    /// As [`read_as`](Self::read_as), for where blocking is not possible.
    pub async fn read_as_async(&self, tensor: &Tensor, dtype: DType) -> Result<Vec<f32>> {
        self.read_as_waiting(tensor, dtype, Wait::Elsewhere).await
    }

    async fn read_as_waiting(&self, tensor: &Tensor, dtype: DType, wait: Wait) -> Result<Vec<f32>> {
        let bytes = readback::read_bytes(self.gpu(), tensor.buffer(), tensor.bytes(), wait).await?;
        Ok(dtype.widen(&bytes))
    }

    pub(crate) async fn read_waiting(&self, tensor: &Tensor, wait: Wait) -> Result<Vec<f32>> {
        self.read_as_waiting(tensor, DType::F32, wait).await
    }

    /// Submits a bound call and waits until it is done.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn run(&self, bound: &BoundAttention) -> Result<()> {
        pollster::block_on(async {
            self.run_bound(bound, Wait::Here).await?;
            readback::wait_idle(self.gpu(), Wait::Here).await
        })
    }

    /// As [`run`](Self::run), for where blocking is not possible.
    pub async fn run_async(&self, bound: &BoundAttention) -> Result<()> {
        self.run_bound(bound, Wait::Elsewhere).await?;
        readback::wait_idle(self.gpu(), Wait::Elsewhere).await
    }

    /// Submits the pieces of a call, waiting between them so that the GPU serves others too.
    pub(crate) async fn run_bound(&self, bound: &BoundAttention, wait: Wait) -> Result<()> {
        for index in 0..bound.submissions() {
            if index > 0 {
                readback::wait_idle(self.gpu(), wait).await?;
            }
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor {
                label: Some("attention"),
            });
            bound.encode_submission(index, &mut encoder);
            self.gpu().submit(encoder).await?;
        }
        Ok(())
    }

    /// Waits until everything submitted so far is done.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait(&self) -> Result<()> {
        pollster::block_on(readback::wait_idle(self.gpu(), Wait::Here))
    }
}

#[allow(
    unsafe_code,
    reason = "cooperative matrices are an experimental feature of wgpu: a self-test of them runs before any kernel has them"
)]
async fn request_device(
    adapter: &wgpu::Adapter,
    required_features: wgpu::Features,
    required_limits: &wgpu::Limits,
) -> std::result::Result<(wgpu::Device, wgpu::Queue), wgpu::RequestDeviceError> {
    let experimental_features = match required_features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        // SAFETY: as the reason above says.
        true => unsafe { wgpu::ExperimentalFeatures::enabled() },
        false => wgpu::ExperimentalFeatures::disabled(),
    };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("wgpu-attention"),
        required_features,
        required_limits: required_limits.clone(),
        experimental_features,
        ..Default::default()
    };
    adapter.request_device(&descriptor).await
}

const TENSOR_USAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

/// Every adapter there is, best first: real GPUs before software ones.
#[cfg(not(target_arch = "wasm32"))]
pub fn adapters(backends: Option<wgpu::Backends>) -> Vec<wgpu::Adapter> {
    pollster::block_on(adapters_async(backends))
}

/// As [`adapters`], for where blocking is not possible. A browser shows one at most.
pub async fn adapters_async(backends: Option<wgpu::Backends>) -> Vec<wgpu::Adapter> {
    let backends = backends
        .or_else(|| wgpu::Backends::from_env().filter(|_| backend_variable().is_some()))
        .unwrap_or(wgpu::Backends::all());
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        // Debug builds would turn on validation layers, whose older versions report errors that are none.
        flags: wgpu::InstanceFlags::empty().with_env(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    #[cfg(not(target_arch = "wasm32"))]
    let mut adapters = instance.enumerate_adapters(backends).await;
    #[cfg(target_arch = "wasm32")]
    let mut adapters: Vec<_> = instance
        .request_adapter(&wgpu::RequestAdapterOptions::default())
        .await
        .into_iter()
        .collect();
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        match DeviceCaps::from_wgpu(&info, adapter.features(), &adapter.limits()).class {
            DeviceClass::Discrete => 0,
            DeviceClass::Integrated => 1,
            DeviceClass::Unknown => 2,
            DeviceClass::Cpu => 3,
        }
    });
    adapters
}

/// What WGPU_BACKEND says, if anything.
fn backend_variable() -> Option<String> {
    std::env::var("WGPU_BACKEND").ok().filter(|value| !value.is_empty())
}

/// In a browser there are no files.
#[cfg(target_arch = "wasm32")]
fn user_tuning(_: &DeviceCaps) -> Option<Tuning> {
    None
}

async fn choose_adapter(descriptor: &EngineDescriptor<'_>) -> Result<wgpu::Adapter> {
    let mut adapters = adapters_async(descriptor.backends).await;
    let wanted = match descriptor.adapter_name {
        Some(name) => Some(name.to_owned()),
        None => std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty()),
    };
    if adapters.is_empty() {
        let message = match backend_variable().filter(|_| descriptor.backends.is_none()) {
            Some(value) => format!(
                "none found where WGPU_BACKEND={value}: it names some of vulkan, metal and dx12, with commas between, and leaves \
                 the others out; unset, it leaves out none"
            ),
            None => "none found. On Linux install a Vulkan driver: Mesa's package is mesa-vulkan-drivers on Debian, \
                     Ubuntu and Fedora, and it brings a software driver for machines without a GPU"
                .into(),
        };
        return Err(Error::NoAdapter { message });
    }
    let Some(wanted) = wanted else {
        return Ok(adapters.swap_remove(0));
    };
    let names: Vec<_> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    match names
        .iter()
        .position(|name| name.to_lowercase().contains(&wanted.to_lowercase()))
    {
        Some(index) => Ok(adapters.swap_remove(index)),
        None => Err(Error::NoAdapter {
            message: format!("none named {wanted:?}; there are {names:?}"),
        }),
    }
}
