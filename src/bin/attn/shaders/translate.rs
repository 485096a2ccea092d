//! naga's other languages, with the options that wgpu 30 has for a module that is created as trusted, on a current driver: no
//! checks of indexes, divisors and loops, workgroup memory not set to zero, registers and slots in the order of the bindings.

use naga::back::{hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, SubgroupOperationSet, ValidationFlags, Validator};
use naga::{Module, ResourceBinding, ShaderStage};
use wgpu_attention::kernel::source::Access;

/// The version of SPIR-V that Vulkan 1.3 has.
const SPIRV: (u8, u8) = (1, 6);
/// The version of Metal's language.
const MSL: (u8, u8) = (3, 2);
/// DX12's version of the language.
const HLSL: hlsl::ShaderModel = hlsl::ShaderModel::V6_6;
/// Every kernel's entry point.
const ENTRY_POINT: &str = "main";

/// A module that naga finds right.
pub struct Valid {
    module: Module,
    info: ModuleInfo,
}

/// Parses and validates a kernel, for a device that has every feature.
pub fn validate(text: &str) -> anyhow::Result<Valid> {
    let module = naga::front::wgsl::parse_str(text).map_err(|error| anyhow::anyhow!(error.emit_to_string(text)))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .map_err(|error| anyhow::anyhow!(error.emit_to_string(text)))?;
    Ok(Valid { module, info })
}

/// SPIR-V, little-endian. Bindings are numbered anew, in their order.
pub fn spirv(valid: &Valid, bindings: &[(u32, Access)]) -> anyhow::Result<Vec<u8>> {
    let numbered = (0..).zip(bindings).map(|(number, &(binding, _))| {
        let info = spv::BindingInfo {
            descriptor_set: 0,
            binding: number,
            binding_array_size: None,
        };
        (ResourceBinding { group: 0, binding }, info)
    });
    let options = spv::Options {
        binding_map: numbered.collect(),
        lang_version: SPIRV,
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        fake_missing_bindings: false,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        mesh_shader_primitive_indices_clamp: false,
        emit_int_div_checks: false,
        ..Default::default()
    };
    let entry_point = spv::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: ENTRY_POINT.to_owned(),
    };
    let words = spv::write_vec(&valid.module, &valid.info, &options, Some(&entry_point))?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

/// Metal's language. Buffers have slots in the order of the bindings, and the sizes of storage buffers the slot after them.
pub fn msl(valid: &Valid, bindings: &[(u32, Access)]) -> anyhow::Result<Vec<u8>> {
    let mut resources = msl::EntryPointResources::default();
    for (slot, &(binding, access)) in (0..).zip(bindings) {
        let target = msl::BindTarget {
            buffer: Some(slot),
            mutable: access == Access::ReadWrite,
            ..Default::default()
        };
        resources
            .resources
            .insert(ResourceBinding { group: 0, binding }, target);
    }
    resources.sizes_buffer = Some(u8::try_from(bindings.len())?);
    let options = msl::Options {
        lang_version: MSL,
        per_entry_point_map: [(ENTRY_POINT.to_owned(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: UNCHECKED,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        mesh_shader_primitive_indices_clamp: false,
        emit_int_div_checks: false,
        ray_query_initialization_tracking: false,
        ..Default::default()
    };
    let entry_point = msl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, ENTRY_POINT.to_owned())),
        vertex_pulling_transform: true,
        ..Default::default()
    };
    let (text, translated) = msl::write_string(&valid.module, &valid.info, &options, &entry_point)?;
    found(translated.entry_point_names)?;
    Ok(text.into_bytes())
}

/// DX12's language. Uniform, read-only and read-write buffers have registers of their own, each in the order of the bindings.
pub fn hlsl(valid: &Valid, bindings: &[(u32, Access)]) -> anyhow::Result<Vec<u8>> {
    let is_matrix = |ty: &naga::TypeInner| matches!(ty, naga::TypeInner::CooperativeMatrix { .. });
    // naga panics at these.
    if valid.module.types.iter().any(|(_, ty)| is_matrix(&ty.inner)) {
        anyhow::bail!("naga has no cooperative matrices in HLSL");
    }
    let mut options = hlsl::Options {
        shader_model: HLSL,
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: false,
        force_loop_bounding: false,
        mesh_shader_primitive_indices_clamp: false,
        ray_query_initialization_tracking: false,
        ..Default::default()
    };
    let mut registers = [0; 3];
    for &(binding, access) in bindings {
        let register = &mut registers[access as usize];
        let target = hlsl::BindTarget {
            register: *register,
            ..Default::default()
        };
        options
            .binding_map
            .insert(ResourceBinding { group: 0, binding }, target);
        *register += 1;
    }
    let entry_point = hlsl::PipelineOptions {
        entry_point: Some((ShaderStage::Compute, ENTRY_POINT.to_owned())),
    };
    let mut text = String::new();
    let translated = hlsl::Writer::new(&mut text, &options, &entry_point).write(&valid.module, &valid.info, None)?;
    found(translated.entry_point_names)?;
    Ok(text.into_bytes())
}

/// Both report apart what is wrong with an entry point alone.
fn found<E: std::error::Error + Send + Sync + 'static>(names: Vec<Result<String, E>>) -> anyhow::Result<()> {
    names.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

const UNCHECKED: BoundsCheckPolicies = BoundsCheckPolicies {
    index: BoundsCheckPolicy::Unchecked,
    buffer: BoundsCheckPolicy::Unchecked,
    image_load: BoundsCheckPolicy::Unchecked,
    binding_array: BoundsCheckPolicy::Unchecked,
};
