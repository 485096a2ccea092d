//! `softmax(scale * query keyᵀ + bias) value` for every batch and head, on any GPU that wgpu reaches: Vulkan, Metal, DX12, and
//! WebGPU in browsers.
//!
//! One fused kernel with online softmax, which never stores a `seqlen_q x seqlen_k` matrix; three kernels (scores, softmax,
//! weights x value) where the weights are wanted; multi-head blocks with their projections; and a CPU reference in `f64` that
//! defines each of them. Storage is `f32`, `f16` or `bf16`; arithmetic is `f32`.
//!
//! # One call
//!
//! ```
//! use wgpu_attention::{AttentionDescriptor, AttentionShape, Engine, HostInputs, Outputs};
//!
//! let engine = Engine::new()?; // the best adapter there is
//! let descriptor = AttentionDescriptor {
//!     shape: AttentionShape::new(1, 8, 6, 6, 64), // batch, heads, seqlen_q, seqlen_k, head_dim
//!     outputs: Outputs { weights: true, ..Default::default() },
//!     ..Default::default()
//! };
//! let x: Vec<f32> = (0..8 * 6 * 64).map(|i| (i as f32 * 0.37).sin()).collect();
//! let output = engine.attention(&descriptor, &HostInputs::new(&x, &x, &x))?;
//! let first_row = &output.weights.unwrap()[..6]; // what the first word of the first head looks at
//! assert!((first_row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # What a call may ask for
//!
//! Each field of [`AttentionDescriptor`] switches something on; what it reads comes as the field of the same name in
//! [`HostInputs`] or [`Inputs`]. All of it goes together, and each has an example on its own page:
//!
//! | | |
//! |---|---|
//! | shapes, heads that share keys | [`AttentionShape`] |
//! | `f16`, `bf16` | [`DTypes`], [`HostTensor`] |
//! | causal rule, sliding windows | [`CausalAlignment`], [`Window`] |
//! | masks, biases, key padding, lengths | [`Broadcast`], [`KeyPadding`] |
//! | your own `score_mod`, `mask_mod` | [`Mods`] |
//! | closed blocks left out | [`BlockMaskShape`], [`Engine::prepare_block_mask`] |
//! | sequences packed by `cu_seqlens` | [`Packed`] |
//! | rotary embedding | [`AttentionRope`] |
//! | dropout | [`Dropout`] |
//! | lse, weights, scores | [`Outputs`] |
//!
//! `cargo run --example features` runs each of them beside the reference.
//!
//! # Many calls
//!
//! [`Engine::prepare`] plans and compiles once; [`Attention::run`] then takes data that is on the GPU already. Here 8 query
//! heads share 2 key/value heads, and the last rows of a sequence of 128 attend to its past:
//!
//! ```
//! use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Engine, Inputs};
//!
//! let engine = Engine::new()?;
//! let attention = engine.prepare(&AttentionDescriptor {
//!     shape: AttentionShape { kv_heads: 2, ..AttentionShape::new(1, 8, 5, 128, 64) },
//!     causal: Some(CausalAlignment::LowerRight),
//!     ..Default::default()
//! })?;
//! println!("{}", attention.plan()); // what was decided, and why
//! let query = engine.upload(&vec![0.1; 8 * 5 * 64])?;
//! let key = engine.upload(&vec![0.2; 2 * 128 * 64])?;
//! let value = engine.upload(&vec![0.3; 2 * 128 * 64])?;
//! for _ in 0..3 {
//!     let outputs = attention.run(&Inputs::new(&query, &key, &value))?;
//!     assert!((engine.read(&outputs.out)?[0] - 0.3).abs() < 1e-6);
//! }
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # Beside your own wgpu code
//!
//! [`Engine::from_wgpu`] shares your device. [`Attention::bind`] takes your buffers, at offsets, and
//! [`BoundAttention::encode`] records into your encoder: it never submits, never waits and allocates nothing.
//!
//! ```
//! use wgpu_attention::{AttentionDescriptor, AttentionShape, BufferAt, Engine, Inputs, OutputBuffers};
//!
//! # let theirs = Engine::new()?;
//! # let adapter = wgpu_attention::adapters(None).remove(0);
//! # let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
//! # let device_of_yours = device.clone();
//! # let storage = |label, size| device_of_yours.create_buffer(&wgpu::BufferDescriptor {
//! #     label: Some(label), size, usage: wgpu::BufferUsages::STORAGE, mapped_at_creation: false });
//! # let bytes = 4 * 8 * 6 * 64;
//! # let (qkv, out) = (storage("qkv", 3 * bytes), storage("out", bytes));
//! let engine = Engine::from_wgpu(&adapter, device.clone(), queue.clone());
//! let shape = AttentionShape::new(1, 8, 6, 6, 64);
//! let attention = engine.prepare(&AttentionDescriptor { shape, ..Default::default() })?;
//! let at = |index| BufferAt { buffer: &qkv, offset_bytes: index * bytes };
//! let bound = attention.bind(&Inputs::new(at(0), at(1), at(2)), &OutputBuffers::new(&out))?;
//!
//! // Each frame:
//! let mut encoder = device.create_command_encoder(&Default::default());
//! bound.encode(&mut encoder);
//! queue.submit([encoder.finish()]);
//! # engine.wait()?;
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # A multi-head block
//!
//! [`MultiHeadAttention`] is PyTorch's `nn.MultiheadAttention`, forward: it loads the module's state dict from a safetensors
//! file, and its projections run on the GPU as well.
//!
//! # A decoder's attention
//!
//! [`Rope`] rotates query and key by their positions, with the scaling rules of Hugging Face configs; [`Linear`] projects. All
//! of a layer stays on the GPU:
//!
//! ```
//! use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Engine, Inputs, Layout, Layouts};
//! use wgpu_attention::{LinearDescriptor, LinearInputs, RopeAngles, RopeConfig, RopeDescriptor, RopeFrequencies};
//! use wgpu_attention::{RopeInputs, RopeLayouts};
//!
//! let engine = Engine::new()?;
//! let (tokens, heads, kv_heads, head_dim) = (5, 4, 2, 16);
//! let frequencies = RopeFrequencies::new(&RopeConfig::new(head_dim))?;
//! let hidden = engine.upload(&vec![0.1; 5 * 64])?;
//! let project = |out_heads: u32| {
//!     let weight = engine.upload(&vec![0.01; 64 * (out_heads * head_dim) as usize])?;
//!     let layer = engine.prepare_linear(&LinearDescriptor::new(tokens, 64, out_heads * head_dim))?;
//!     layer.run(&LinearInputs::new(&hidden, &weight))
//! };
//! let (query, key, value) = (project(heads)?, project(kv_heads)?, project(kv_heads)?);
//! for (tensor, heads) in [(&query, heads), (&key, kv_heads)] {
//!     let rope = engine.prepare_rope(&RopeDescriptor {
//!         layouts: RopeLayouts::all(Layout::Bshd),
//!         in_place: true,
//!         ..RopeDescriptor::new([1, heads, tokens, head_dim], RopeAngles::Frequencies(&frequencies))
//!     })?;
//!     engine.run(&rope.bind(&RopeInputs::in_place(), tensor)?)?;
//! }
//! let attention = engine.prepare(&AttentionDescriptor {
//!     shape: AttentionShape { kv_heads, ..AttentionShape::new(1, heads, tokens, tokens, head_dim) },
//!     causal: Some(CausalAlignment::LowerRight),
//!     layouts: Layouts::all(Layout::Bshd),
//!     ..Default::default()
//! })?;
//! let context = attention.run(&Inputs::new(&query, &key, &value))?.out;
//! assert!((engine.read(&context)?[0] - 0.064).abs() < 1e-5);
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # Keys in a cache, and in parts
//!
//! [`TensorScatter`] writes new rows into a cache, in place if you like. [`MergeStates`] joins attention over some of the keys
//! with attention over others: `out` and `lse` of each part are all that it needs.
//!
//! ```
//! use wgpu_attention::{AttentionDescriptor, AttentionShape, BufferAt, Engine, Inputs, Layout, Layouts, MergeInputs};
//! use wgpu_attention::{MergeStatesDescriptor, OutputBuffers, Outputs, Strides, Tensor, TensorScatterDescriptor};
//! use wgpu_attention::TensorScatterInputs;
//!
//! fn at(tensor: &Tensor, element: u64) -> BufferAt<'_> {
//!     BufferAt { buffer: tensor.buffer(), offset_bytes: 4 * element }
//! }
//!
//! let engine = Engine::new()?;
//! let cached = |x: f32| engine.upload(&vec![x; 2 * 128 * 16]); // 2 heads, 128 rows of 16 channels
//! let (key, value) = (cached(0.1)?, cached(0.2)?);
//!
//! // A new token: its key and value go to the last row.
//! let token = |x: f32| engine.upload(&[x; 2 * 16]);
//! let (query, new_key, new_value) = (token(0.3)?, token(0.4)?, token(0.5)?);
//! let row = engine.upload_bytes(&127i32.to_le_bytes())?;
//! let scatter = engine.prepare_tensor_scatter(&TensorScatterDescriptor::new(1, 2, 128, 1, 16))?;
//! for (update, cache) in [(&new_key, &key), (&new_value, &value)] {
//!     let inputs = TensorScatterInputs { write_indices: Some(at(&row, 0)), ..TensorScatterInputs::in_place(update) };
//!     engine.run(&scatter.bind(&inputs, cache)?)?;
//! }
//!
//! // Attention over the first 64 rows, and over the last 64, each to its place in one buffer.
//! let cache = Layout::Strided(Strides { batch: 2 * 128 * 16, head: 128 * 16, row: 16 });
//! let half = engine.prepare(&AttentionDescriptor {
//!     shape: AttentionShape::new(1, 2, 1, 64, 16),
//!     layouts: Layouts { key: cache, value: cache, ..Default::default() },
//!     outputs: Outputs { lse: true, ..Default::default() },
//!     ..Default::default()
//! })?;
//! let (out_parts, lse_parts) = (engine.allocate(2 * 4 * 2 * 16)?, engine.allocate(2 * 4 * 2)?);
//! for part in 0..2 {
//!     let inputs = Inputs::new(&query, at(&key, part * 64 * 16), at(&value, part * 64 * 16));
//!     let outputs = OutputBuffers {
//!         lse: Some(at(&lse_parts, part * 2)),
//!         ..OutputBuffers::new(at(&out_parts, part * 2 * 16))
//!     };
//!     engine.run(&half.bind(&inputs, &outputs)?)?;
//! }
//! let merge = engine.prepare_merge_states(&MergeStatesDescriptor::new(2, 1, 2, 1, 16))?;
//! let merged = merge.run(&MergeInputs::new(&out_parts, &lse_parts))?;
//!
//! let whole = engine.prepare(&AttentionDescriptor { shape: AttentionShape::new(1, 2, 1, 128, 16), ..Default::default() })?;
//! let want = engine.read(&whole.run(&Inputs::new(&query, &key, &value))?.out)?;
//! assert!(engine.read(&merged.out)?.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6));
//! # Ok::<(), wgpu_attention::Error>(())
//! ```
//!
//! # Without a GPU
//!
//! [`reference`](mod@reference) computes all of it in `f64`; [`Problem`] and [`Plan`] are pure, so that a descriptor can be
//! checked, and a plan looked at, on any machine.
//!
//! # What is read and written
//!
//! [`Engine::new`] and [`Engine::with`] read the [`Tuning`] that `attn tune` saved for the adapter, and keep the driver's compiled kernels
//! where wgpu has a cache for them, both in the platform's cache folder; [`EngineDescriptor`] switches either off, as do `ATTN_TUNING=off`
//! and `ATTN_PIPELINE_CACHE=off` in the environment. [`Engine::from_wgpu`] and [`Engine::from_adapter`] touch no file, and nothing does in
//! a browser. Nothing is measured behind anybody's back.
//!
//! # What holds everywhere
//!
//! - Strides and offsets are in elements, sizes in bytes end in `_bytes`, times in `_ns`. The last axis is contiguous.
//! - A row with no open key gives zeros, and an `lse` of negative infinity. NaN in an open position spreads as IEEE 754 says;
//!   whatever lies behind a mask, NaN included, never reaches a result.
//! - The same call on the same adapter gives the same bits.
//! - Wrong input is an [`Error`] that names the operand, what came and what was expected. So are wgpu's validation errors, a
//!   GPU out of memory and a lost device.
//!
//! # How it works
//!
//! [`AttentionDescriptor`] → [`Problem`] (validated) → [`Plan`] (which kernels, over which regions, for these
//! [`DeviceCaps`]) → kernel text ([`mod@kernel`]: a skeleton, one file a hook, constants) → pipeline → commands → readback. The
//! modules stand in this order, and each calls only downwards.
//!
//! # Features
//!
//! - `cli` (default): the program `attn`. Libraries want `default-features = false`.
//!
//! On wasm32 only the `_async` form of each call exists, since nothing may block there.

// In the order of the flow; rustfmt would sort a block without these lines between.
pub mod problem;

mod tune;

pub mod caps;

pub mod plan;

pub mod kernel;

mod pipeline;

mod encode;

mod attention;

mod tensor;

mod readback;

mod timing;

mod gpu;

#[cfg(not(target_arch = "wasm32"))]
mod matrices;

#[cfg(not(target_arch = "wasm32"))]
mod store;

mod engine;

mod linear;

mod multi_head;

mod operation;

mod block_mask;

mod merge;

mod rope;

mod scatter;

pub mod onnx;

mod error;

pub mod reference;

pub use attention::Attention;
pub use block_mask::{BlockIndices, BlockMaskBuilder, BlockMaskDescriptor, block_indices};
pub use caps::{DeviceCaps, DeviceClass, Family, MatrixShape, Tier};
pub use encode::BoundAttention;
#[cfg(not(target_arch = "wasm32"))]
pub use engine::adapters;
pub use engine::{AttentionOutput, Engine, EngineDescriptor, PipelineFolder, TuningSource, adapters_async};
pub use error::{Error, Operand, Result};
pub use gpu::MemoryUse;
pub use linear::{Linear, LinearDescriptor, LinearHostInputs, LinearInputs};
pub use merge::{MergeInputs, MergeOutputs, MergeStates, MergeStatesDescriptor, MergeTensors, MergedStates};
pub use multi_head::{
    HeadWeights, MultiHeadAttention, MultiHeadBuffers, MultiHeadCall, MultiHeadDescriptor, MultiHeadInputs,
    MultiHeadOutput, MultiHeadParameters, PreparedMultiHead,
};
#[doc(hidden)]
pub use pipeline::TextOptions;
pub use plan::Plan;
pub use problem::{
    Algorithm, AttentionDescriptor, AttentionRope, AttentionShape, BlockMaskShape, BlockState, Broadcast, Capture,
    CaptureElement, CausalAlignment, DType, DTypes, Dropout, DropoutKeep, HostInputs, HostKeyPadding, HostTensor,
    KeyPadding, Layout, Layouts, Mods, Outputs, Packed, Problem, ScoreStage, Strides, Window,
};
pub use rope::{
    Rope, RopeAngles, RopeConfig, RopeDTypes, RopeDescriptor, RopeFrequencies, RopeHostInputs, RopeInputs, RopeLayouts,
    RopeLlama3, RopeLongRope, RopePairing, RopePositions, RopeProblem, RopeScaling, RopeYarn,
};
pub use scatter::{ScatterMode, TensorScatter, TensorScatterDescriptor, TensorScatterInputs};
pub use tensor::{BufferAt, Inputs, OutputBuffers, OutputTensors, Tensor};
pub use timing::GpuTimer;
pub use tune::{QueryRows, TunedChoice, TunedTile, Tuning, TuningClass};

// What this crate's signatures speak of, so that callers need not guess the versions.
pub use {half, wgpu};

/// The README's examples, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
