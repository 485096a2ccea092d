//! `softmax(scale * query keyᵀ + bias) value` on any GPU that wgpu reaches.

pub mod problem;
pub mod reference;

mod error;

pub use error::{Error, Operand, Result};
pub use problem::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, HostInputs, HostKeyPadding, KeyPadding,
    Layout, Layouts, Outputs, Problem, Strides,
};
