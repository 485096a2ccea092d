//! The matrix family, on every adapter that multiplies matrices: against the `f64` reference, for each shape of matrices.

mod support;

use support::run::{check, check_inputs};
use support::{OwnedInputs, engines};
use wgpu_attention::kernel::Skeleton;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DType, DTypes, DeviceCaps, DeviceClass,
    Engine, Family, KeyPadding, MatrixShape, Outputs, Plan, Problem, Tier,
};

/// Each adapter once for each shape of matrices. llvmpipe lists one only, and multiplies them all.
fn engines_of_every_shape() -> Vec<(String, Engine, MatrixShape)> {
    let mut all = Vec::new();
    for (name, engine) in engines() {
        let caps = engine.caps();
        let shapes = match caps.name.contains("llvmpipe") && !caps.matrix_shapes.is_empty() {
            true => MatrixShape::ALL.to_vec(),
            false => caps.matrix_shapes.clone(),
        };
        for shape in shapes {
            let caps = DeviceCaps {
                only_family: Some(Family::Matrix),
                matrix_shapes: vec![shape],
                ..caps.clone()
            };
            all.push((format!("{name}, {shape}"), engine.with_caps(caps), shape));
        }
    }
    all
}

/// Storage that such matrices are of.
fn dtypes(shape: MatrixShape) -> DTypes {
    DTypes::all(match shape.element_bytes() {
        2 => DType::F16,
        _ => DType::F32,
    })
}

fn is_matrix(engine: &Engine, descriptor: &AttentionDescriptor<'_>) -> bool {
    let plan = engine.plan(descriptor).unwrap();
    plan.passes().iter().any(|pass| pass.skeleton == Skeleton::Matrix)
}

#[test]
fn sizes_agree_with_the_reference() {
    for (name, engine, shape) in engines_of_every_shape() {
        for (index, (rows, keys, head_dim, head_dim_v)) in
            [(1, 1, 64, 64), (16, 16, 16, 16), (33, 65, 64, 64), (70, 129, 20, 36)]
                .into_iter()
                .enumerate()
        {
            let descriptor = AttentionDescriptor {
                shape: AttentionShape {
                    head_dim_v,
                    kv_heads: 1,
                    ..AttentionShape::new(2, 2, rows, keys, head_dim)
                },
                dtypes: dtypes(shape),
                causal: [None, Some(CausalAlignment::LowerRight)][index % 2],
                outputs: Outputs {
                    lse: true,
                    ..Default::default()
                },
                ..Default::default()
            };
            assert!(is_matrix(&engine, &descriptor), "{name}: {descriptor:?}");
            check(&name, &engine, &descriptor, index as u64);
        }
    }
}
