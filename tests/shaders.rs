//! Every shader composition through naga; struct layouts and bindings against naga's own.

use std::collections::BTreeSet;

use wgpu_attention::kernel::params::{CopyParams, MergeParams, Params, RopeParams, ScatterParams};
use wgpu_attention::kernel::source::{self, Access, Dialect, Extension, Unroll};
use wgpu_attention::kernel::{KernelConfig, Skeleton, Variant, catalog};
use wgpu_attention::plan::tuning::TILES;
use wgpu_attention::{AttentionDescriptor, AttentionShape, CausalAlignment, Problem};

/// Every three choices in every combination.
fn kernels() -> Vec<KernelConfig> {
    catalog::kernels(3)
}

/// Some kernel of an operation beside attention.
fn operation(name: &'static str) -> KernelConfig {
    let found = kernels()
        .into_iter()
        .find(|kernel| kernel.skeleton() == Skeleton::Operation(name));
    found.unwrap_or_else(|| panic!("no kernel of {name}"))
}

fn compose(kernel: &KernelConfig, unroll: Unroll, dialect: Dialect) -> String {
    source::compose(kernel, unroll, dialect).unwrap_or_else(|why| panic!("{kernel:?}: {why}"))
}

fn parse(kernel: &KernelConfig, unroll: Unroll) -> (String, naga::Module) {
    let text = compose(kernel, unroll, Dialect::Native);
    let module = naga::front::wgsl::parse_str(&text)
        .unwrap_or_else(|error| panic!("{kernel:?}\n{}", error.emit_to_string(&text)));
    (text, module)
}

fn validate(text: &str, module: &naga::Module, kernel: &KernelConfig) {
    validator(&kernel.extensions())
        .validate(module)
        .unwrap_or_else(|error| panic!("{kernel:?}\n{}", error.emit_to_string(text)));
}

/// A device of WebGPU's default features and these extensions.
fn validator(extensions: &[Extension]) -> naga::valid::Validator {
    // unpack2x16float, which is in WebGPU's core.
    let mut capabilities = naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let mut operations = naga::valid::SubgroupOperationSet::empty();
    for extension in extensions {
        match extension {
            Extension::F16 => capabilities |= naga::valid::Capabilities::SHADER_FLOAT16,
            Extension::Subgroups | Extension::SubgroupBranches => {
                capabilities |= naga::valid::Capabilities::SUBGROUP;
                operations = naga::valid::SubgroupOperationSet::all();
            }
            Extension::Int64 => capabilities |= naga::valid::Capabilities::SHADER_INT64,
            Extension::Matrices => capabilities |= naga::valid::Capabilities::COOPERATIVE_MATRIX,
        }
    }
    let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), capabilities);
    validator
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(operations);
    validator
}

/// The text without its line comments.
fn code(text: &str) -> String {
    let before_comment = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(before_comment).collect::<Vec<_>>().join("\n")
}

/// The extensions that a text uses, by its words.
fn used_extensions(text: &str) -> Vec<Extension> {
    let code = code(text);
    let words = code.split(|character: char| !character.is_alphanumeric() && character != '_');
    let uses = |extension: &Extension| match extension {
        Extension::F16 => words.clone().any(|word| word == "f16"),
        Extension::Subgroups => words.clone().any(|word| word.starts_with("subgroup")),
        Extension::SubgroupBranches => words.clone().any(|word| word == "subgroupAny"),
        Extension::Int64 => words.clone().any(|word| word == "u64"),
        Extension::Matrices => words.clone().any(|word| word.starts_with("coop")),
    };
    Extension::ALL.iter().copied().filter(uses).collect()
}

#[test]
fn every_composition_is_valid() {
    let kernels = kernels();
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
        // A broadcast's lane is a constant only once its loop is unrolled.
        if index % 17 == 0 && !matches!(kernel.skeleton(), Skeleton::Broadcast | Skeleton::Split) {
            let (text, module) = parse(kernel, Unroll::Rolled);
            validate(&text, &module, kernel);
        }
    }
}

/// Both dialects are the same text below their directives, which are those of the extensions that it uses.
#[test]
fn dialects_differ_by_their_directives() {
    for kernel in kernels().into_iter().filter(|kernel| kernel.is_in(Dialect::Web)) {
        let [native, web] = [Dialect::Native, Dialect::Web].map(|dialect| {
            let text = compose(&kernel, Unroll::Expanded, dialect);
            let directives = kernel.extensions().into_iter().filter_map(|one| one.directive(dialect));
            let head: String = directives.map(|directive| format!("{directive}\n")).collect();
            let body = text
                .strip_prefix(&head)
                .unwrap_or_else(|| panic!("no {head} in\n{text}"));
            assert!(!code(body).contains("enable "), "{kernel:?}");
            assert_eq!(used_extensions(body), kernel.extensions(), "{kernel:?}");
            body.to_owned()
        });
        assert_eq!(native, web);
    }
}

/// What naga takes, and what it refuses; `tools/dawn-check.mjs` asks Dawn the same.
#[test]
fn directives_are_what_naga_wants() {
    for extension in Extension::ALL {
        let body = match extension {
            Extension::F16 => "const half = 0.5h; fn f(x: f16) -> f16 { return x * half; }",
            Extension::Subgroups => "fn f(x: f32) -> f32 { return subgroupAdd(x); }",
            Extension::SubgroupBranches => {
                "fn f(x: u32) -> u32 { if (subgroupAny(x > 0u)) { return subgroupAdd(x); } return x; }"
            }
            Extension::Int64 => "fn f(x: u64) -> u32 { return u32(x >> 32u); }",
            Extension::Matrices => {
                "var<workgroup> w: array<f32, 64>; fn f() { var x: coop_mat8x8<f32, C>; coopStore(x, &w[0], 8u); }"
            }
        };
        let text = |dialect| format!("{}\n{body}", extension.directive(dialect).unwrap_or_default());
        let module = naga::front::wgsl::parse_str(&text(Dialect::Native)).unwrap();
        validator(&[extension]).validate(&module).unwrap();
        assert!(
            validator(&[]).validate(&module).is_err(),
            "{extension:?} needs no feature"
        );
        let web_is_refused = naga::front::wgsl::parse_str(&text(Dialect::Web)).is_err();
        let differs = text(Dialect::Native) != text(Dialect::Web);
        assert_eq!(
            web_is_refused,
            differs && extension != Extension::SubgroupBranches,
            "{extension:?}"
        );
    }
}

#[test]
fn bindings_are_those_that_the_files_declare() {
    for kernel in kernels().iter().step_by(7) {
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
    }
}

#[test]
fn params_lie_where_naga_says() {
    let kernel = &kernels()[0];
    let (_, module) = parse(kernel, Unroll::Expanded);
    assert_struct(&module, "Params", Params::MEMBERS, std::mem::size_of::<Params>());

    let (_, module) = parse(&operation("merge_states"), Unroll::Expanded);
    let size = std::mem::size_of::<MergeParams>();
    assert_struct(&module, "MergeParams", MergeParams::MEMBERS, size);

    let (_, module) = parse(&operation("rope"), Unroll::Expanded);
    let size = std::mem::size_of::<RopeParams>();
    assert_struct(&module, "RopeParams", RopeParams::MEMBERS, size);

    let (_, module) = parse(&operation("copy"), Unroll::Expanded);
    let size = std::mem::size_of::<CopyParams>();
    assert_struct(&module, "CopyParams", CopyParams::MEMBERS, size);

    let (_, module) = parse(&operation("tensor_scatter"), Unroll::Expanded);
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
