//! Rotary embedding.

#[path = "rope/frequencies.rs"]
mod frequencies;
#[path = "rope/reference.rs"]
mod reference;
#[path = "rope/wrong_frequencies.rs"]
mod wrong_frequencies;
