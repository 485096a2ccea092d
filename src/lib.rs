//! `softmax(scale * query keyᵀ + bias) value` on any GPU that wgpu reaches.

pub mod caps;
pub mod kernel;
pub mod plan;
pub mod problem;
pub mod reference;

mod error;

pub use caps::{DeviceCaps, DeviceClass, Tier};
pub use error::{Error, Operand, Result};
pub use plan::Plan;
pub use problem::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, HostInputs, HostKeyPadding, KeyPadding,
    Layout, Layouts, Outputs, Problem, Strides,
};
