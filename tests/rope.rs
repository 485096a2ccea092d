//! Rotary embedding: frequencies, the reference, and the kernel.

mod support;

#[path = "rope/calls.rs"]
mod calls;
#[path = "rope/frequencies.rs"]
mod frequencies;
#[path = "rope/kernels.rs"]
mod kernels;
#[path = "rope/reference.rs"]
mod reference;
#[path = "rope/wrong_frequencies.rs"]
mod wrong_frequencies;
