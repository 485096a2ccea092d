//! Compiling through a Vulkan driver that hands out what its compiler says of a pipeline (`VK_KHR_pipeline_executable_properties`).
#![allow(
    unsafe_code,
    reason = "raw Vulkan: wgpu neither asks for these properties nor runs on a driver without a device"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};

use anyhow::Context as _;
use ash::{ext, khr, vk};

/// A device that compiles. It is never given back: the process ends soon after.
pub struct Device {
    device: ash::Device,
    properties: khr::pipeline_executable_properties::Device,
    /// The GPU's name.
    pub name: String,
    /// The driver's name and version.
    pub driver: String,
}

/// What a compiler says of a pipeline.
pub struct Compiled {
    pub subgroup_size: u32,
    /// By the driver's own names.
    pub statistics: BTreeMap<String, u64>,
    /// The last representation, which is machine code.
    pub listing: String,
}

impl Device {
    /// The first device of the driver that the environment names, with every feature that it has, as far as it counts here.
    pub fn open() -> anyhow::Result<Self> {
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let instance_info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the loader is a library that holds to Vulkan, and all structs are of ash's own making.
        let (entry, instance) = unsafe {
            let entry = ash::Entry::load().context("no Vulkan loader")?;
            let instance = entry.create_instance(&instance_info, None).context("no instance")?;
            (entry, instance)
        };
        // SAFETY: the instance is alive, here and below: it is never destroyed.
        let gpus = unsafe { instance.enumerate_physical_devices() }.context("no devices")?;
        let gpu = *gpus.first().context("the driver has no device")?;
        let (name, driver) = names(&instance, gpu)?;
        let device = device(&instance, gpu)?;
        let properties = khr::pipeline_executable_properties::Device::new(&instance, &device);
        // Its functions are called to the end.
        std::mem::forget(entry);
        Ok(Self {
            device,
            properties,
            name,
            driver,
        })
    }

    /// Compiles a compute kernel whose entry point is `main`, as wgpu asks for it.
    pub fn compile(&self, words: &[u32]) -> anyhow::Result<Compiled> {
        let bindings: Vec<_> = bindings(words)
            .into_iter()
            .map(|(binding, uniform)| {
                let ty = if uniform {
                    vk::DescriptorType::UNIFORM_BUFFER
                } else {
                    vk::DescriptorType::STORAGE_BUFFER
                };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(ty)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let set_info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        let module_info = vk::ShaderModuleCreateInfo::default().code(words);
        // SAFETY: the device is alive, and naga has found the module right.
        let (set, module) = unsafe {
            let set = self.device.create_descriptor_set_layout(&set_info, None)?;
            (set, self.device.create_shader_module(&module_info, None)?)
        };
        let sets = [set];
        let layout_info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: the set's layout is alive.
        let layout = unsafe { self.device.create_pipeline_layout(&layout_info, None)? };
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let pipeline_info = vk::ComputePipelineCreateInfo::default()
            .flags(
                vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
                    | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR,
            )
            .stage(stage)
            .layout(layout);
        // SAFETY: module and layout are alive.
        let pipelines = unsafe {
            self.device
                .create_compute_pipelines(vk::PipelineCache::null(), &[pipeline_info], None)
        };
        let pipeline = pipelines.map_err(|(_, result)| result).context("the pipeline")?[0];
        self.describe(pipeline)
    }

    fn describe(&self, pipeline: vk::Pipeline) -> anyhow::Result<Compiled> {
        let pipeline_info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // A compute pipeline is one executable.
        let executable_info = vk::PipelineExecutableInfoKHR::default()
            .pipeline(pipeline)
            .executable_index(0);
        // SAFETY: the pipeline is alive and was made to keep all this.
        let (executables, statistics) = unsafe {
            (
                self.properties.get_pipeline_executable_properties(&pipeline_info)?,
                self.properties.get_pipeline_executable_statistics(&executable_info)?,
            )
        };
        let statistics = statistics.iter().map(|statistic| {
            // SAFETY: RADV's are all of this format, and other formats are as long.
            let value = unsafe { statistic.value.u64 };
            (text(&statistic.name), value)
        });
        Ok(Compiled {
            subgroup_size: executables.first().context("no executable")?.subgroup_size,
            statistics: statistics.collect(),
            listing: self.listing(&executable_info)?,
        })
    }

    fn listing(&self, executable_info: &vk::PipelineExecutableInfoKHR<'_>) -> anyhow::Result<String> {
        // SAFETY: as above; without a place for the text this asks for its size.
        let mut representations = unsafe {
            self.properties
                .get_pipeline_executable_internal_representations(executable_info)?
        };
        let mut texts: Vec<Vec<u8>> = representations.iter().map(|one| vec![0; one.data_size]).collect();
        for (one, text) in representations.iter_mut().zip(&mut texts) {
            one.p_data = text.as_mut_ptr().cast();
        }
        let mut count = u32::try_from(representations.len())?;
        // SAFETY: each text has the size that was asked for, and lives on.
        unsafe {
            let get = self
                .properties
                .fp()
                .get_pipeline_executable_internal_representations_khr;
            get(
                self.properties.device(),
                executable_info,
                &mut count,
                representations.as_mut_ptr(),
            )
            .result()?;
        }
        let last = texts.last().context("no listing of machine code")?;
        Ok(String::from_utf8_lossy(last).into_owned())
    }
}

/// The names of a GPU, and of its driver with its version.
fn names(instance: &ash::Instance, gpu: vk::PhysicalDevice) -> anyhow::Result<(String, String)> {
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
    // SAFETY: the instance is alive.
    unsafe { instance.get_physical_device_properties2(gpu, &mut properties) };
    let name = text(&properties.properties.device_name);
    let driver = format!("{} {}", text(&driver.driver_name), text(&driver.driver_info));
    Ok((name, driver))
}

/// A device with all features that the GPU has. wgpu asks for the checks of buffers' ends where there are any.
fn device(instance: &ash::Instance, gpu: vk::PhysicalDevice) -> anyhow::Result<ash::Device> {
    let mut vulkan11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut vulkan13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
    let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
    let mut features = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut vulkan11)
        .push_next(&mut vulkan12)
        .push_next(&mut vulkan13)
        .push_next(&mut robustness)
        .push_next(&mut matrices);
    // SAFETY: the instance is alive.
    let extensions = unsafe {
        instance.get_physical_device_features2(gpu, &mut features);
        instance.enumerate_device_extension_properties(gpu)?
    };
    let core = features.features;
    let has = |name: &CStr| extensions.iter().any(|one| one.extension_name_as_c_str() == Ok(name));
    let wanted = [
        khr::pipeline_executable_properties::NAME,
        ext::robustness2::NAME,
        khr::cooperative_matrix::NAME,
    ];
    let enabled: Vec<*const c_char> = wanted
        .iter()
        .filter(|name| has(name))
        .map(|name| name.as_ptr())
        .collect();
    anyhow::ensure!(has(wanted[0]), "the driver says nothing of pipelines");
    // The chain of the question is not that of the order.
    for next in [
        &mut vulkan11.p_next,
        &mut vulkan12.p_next,
        &mut vulkan13.p_next,
        &mut robustness.p_next,
        &mut matrices.p_next,
    ] {
        *next = std::ptr::null_mut();
    }
    vulkan11.protected_memory = 0;
    robustness.null_descriptor = 0;
    let mut executables =
        vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
    let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&[1.0])];
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&enabled)
        .enabled_features(&core)
        .push_next(&mut vulkan11)
        .push_next(&mut vulkan12)
        .push_next(&mut vulkan13)
        .push_next(&mut executables);
    if has(ext::robustness2::NAME) {
        info = info.push_next(&mut robustness);
    }
    if has(khr::cooperative_matrix::NAME) {
        info = info.push_next(&mut matrices);
    }
    // SAFETY: everything asked for is there.
    unsafe { instance.create_device(gpu, &info, None) }.context("no device")
}

/// Binding numbers of a module's buffers, and whether each is uniform.
fn bindings(words: &[u32]) -> Vec<(u32, bool)> {
    const OP_VARIABLE: u32 = 59;
    const OP_DECORATE: u32 = 71;
    const BINDING: u32 = 33;
    const UNIFORM: u32 = 2;
    let mut numbers = BTreeMap::new();
    let mut found = Vec::new();
    let mut rest = words.get(5..).unwrap_or_default();
    while let Some(&head) = rest.first() {
        let (instruction, after) = rest.split_at(rest.len().min((head >> 16).max(1) as usize));
        match (head & 0xffff, instruction) {
            (OP_DECORATE, &[_, id, BINDING, number]) => {
                numbers.insert(id, number);
            }
            // Decorations come before variables.
            (OP_VARIABLE, &[_, _, id, class, ..]) => {
                found.extend(numbers.get(&id).map(|&number| (number, class == UNIFORM)));
            }
            _ => {}
        }
        rest = after;
    }
    found
}

fn text(characters: &[c_char]) -> String {
    let bytes = characters.iter().map(|&character| character as u8);
    String::from_utf8_lossy(&bytes.take_while(|&byte| byte != 0).collect::<Vec<_>>()).into_owned()
}
