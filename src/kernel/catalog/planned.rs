//! Kernels as plans take them, with names: for tables and for other compilers.

use crate::caps::{CapsLimits, DeviceCaps, DeviceClass, MatrixShape, Tier};
use crate::error::Result;
use crate::kernel::KernelConfig;
use crate::plan::Plan;
use crate::plan::tuning::TILES;
use crate::problem::{Algorithm, AttentionDescriptor, AttentionShape, CausalAlignment, DType, DTypes, Linear, Problem};

/// A kernel with a name of its own among those listed with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// Of lower-case letters, digits, `_`, `.` and `-`: fit for a file.
    pub name: String,
    /// The kernel.
    pub kernel: KernelConfig,
}

/// The kernels of a problem's plans, for one device of each tier and class, each kernel once. Where the descriptor leaves the
/// algorithm to the plan, the plans of every algorithm that can compute it.
///
/// # Errors
/// Those of [`Problem::new`], and of [`Plan::new`] where no device of these has a plan.
///
/// ```
/// use wgpu_attention::kernel::catalog;
/// use wgpu_attention::{AttentionDescriptor, AttentionShape};
///
/// let shape = AttentionShape::new(1, 8, 512, 512, 64);
/// let kernels = catalog::planned(&AttentionDescriptor { shape, ..Default::default() })?;
/// assert!(kernels.iter().any(|named| named.name == "fused-32x32-resident-d64"));
/// # Ok::<(), wgpu_attention::Error>(())
/// ```
pub fn planned(descriptor: &AttentionDescriptor<'_>) -> Result<Vec<Named>> {
    planned_for(descriptor, &CLASSES)
}

fn planned_for(descriptor: &AttentionDescriptor<'_>, classes: &[DeviceClass]) -> Result<Vec<Named>> {
    let asked = Problem::new(descriptor)?.algorithm();
    let algorithms = if asked == Algorithm::Auto { ALGORITHMS } else { &[asked] };
    let mut named = Vec::new();
    let mut refused = None;
    for &algorithm in algorithms {
        // Not every problem can be computed in every way.
        let problem = match Problem::new(&AttentionDescriptor {
            algorithm,
            ..descriptor.clone()
        }) {
            Ok(problem) => problem,
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        for caps in devices(classes) {
            match Plan::new(&problem, &caps) {
                Ok(plan) => plan
                    .passes()
                    .iter()
                    .for_each(|pass| name(&mut named, &plan, plan.kernel(pass))),
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
    }
    match refused {
        Some(error) if named.is_empty() => Err(error),
        _ => Ok(named),
    }
}

/// The kernels that the tuning rows are for on GPUs: those of the plans of attention with heads of 64 and 128 channels, causal and not,
/// for many query rows and for as few as a row asks for, and those of a projection. Storage is `f32`; the fused kernels for many rows
/// are there for `f16` too.
///
/// # Errors
/// None, unless a row fits no device.
pub fn tuned() -> Result<Vec<Named>> {
    let mut few: Vec<u32> = TILES.iter().filter_map(|tile| tile.max_seqlen_q).collect();
    few.sort_unstable();
    few.dedup();
    let mut all = Vec::new();
    for seqlen_q in [MANY].into_iter().chain(few) {
        for head_dim in [64, 128] {
            for causal in [None, Some(CausalAlignment::LowerRight)] {
                let descriptor = AttentionDescriptor {
                    shape: AttentionShape::new(1, 8, seqlen_q, MANY, head_dim),
                    causal,
                    ..Default::default()
                };
                let mut kernels = planned_for(&descriptor, GPUS)?;
                if seqlen_q == MANY {
                    kernels.extend(planned_for(
                        &AttentionDescriptor {
                            dtypes: DTypes::all(DType::F16),
                            algorithm: Algorithm::Fused,
                            ..descriptor
                        },
                        GPUS,
                    )?);
                }
                kernels.into_iter().for_each(|named| join(&mut all, named));
            }
        }
        let problem = Problem::linear(&Linear {
            batch: 1,
            rows: seqlen_q,
            in_features: MANY,
            out_features: MANY,
            input: [seqlen_q * MANY, MANY],
            output: [seqlen_q * MANY, MANY],
            bias: true,
        })?;
        for caps in devices(GPUS) {
            let plan = Plan::linear(&problem, &caps)?;
            plan.passes()
                .iter()
                .for_each(|pass| name(&mut all, &plan, plan.kernel(pass)));
        }
    }
    Ok(all)
}

/// The kernels of the matrix family, on a discrete GPU with subgroups of 32 and 64 invocations that multiplies 16 x 16 halves: with
/// heads of 64 and 128 channels, causal and not, for many query rows; storage is `f16`.
///
/// # Errors
/// None, unless the family fits no device.
pub fn tuned_matrices() -> Result<Vec<Named>> {
    let mut all = Vec::new();
    for head_dim in [64, 128] {
        for causal in [None, Some(CausalAlignment::LowerRight)] {
            let problem = Problem::new(&AttentionDescriptor {
                shape: AttentionShape::new(1, 8, MANY, MANY, head_dim),
                dtypes: DTypes::all(DType::F16),
                causal,
                ..Default::default()
            })?;
            for caps in devices(&[DeviceClass::Discrete]).filter(|caps| caps.tier > Tier::Portable) {
                let caps = DeviceCaps {
                    matrix_shapes: vec![MatrixShape::F16Size16],
                    ..caps
                };
                let plan = Plan::new(&problem, &caps)?;
                plan.passes()
                    .iter()
                    .for_each(|pass| name(&mut all, &plan, plan.kernel(pass)));
            }
        }
    }
    Ok(all)
}

/// Every way to compute attention.
const ALGORITHMS: &[Algorithm] = &[Algorithm::Fused, Algorithm::ThreeKernels];

/// More query rows than any tile has, and keys enough to loop over.
const MANY: u32 = 512;

/// The classes, GPUs first.
const CLASSES: [DeviceClass; 4] = [
    DeviceClass::Unknown,
    DeviceClass::Discrete,
    DeviceClass::Integrated,
    DeviceClass::Cpu,
];
const GPUS: &[DeviceClass] = CLASSES.split_at(3).0;

/// A device of each tier and of each of these classes. Above the portable tier it has all that a kernel can use.
fn devices(classes: &[DeviceClass]) -> impl Iterator<Item = DeviceCaps> {
    Tier::ALL.into_iter().rev().flat_map(move |tier| {
        classes.iter().map(move |&class| {
            let caps = DeviceCaps {
                class,
                tier: Tier::ALL[Tier::ALL.len() - 1],
                limits: CapsLimits {
                    max_workgroup_bytes: 32 << 10,
                    ..CapsLimits::PORTABLE
                },
                backend: "vulkan".to_owned(),
                // Software drivers have subgroups of a vector's lanes.
                subgroup_sizes: Some(if class == DeviceClass::Cpu { (8, 8) } else { (32, 64) }),
                shader_f16: true,
                ..Default::default()
            };
            caps.at_most(tier)
        })
    })
}

/// Adds a plan's kernel, named by what its text depends on.
fn name(named: &mut Vec<Named>, plan: &Plan, kernel: KernelConfig) {
    let mut name = kernel.skeleton().name().to_owned();
    if kernel.constant("TILE_KV").is_some() {
        name = format!("{name}-{}", plan.tile().name.replace(' ', "-"));
    }
    if let Some(dim) = kernel.constant("HEAD_DIM").or(kernel.constant("HEAD_DIM_V")) {
        name = format!("{name}-d{dim}");
    }
    if plan.problem().causal().is_some() {
        name.push_str("-causal");
    }
    match plan.problem().dtypes().key {
        DType::F32 => {}
        DType::F16 => name.push_str("-f16"),
        DType::Bf16 => name.push_str("-bf16"),
    }
    if kernel.parts().any(|part| part.name == "tile/loops_one.wgsl") {
        name.push_str("-one_loop");
    }
    join(named, Named { name, kernel });
}

/// Adds a kernel unless it is there, under a name that is not.
fn join(named: &mut Vec<Named>, new: Named) {
    if named.iter().any(|one| one.kernel == new.kernel) {
        return;
    }
    let taken = |name: &str| named.iter().any(|one| one.name == name);
    let numbered = (2..).map(|count| format!("{}-{count}", new.name));
    let name = std::iter::once(new.name.clone())
        .chain(numbered)
        .find(|name| !taken(name));
    named.extend(name.map(|name| Named { name, ..new }));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Each tuning row is in the list of tuned kernels, and no kernel or name is there twice.
    #[test]
    fn every_tuning_row_is_among_the_tuned_kernels() {
        let tuned = tuned().unwrap();
        for tile in TILES {
            let name = tile.name.replace(' ', "-");
            assert!(
                tuned.iter().any(|named| named.name.contains(&name)),
                "{name}: for no device of `devices`"
            );
        }
        let names: HashSet<_> = tuned.iter().map(|named| &named.name).collect();
        let kernels: HashSet<_> = tuned.iter().map(|named| &named.kernel).collect();
        assert_eq!((names.len(), kernels.len()), (tuned.len(), tuned.len()));
    }
}
