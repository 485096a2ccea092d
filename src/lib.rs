//! `softmax(scale * query keyᵀ + bias) value` on any GPU that wgpu reaches.

pub mod caps;
pub mod kernel;
pub mod plan;
pub mod problem;
pub mod reference;

mod attention;
mod encode;
mod engine;
mod error;
mod gpu;
mod multi_head;
mod pipeline;
mod readback;
mod tensor;
mod timing;

pub use attention::Attention;
pub use caps::{DeviceCaps, DeviceClass, Tier};
pub use encode::BoundAttention;
pub use engine::{AttentionOutput, Engine, EngineDescriptor, adapters, adapters_async};
pub use error::{Error, Operand, Result};
pub use gpu::MemoryUse;
pub use multi_head::{
    HeadWeights, MultiHeadAttention, MultiHeadBuffers, MultiHeadCall, MultiHeadDescriptor, MultiHeadInputs,
    MultiHeadOutput, MultiHeadParameters, PreparedMultiHead,
};
pub use plan::Plan;
pub use problem::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, HostInputs, HostKeyPadding, KeyPadding,
    Layout, Layouts, Outputs, Problem, Strides,
};
pub use tensor::{BufferAt, Inputs, OutputBuffers, OutputTensors, Tensor};
pub use timing::GpuTimer;
