//! Prints the WGSL of a kernel, without a GPU: `cargo run --example kernel_text -- fused 64 causal > fused.wgsl`.
//!
//! First the kernel's name, then the head size, then any of `causal`, `portable` (tier portable, so the query tile is
//! streamed) and `decode` (one query row, so the tile has 8 rows).

use wgpu_attention::caps::CapsLimits;
use wgpu_attention::kernel::source::{self, Dialect, Unroll};
use wgpu_attention::kernel::{KernelConfig, Skeleton, Variant};
use wgpu_attention::plan::tuning;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DeviceCaps, Plan, Problem, Tier,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or("fused".into());
    let head_dim = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let words: Vec<_> = arguments.collect();
    let is = |word: &str| words.iter().any(|given| given == word);
    let skeletons = [
        Skeleton::Fused,
        Skeleton::Scores,
        Skeleton::Softmax,
        Skeleton::WeightedValues,
        Skeleton::Linear,
        Skeleton::AverageHeads,
    ];
    let found = skeletons.into_iter().find(|skeleton| skeleton.name() == name);
    let skeleton = found.ok_or_else(|| {
        format!(
            "no kernel {name}; there are {}",
            skeletons.map(Skeleton::name).join(", ")
        )
    })?;

    let problem = Problem::new(&AttentionDescriptor {
        shape: AttentionShape::new(1, 8, if is("decode") { 1 } else { 512 }, 512, head_dim),
        causal: is("causal").then_some(CausalAlignment::LowerRight),
        // A projection's bias is bound as one of scores.
        bias: (skeleton == Skeleton::Linear).then_some(Broadcast::new([1, 1, 1, 512])),
        algorithm: if skeleton == Skeleton::Fused {
            Algorithm::Fused
        } else {
            Algorithm::ThreeKernels
        },
        ..Default::default()
    })?;
    let extended = DeviceCaps {
        tier: Tier::Extended,
        limits: CapsLimits {
            max_workgroup_bytes: 32 << 10,
            ..CapsLimits::PORTABLE
        },
        ..Default::default()
    };
    let plan = Plan::new(
        &problem,
        &if is("portable") {
            DeviceCaps::default()
        } else {
            extended
        },
    )?;
    let pass = plan.passes().iter().find(|pass| pass.skeleton == skeleton);
    let kernel = match (pass, skeleton) {
        (Some(pass), _) => plan.kernel(pass),
        // A multi-head block's own two kernels are in no plan of attention alone.
        (None, Skeleton::AverageHeads) => {
            KernelConfig::attention(skeleton, &problem, &tuning::ELEMENTWISE, Variant::default())
        }
        (None, _) => {
            let variant = Variant {
                query_vec4: head_dim % 4 == 0,
                key_vec4: head_dim % 4 == 0,
                ..Default::default()
            };
            KernelConfig::attention(skeleton, &problem, plan.tile(), variant)
        }
    };
    print!("{}", source::compose(&kernel, Unroll::Expanded, Dialect::Native)?);
    Ok(())
}
