//! Prints the WGSL of the kernels that a plan is made of, without a GPU:
//! `cargo run --example kernel_text -- fused 64 > fused.wgsl` (or `scores`, `softmax`, `weighted_values`; then the head size).

use wgpu_attention::caps::CapsLimits;
use wgpu_attention::kernel::source::{self, Dialect, Unroll};
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, CausalAlignment, DeviceCaps, Plan, Problem, Tier,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or("fused".into());
    let head_dim = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let causal = arguments.next().is_some_and(|text| text == "causal");
    let problem = Problem::new(&AttentionDescriptor {
        shape: AttentionShape::new(1, 8, 512, 512, head_dim),
        causal: causal.then_some(CausalAlignment::LowerRight),
        algorithm: if name == "fused" {
            Algorithm::Fused
        } else {
            Algorithm::ThreeKernels
        },
        ..Default::default()
    })?;
    let caps = DeviceCaps {
        tier: Tier::Extended,
        limits: CapsLimits {
            max_workgroup_bytes: 32 << 10,
            ..CapsLimits::PORTABLE
        },
        ..Default::default()
    };
    let plan = Plan::new(&problem, &caps)?;
    let pass = plan.passes().iter().find(|pass| pass.skeleton.name() == name);
    let kernel = plan.kernel(pass.ok_or("no such kernel: fused, scores, softmax or weighted_values")?);
    print!("{}", source::compose(&kernel, Unroll::Expanded, Dialect::Native)?);
    Ok(())
}
