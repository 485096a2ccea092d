//! The pipelines made so far, by the kernel that they run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::kernel::KernelConfig;
use crate::kernel::source::{self, Access, Dialect, Unroll};

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    /// Binding numbers in ascending order.
    pub(crate) bindings: Vec<(u32, Access)>,
}

/// How kernels are made of their texts. Only tests choose: that all compute the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TextOptions {
    /// Whether loops are left rolled.
    pub unroll: Unroll,
    /// Whether the compiler checks every index of our own kernels too, as it does where a caller's function is in them.
    pub checked: bool,
}

/// Compiles each kernel once.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    text: TextOptions,
    pipelines: Mutex<HashMap<KernelConfig, Arc<Pipeline>>>,
}

impl PipelineCache {
    pub(crate) fn new(text: TextOptions) -> Self {
        Self {
            text,
            ..Self::default()
        }
    }

    pub(crate) async fn get_or_create(&self, gpu: &Gpu, kernel: KernelConfig) -> Result<Arc<Pipeline>> {
        if let Some(pipeline) = self
            .pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&kernel)
        {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(create(gpu, &kernel, self.text).await?);
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(pipelines.entry(kernel).or_insert(pipeline)))
    }
}

async fn create(gpu: &Gpu, kernel: &KernelConfig, options: TextOptions) -> Result<Pipeline> {
    let name = kernel.skeleton().name();
    let text = source::compose(kernel, options.unroll, Dialect::default()).map_err(|message| Error::Validation {
        operation: "compose a shader",
        message,
    })?;
    tracing::debug!(kernel = name, bytes = text.len(), "compiling");
    let bindings = kernel.bindings();
    let trusted = !options.checked && keeps_within_bounds(gpu, kernel).await;
    let entries: Vec<_> = bindings
        .iter()
        .map(|&(binding, access)| layout_entry(binding, access))
        .collect();
    let created = gpu.scoped("compile a kernel", || {
        let device = &gpu.device;
        let module = module(device, name, text, trusted);
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(name),
            entries: &entries,
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(name),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: gpu.pipeline_cache(),
        });
        Pipeline {
            pipeline,
            layout,
            bindings,
        }
    });
    match created.await {
        Err(Error::Validation { operation, message }) if !kernel.mods().is_empty() => Err(explain(gpu, kernel)
            .await
            .unwrap_or(Error::Validation { operation, message })),
        created => created,
    }
}

/// A shader module; `trusted` is without the checks of every index and loop that wgpu adds to unknown shaders, which made half as
/// many instructions again for an AMD GPU (docs/KERNELS.md).
#[allow(
    unsafe_code,
    reason = "our kernels keep within their bindings by themselves: the plan bounds what each dispatch reaches, and kernels clamp \
              what they read of lengths and lists; tests/kernels.rs compares both ways"
)]
fn module(device: &wgpu::Device, name: &str, text: String, trusted: bool) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some(name),
        source: wgpu::ShaderSource::Wgsl(text.into()),
    };
    match trusted {
        // SAFETY: as the reason above says.
        true => unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) },
        false => device.create_shader_module(descriptor),
    }
}

/// Whether a kernel can do without checks: our own files can; a caller's function can if it indexes nothing, loops nowhere and
/// names nothing of ours, which is to say compiles without it.
async fn keeps_within_bounds(gpu: &Gpu, kernel: &KernelConfig) -> bool {
    for (_, body) in kernel.mods() {
        let words = |word: &str| {
            body.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|part| part == word)
        };
        if body.contains('[') || ["for", "while", "loop"].into_iter().any(words) {
            return false;
        }
        let text = source::alone(kernel, body);
        if compile_error(gpu, text).await.is_some() {
            return false;
        }
    }
    true
}

/// What is wrong with a kernel that does not compile, in terms of the caller's own functions.
async fn explain(gpu: &Gpu, kernel: &KernelConfig) -> Option<Error> {
    for &(function, ref body) in kernel.mods() {
        if let Some((message, line, column)) = compile_error(gpu, source::alone(kernel, body)).await {
            return Some(broken(kernel, function, body, &message, [line, column]));
        }
    }
    // Each is right by itself, so one does not fit (another signature, or a name that the kernels have already), or two do
    // not fit together.
    for &(function, ref body) in kernel.mods() {
        let text = source::compose(&kernel.with_only(function), Unroll::Expanded, Dialect::default()).ok()?;
        if let Some((message, ..)) = compile_error(gpu, text).await {
            return Some(unfit(function, body, &message));
        }
    }
    let text = source::compose(kernel, Unroll::Expanded, Dialect::default()).ok()?;
    let (message, ..) = compile_error(gpu, text).await?;
    let &(function, ref body) = kernel.mods().first()?;
    Some(unfit(function, body, &message))
}

/// A function that does not compile by itself.
fn broken(kernel: &KernelConfig, function: &'static str, body: &str, message: &str, [line, column]: [u32; 2]) -> Error {
    let lines = u32::try_from(body.lines().count()).unwrap_or(u32::MAX).max(1);
    let mut message = message.to_owned();
    if line > lines {
        message = format!("the text ends too early, or has a name that a capture has: {message}");
    }
    // As naga and as Tint say it.
    if message.contains("no definition in scope") || message.contains("unresolved") {
        let names: Vec<_> = kernel.captures().iter().map(|capture| &*capture.name).collect();
        let captures = match names.is_empty() {
            true => "no captures: Mods::captures is empty".into(),
            false => format!("the captures {}", names.join(", ")),
        };
        message = format!("{message}\nIt may read NEGATIVE_INFINITY and {captures}");
    }
    Error::Mod {
        function,
        line: line.clamp(1, lines),
        column,
        message,
    }
}

/// A function that compiles by itself, but that the kernels cannot call.
fn unfit(function: &'static str, body: &str, message: &str) -> Error {
    let signature = match function {
        "score_mod" => "fn score_mod(score: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32",
        "mask_mod" => "fn mask_mod(batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> bool",
        _ => "fn prob_mod(prob: f32, batch: u32, head: u32, q_idx: u32, kv_idx: u32) -> f32",
    };
    let what = match body.contains(function) {
        true => "compiles alone, but not in the kernel (another signature, or a name that is taken); expected",
        false => "the text does not define it; expected",
    };
    Error::Mod {
        function,
        line: 1,
        column: 1,
        message: format!("{what} {signature}: {message}"),
    }
}

/// The first error of a text, and its line and column from 1.
async fn compile_error(gpu: &Gpu, text: String) -> Option<(String, u32, u32)> {
    let (module, scope) = {
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some("the caller's function"),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        (module, scope.pop())
    };
    let failed = scope.await.is_some();
    let info = module.get_compilation_info().await;
    let mut errors = (info.messages.into_iter())
        .filter(|message| message.message_type == wgpu::CompilationMessageType::Error)
        .peekable();
    if !failed && errors.peek().is_none() {
        return None;
    }
    let located = errors.find_map(|message| {
        let at = message.location?;
        let message = message.message.trim();
        let message = message
            .strip_prefix("Shader 'the caller's function' parsing error: ")
            .unwrap_or(message);
        Some((message.to_owned(), at.line_number, at.line_position))
    });
    Some(located.unwrap_or_else(|| ("does not compile".into(), 1, 1)))
}

fn layout_entry(binding: u32, access: Access) -> wgpu::BindGroupLayoutEntry {
    let ty = match access {
        Access::Uniform => wgpu::BufferBindingType::Uniform,
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        count: None,
    }
}
