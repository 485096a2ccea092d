//! Rotary position embedding: pairs of channels of query and key turned by angles that grow with the position, so that scores
//! depend on how far apart two tokens are.

mod frequencies;
mod problem;

pub use frequencies::{RopeConfig, RopeFrequencies, RopeLlama3, RopeLongRope, RopeScaling, RopeYarn};
pub use problem::{
    RopeAngles, RopeDTypes, RopeDescriptor, RopeHostInputs, RopeLayouts, RopePairing, RopePositions, RopeProblem,
};
