//! Options that say where and how to compute.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use wgpu_attention::{Algorithm, Engine, EngineDescriptor, Family, Tier, Tuning, TuningSource};

/// Which device to use.
#[derive(Args, Clone, Debug)]
pub struct DeviceOptions {
    /// Part of the adapter's name, whatever the case (else WGPU_ADAPTER_NAME, else the best there is)
    #[arg(long, value_name = "NAME")]
    pub adapter: Option<String>,
    /// Use no more of the device than this tier allows
    #[arg(long, value_name = "TIER")]
    pub tier: Option<TierName>,
    /// Plan as if the device's shaders had no f16
    #[arg(long)]
    pub no_f16: bool,
    /// Plan as if the device had no subgroup operations
    #[arg(long)]
    pub no_subgroups: bool,
    /// Only kernels of this family, where the device has what they need
    #[arg(long, value_name = "FAMILY")]
    pub family: Option<FamilyName>,
    /// Plan as if `attn tune` had never run
    #[arg(long)]
    pub no_tuning: bool,
}

/// A family of kernels by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum FamilyName {
    /// Tiles of keys and values in workgroup memory
    Tile,
    /// Rows in registers, keys and values shared by broadcasts
    Broadcast,
    /// Few query rows, the keys cut into runs
    Split,
}

/// A tier by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum TierName {
    /// WebGPU's default limits
    Portable,
    /// 32 KiB of workgroup memory and the adapter's own limits
    Extended,
}

/// A way to compute, by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum AlgorithmName {
    /// Let the plan choose
    Auto,
    /// One fused kernel
    Fused,
    /// Scores, softmax, weights x value
    ThreeKernels,
}

impl From<AlgorithmName> for Algorithm {
    fn from(name: AlgorithmName) -> Self {
        match name {
            AlgorithmName::Auto => Algorithm::Auto,
            AlgorithmName::Fused => Algorithm::Fused,
            AlgorithmName::ThreeKernels => Algorithm::ThreeKernels,
        }
    }
}

impl DeviceOptions {
    /// Opens the device, and says so if the user's tuning is of no use.
    pub fn engine(&self) -> anyhow::Result<Engine> {
        let engine = self.engine_without_tuning()?;
        if self.no_tuning {
            return Ok(engine);
        }
        let tuning = Tuning::of_user(engine.caps()).unwrap_or_else(|error| {
            anstream::eprintln!("attn: warning: tuning is ignored: {error}");
            None
        });
        Ok(engine.with_tuning(tuning.map(Arc::new)))
    }

    /// Opens the device; plans go by the built-in rows.
    pub fn engine_without_tuning(&self) -> anyhow::Result<Engine> {
        let tier = self.tier.map(|tier| match tier {
            TierName::Portable => Tier::Portable,
            TierName::Extended => Tier::Extended,
        });
        let engine = Engine::with(&EngineDescriptor {
            adapter_name: self.adapter.as_deref(),
            tier,
            tuning: TuningSource::Off,
            ..Default::default()
        })
        .context("cannot use a GPU (`attn adapters` lists what there is)")?;
        let mut caps = engine.caps().clone();
        caps.shader_f16 &= !self.no_f16;
        caps.subgroup_sizes = caps.subgroup_sizes.filter(|_| !self.no_subgroups);
        caps.only_family = self.family.map(|family| match family {
            FamilyName::Tile => Family::Tile,
            FamilyName::Broadcast => Family::Broadcast,
            FamilyName::Split => Family::Split,
        });
        Ok(engine.with_caps(caps))
    }
}

/// The adapter in a few words.
pub fn describe(engine: &Engine) -> String {
    let caps = engine.caps();
    format!("{}, {} ({}), tier {}", caps.name, caps.driver, caps.backend, caps.tier)
}
