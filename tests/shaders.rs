//! Every shader composition through naga; struct layouts and bindings against naga's own.

use std::collections::BTreeSet;

use wgpu_attention::kernel::params::{CopyParams, MergeParams, Params, ScatterParams};
use wgpu_attention::kernel::source::{self, Access, Unroll};
use wgpu_attention::kernel::{KernelConfig, Skeleton, Variant, operations};
use wgpu_attention::plan::tuning::TILES;
use wgpu_attention::{
    Algorithm, AttentionDescriptor, AttentionShape, Broadcast, CausalAlignment, DType, KeyPadding, Problem,
};

/// Every composition of the attention kernels: skeletons x tiles x hooks x odd and even head sizes.
fn attention_kernels() -> Vec<KernelConfig> {
    let mut kernels = BTreeSet::new();
    let mut all = Vec::new();
    for head_dim in [1, 64, 128, 130] {
        for features in 0..24 {
            let shape = AttentionShape {
                head_dim_v: head_dim + head_dim % 3,
                ..AttentionShape::new(1, 2, 3, 5, head_dim)
            };
            let problem = Problem::new(&AttentionDescriptor {
                shape,
                causal: (features & 1 != 0).then_some(CausalAlignment::LowerRight),
                mask: (features & 2 != 0).then_some(Broadcast::new([1, 2, 3, 5])),
                bias: (features & 4 != 0).then_some(Broadcast::new([1, 2, 3, 5])),
                key_padding: [None, Some(KeyPadding::Boolean), Some(KeyPadding::Additive)][features >> 3],
                algorithm: Algorithm::Auto,
                ..Default::default()
            })
            .unwrap();
            for tile in TILES {
                for variant in 0..8 {
                    let resume = variant & 1 != 0;
                    let vec4 = variant & 4 != 0;
                    let variant = Variant {
                        resume,
                        lse: resume || variant & 2 != 0,
                        query_vec4: vec4,
                        key_vec4: vec4,
                        value_vec4: vec4,
                        out_vec4: vec4,
                    };
                    for skeleton in [
                        Skeleton::Fused,
                        Skeleton::Scores,
                        Skeleton::Softmax,
                        Skeleton::WeightedValues,
                        Skeleton::Linear,
                        Skeleton::AverageHeads,
                    ] {
                        let kernel = KernelConfig::attention(skeleton, &problem, tile, variant);
                        if kernels.insert(format!("{kernel:?}")) {
                            all.push(kernel);
                        }
                    }
                }
            }
        }
    }
    all
}

/// Every composition of the operations beside attention.
fn operation_kernels() -> Vec<KernelConfig> {
    let mut kernels = Vec::new();
    for dtype in DType::ALL {
        for out_dtype in DType::ALL {
            kernels.push(operations::merge_states(dtype, out_dtype, false));
        }
        kernels.push(operations::merge_states(dtype, DType::F32, true));
        kernels.push(operations::copy(dtype));
        for variant in 0..4 {
            kernels.push(operations::tensor_scatter(dtype, variant & 1 != 0, variant & 2 != 0));
        }
    }
    kernels
}

fn all_kernels() -> Vec<KernelConfig> {
    let mut kernels = attention_kernels();
    kernels.extend(operation_kernels());
    kernels
}

fn parse(kernel: &KernelConfig, unroll: Unroll) -> (String, naga::Module) {
    let text = source::compose(kernel, unroll).unwrap_or_else(|why| panic!("{kernel:?}: {why}"));
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{kernel:?}\n{}", error.emit_to_string(&text)));
    (text, module)
}

fn validate(text: &str, module: &naga::Module, kernel: &KernelConfig) {
    let capabilities = naga::valid::Capabilities::empty();
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities)
        .validate(module)
        .unwrap_or_else(|error| panic!("{kernel:?}\n{}", error.emit_to_string(text)));
}

#[test]
fn every_composition_is_valid() {
    let kernels = all_kernels();
    assert!(kernels.len() > 500, "only {} compositions", kernels.len());
    let used: BTreeSet<_> = kernels
        .iter()
        .flat_map(KernelConfig::parts)
        .map(|part| part.name)
        .collect();
    let unused: Vec<_> = source::PARTS.iter().filter(|part| !used.contains(part.name)).collect();
    assert!(unused.is_empty(), "in no composition: {unused:?}");
    for (index, kernel) in kernels.iter().enumerate() {
        let (text, module) = parse(kernel, Unroll::Expanded);
        validate(&text, &module, kernel);
        if index % 53 == 0 {
            let (text, module) = parse(kernel, Unroll::Rolled);
            validate(&text, &module, kernel);
        }
    }
}

#[test]
fn bindings_are_those_that_the_files_declare() {
    for kernel in attention_kernels().iter().step_by(7).chain(&operation_kernels()) {
        let (_, module) = parse(kernel, Unroll::Expanded);
        let mut found: Vec<(u32, Access)> = module
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let binding = variable.binding.as_ref()?;
                assert_eq!(binding.group, 0);
                let access = match variable.space {
                    naga::AddressSpace::Uniform => Access::Uniform,
                    naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE) => {
                        Access::ReadWrite
                    }
                    naga::AddressSpace::Storage { .. } => Access::Read,
                    other => panic!("{other:?}"),
                };
                Some((binding.binding, access))
            })
            .collect();
        found.sort_unstable();
        assert_eq!(found, kernel.bindings(), "{kernel:?}");
        let storage = found.iter().filter(|(_, access)| *access != Access::Uniform).count();
        assert!(storage <= 8, "{storage} storage buffers: {kernel:?}");
    }
}

#[test]
fn params_lie_where_naga_says() {
    let kernel = &attention_kernels()[0];
    let (_, module) = parse(kernel, Unroll::Expanded);
    assert_struct(&module, "Params", Params::MEMBERS, std::mem::size_of::<Params>());

    let (_, module) = parse(
        &operations::merge_states(DType::F32, DType::F32, false),
        Unroll::Expanded,
    );
    let size = std::mem::size_of::<MergeParams>();
    assert_struct(&module, "MergeParams", MergeParams::MEMBERS, size);

    let (_, module) = parse(&operations::copy(DType::F32), Unroll::Expanded);
    let size = std::mem::size_of::<CopyParams>();
    assert_struct(&module, "CopyParams", CopyParams::MEMBERS, size);

    let (_, module) = parse(&operations::tensor_scatter(DType::F32, false, true), Unroll::Expanded);
    let size = std::mem::size_of::<ScatterParams>();
    assert_struct(&module, "ScatterParams", ScatterParams::MEMBERS, size);
}

fn assert_struct(module: &naga::Module, name: &str, members: &[(&str, usize)], size: usize) {
    let (_, ty) = module
        .types
        .iter()
        .find(|(_, ty)| ty.name.as_deref() == Some(name))
        .expect(name);
    let naga::TypeInner::Struct { members: found, span } = &ty.inner else {
        panic!("{name} is no struct")
    };
    let found: Vec<_> = found
        .iter()
        .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize))
        .collect();
    assert_eq!(found, members);
    assert_eq!(*span as usize, size);
}

#[test]
fn workgroup_memory_is_what_the_tuning_rows_say() {
    for tile in TILES {
        for head_dim in [1, 33, 64, 128] {
            let shape = AttentionShape::new(1, 1, 1, 1, head_dim);
            let problem = Problem::new(&AttentionDescriptor {
                shape,
                causal: Some(CausalAlignment::UpperLeft),
                ..Default::default()
            })
            .unwrap();
            let kernel = KernelConfig::attention(Skeleton::Fused, &problem, tile, Variant::default());
            let (_, module) = parse(&kernel, Unroll::Expanded);
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).unwrap();
            let bytes: u32 = module
                .global_variables
                .iter()
                .filter(|(_, variable)| variable.space == naga::AddressSpace::WorkGroup)
                .map(|(_, variable)| layouter[variable.ty].size)
                .sum();
            let claimed = tile.workgroup_bytes(&shape);
            assert!(
                bytes <= claimed && claimed <= bytes + 16,
                "{}: {bytes} against {claimed}",
                tile.name
            );
        }
    }
}
