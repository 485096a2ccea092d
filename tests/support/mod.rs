//! What the test suites share: adapters, seeded inputs, and the comparator.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "each suite uses a part")]

pub mod compare;
pub mod inputs;
pub mod run;

use wgpu_attention::{DeviceCaps, DeviceClass, Engine, Family, MatrixShape, Tier};

pub use compare::{Tolerance, compare};
pub use inputs::OwnedInputs;

/// Every adapter present, at every tier that it has, with a name for messages.
pub fn engines() -> Vec<(String, Engine)> {
    let mut engines = Vec::new();
    for adapter in wgpu_attention::adapters(None) {
        let name = adapter.get_info().name;
        let engine =
            pollster::block_on(Engine::from_adapter(&adapter)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for tier in Tier::ALL.into_iter().filter(|&tier| tier <= engine.caps().tier) {
            engines.push((format!("{name} ({tier})"), engine.at_most(tier)));
        }
    }
    assert!(!engines.is_empty(), "no adapter: run tools/ensure-vulkan.sh");
    engines
}

/// Those, and each once more as a GPU of which nothing but its class is known: its plans are of the tile family, and for few rows of
/// the split one.
pub fn engines_and_gpus() -> Vec<(String, Engine)> {
    let engines = engines();
    let gpus: Vec<_> = engines
        .iter()
        .map(|(name, engine)| {
            let caps = DeviceCaps {
                class: DeviceClass::Discrete,
                ..engine.caps().clone()
            };
            (format!("{name}, as a GPU"), engine.with_caps(caps))
        })
        .collect();
    engines.into_iter().chain(gpus).collect()
}

/// Those, and each once more for every family of kernels that a plan for it need not choose by itself.
pub fn engines_of_every_family() -> Vec<(String, Engine)> {
    let mut engines = engines_and_gpus();
    for (name, engine) in self::engines() {
        for family in Family::ALL {
            // That is what GPUs have, and all that the portable tier has.
            if family == Family::Tile || engine.caps().tier == Tier::Portable {
                continue;
            }
            let caps = DeviceCaps {
                only_family: Some(family),
                matrix_shapes: match family {
                    Family::Matrix => matrix_shapes(&engine),
                    _ => Vec::new(),
                },
                ..engine.caps().clone()
            };
            engines.push((format!("{name}, {family}"), engine.with_caps(caps)));
        }
    }
    engines
}

/// Every adapter that multiplies matrices, with plans of the matrix family only.
pub fn matrix_engines() -> Vec<(String, Engine)> {
    let mut engines = engines_of_every_family();
    engines.retain(|(_, engine)| {
        engine.caps().only_family == Some(Family::Matrix) && !engine.caps().matrix_shapes.is_empty()
    });
    engines
}

/// What matrices an adapter multiplies. llvmpipe lists `f16` alone, but multiplies `f32` too.
pub fn matrix_shapes(engine: &Engine) -> Vec<MatrixShape> {
    let caps = engine.caps();
    let mut shapes = caps.matrix_shapes.clone();
    if caps.name.contains("llvmpipe") && !shapes.is_empty() && !shapes.contains(&MatrixShape::F32Size8) {
        shapes.push(MatrixShape::F32Size8);
    }
    shapes
}

/// The best adapter.
pub fn engine() -> Engine {
    Engine::new().expect("an adapter: run tools/ensure-vulkan.sh")
}
