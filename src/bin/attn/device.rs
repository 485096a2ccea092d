//! Options that say where and how to compute.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use wgpu_attention::{Algorithm, DeviceClass, Engine, EngineDescriptor, Family, Plan, Tier, Tuning, TuningSource};

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
    /// Plan as if a software driver were a GPU
    #[arg(long)]
    pub as_gpu: bool,
    /// Plan as if the device had no matrices (cooperative matrices, an experimental feature)
    #[arg(long)]
    pub no_matrix: bool,
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
    /// Rows in registers, keys and values at uniform addresses
    Uniform,
    /// Few query rows, the keys cut into runs
    Split,
    /// Products of matrices that a subgroup computes together
    Matrix,
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

    /// The same options, for another process.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |name: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [format!("--{name}"), value]));
        };
        let word = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        option("adapter", self.adapter.clone());
        option("tier", self.tier.and_then(|tier| word(tier.to_possible_value())));
        option(
            "family",
            self.family.and_then(|family| word(family.to_possible_value())),
        );
        let flags = [
            (self.no_f16, "--no-f16"),
            (self.no_subgroups, "--no-subgroups"),
            (self.as_gpu, "--as-gpu"),
            (self.no_matrix, "--no-matrix"),
            (self.no_tuning, "--no-tuning"),
        ];
        arguments.extend(flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()));
        arguments
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
        if self.as_gpu && caps.class == DeviceClass::Cpu {
            caps.class = DeviceClass::Discrete;
        }
        if self.no_matrix {
            caps.matrix_shapes.clear();
        }
        caps.only_family = self.family.map(|family| match family {
            FamilyName::Tile => Family::Tile,
            FamilyName::Broadcast => Family::Broadcast,
            FamilyName::Uniform => Family::Uniform,
            FamilyName::Split => Family::Split,
            FamilyName::Matrix => Family::Matrix,
        });
        let lacks = match caps.only_family {
            Some(Family::Matrix) if caps.matrix_shapes.is_empty() => Some("matrices"),
            Some(Family::Broadcast) if caps.subgroup_sizes.is_none() => Some("subgroups"),
            _ => None,
        };
        if let Some(lacks) = lacks {
            anstream::eprintln!("attn: warning: here are no {lacks}, so --family leaves the tile family");
        }
        Ok(engine.with_caps(caps))
    }
}

/// What a plan chose, in a few words.
pub fn chosen(plan: &Plan) -> String {
    let tile = plan.tile();
    let family = tile.family.to_string();
    let name = match tile.name.starts_with(&family) {
        true => tile.name.to_owned(),
        false => format!("{family} {}", tile.name),
    };
    let tuned = if plan.tuned().is_some() { ", tuned" } else { "" };
    format!("{name}, {} rows x {} keys{tuned}", tile.tile_q, tile.tile_kv())
}

/// The adapter in a few words.
pub fn describe(engine: &Engine) -> String {
    let caps = engine.caps();
    format!("{}, {} ({}), tier {}", caps.name, caps.driver, caps.backend, caps.tier)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        device: DeviceOptions,
    }

    #[test]
    fn another_process_is_given_the_same_options() {
        let given =
            "--adapter xy --tier portable --family split --no-f16 --no-subgroups --as-gpu --no-matrix --no-tuning";
        let parse = |words: Vec<String>| Only::parse_from(["attn".to_owned()].into_iter().chain(words)).device;
        let options = parse(given.split(' ').map(str::to_owned).collect());
        let again = parse(options.arguments());
        assert_eq!(format!("{options:?}"), format!("{again:?}"));
        assert_eq!(options.arguments().len(), given.split_whitespace().count());
        assert!(parse(Vec::new()).arguments().is_empty());
    }
}
