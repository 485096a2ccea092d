//! What a device can do: the only reader of wgpu's adapter info, features and limits.
//!
//! Differences between devices are few: a [`Tier`], each a superset of the one below, a [`DeviceClass`], the limits that plans
//! are made for, and a short list of quirks.

use std::fmt;
use std::sync::Arc;

use crate::tune::Tuning;

/// What kernels may use. Each tier includes the ones before it, and a lower one can always be asked for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Tier {
    /// WebGPU's default limits and no optional feature: 8 storage buffers, 16 KiB of workgroup memory, 256 invocations,
    /// 128 MiB bindings. Every adapter has it.
    Portable,
    /// 32 KiB of workgroup memory, and the adapter's own limits.
    Extended,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Portable => "portable",
            Tier::Extended => "extended",
        })
    }
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Tier; 2] = [Tier::Portable, Tier::Extended];
}

/// Kernels of one design. All compute the same; which is fastest depends on the device.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Family {
    /// Tiles of keys and values in workgroup memory: `shaders/fused.wgsl` and the three kernels. For GPUs, and everywhere.
    Tile,
    /// No workgroup memory: rows in registers, keys and values shared by subgroup shuffles: `shaders/broadcast.wgsl`. For
    /// software drivers.
    Broadcast,
    /// No workgroup memory: rows in registers, keys and values loaded at addresses that are the same for all invocations:
    /// `shaders/uniform.wgsl`. For compilers that make scalar loads of these.
    Uniform,
    /// For few query rows: the keys cut into runs visited side by side, rows that share a key/value head visited together:
    /// `shaders/split.wgsl`.
    Split,
    /// Products of matrices that a subgroup computes together, for GPUs with units for these: `shaders/matrix.wgsl`.
    Matrix,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 5] = [
        Family::Tile,
        Family::Broadcast,
        Family::Uniform,
        Family::Split,
        Family::Matrix,
    ];
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Tile => "tile",
            Family::Broadcast => "broadcast",
            Family::Uniform => "uniform",
            Family::Split => "split",
            Family::Matrix => "matrix",
        })
    }
}

/// What matrices a subgroup multiplies together: `[size, size]` times `[size, size]`, summed in `f32`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum MatrixShape {
    /// 16 x 16 of `f16`.
    F16Size16,
    /// 8 x 8 of `f16`.
    F16Size8,
    /// 8 x 8 of `f32`.
    F32Size8,
}

impl MatrixShape {
    /// All of them, those that plans prefer first.
    pub const ALL: [MatrixShape; 3] = [MatrixShape::F16Size16, MatrixShape::F16Size8, MatrixShape::F32Size8];

    /// Rows and columns.
    pub const fn size(self) -> u32 {
        match self {
            MatrixShape::F16Size16 => 16,
            MatrixShape::F16Size8 | MatrixShape::F32Size8 => 8,
        }
    }

    /// Bytes of an element of what is multiplied.
    pub const fn element_bytes(self) -> u32 {
        match self {
            MatrixShape::F16Size16 | MatrixShape::F16Size8 => 2,
            MatrixShape::F32Size8 => 4,
        }
    }

    /// Whether an adapter lists it.
    fn is_listed(self, listed: &[wgpu::CooperativeMatrixProperties]) -> bool {
        let size = self.size();
        let input = match self.element_bytes() {
            2 => wgpu::CooperativeScalarType::F16,
            _ => wgpu::CooperativeScalarType::F32,
        };
        listed.iter().any(|one| {
            [one.m_size, one.n_size, one.k_size] == [size; 3]
                && one.ab_type == input
                && one.cr_type == wgpu::CooperativeScalarType::F32
        })
    }
}

impl fmt::Display for MatrixShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MatrixShape::F16Size16 => "16x16 f16",
            MatrixShape::F16Size8 => "8x8 f16",
            MatrixShape::F32Size8 => "8x8 f32",
        })
    }
}

/// What kind of machine answers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum DeviceClass {
    /// A software driver: lavapipe, SwiftShader, WARP.
    Cpu,
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A virtual GPU, or one that does not say (browsers).
    Unknown,
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceClass::Cpu => "software",
            DeviceClass::Discrete => "discrete",
            DeviceClass::Integrated => "integrated",
            DeviceClass::Unknown => "unknown",
        })
    }
}

/// All that a plan needs to know of a device. Plain data: it can be written down and replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceCaps {
    /// The adapter's name, empty in browsers.
    pub name: String,
    /// Vulkan, Metal, DX12 or WebGPU.
    pub backend: String,
    /// The driver and its version, empty in browsers.
    pub driver: String,
    /// What kind of machine answers.
    pub class: DeviceClass,
    /// The tier that plans are made for.
    pub tier: Tier,
    /// The limits that plans are made for.
    pub limits: CapsLimits,
    /// Smallest and largest subgroup, where the device has subgroup operations.
    pub subgroup_sizes: Option<(u32, u32)>,
    /// Whether shaders may use `f16`.
    pub shader_f16: bool,
    /// Whether shaders may use integers of 64 bits.
    pub shader_int64: bool,
    /// What matrices a subgroup multiplies together, in [`MatrixShape::ALL`]'s order: those that the adapter lists, where the device has
    /// `EXPERIMENTAL_COOPERATIVE_MATRIX` and an engine found that it multiplies right. Without any, no plan has the matrix family.
    pub matrix_shapes: Vec<MatrixShape>,
    /// Only kernels of this family, where the device has what they need: for tests and measurements.
    pub only_family: Option<Family>,
    /// Tiles that were measured on this device; plans try them before the built-in rows.
    pub tuning: Option<Arc<Tuning>>,
    /// Whether compute passes can be timed on the GPU.
    pub timestamps: bool,
    /// An invocation's loops end, silently, after this many trips in total (Mesa's llvmpipe before 25; measured on 22.3.6).
    pub max_loop_trips: Option<u32>,
    /// The driver takes seconds to compile what others do in tenths: texts are kept shorter (SwiftShader, and Mesa's llvmpipe
    /// from 25 on, whose time grows faster than the number of loads in the text). The broadcast family keeps loads in order there.
    pub compiles_slowly: bool,
    /// The driver compiles loops that move rows from register to register, as the broadcast family has them for shorter texts:
    /// Mesa's llvmpipe. SwiftShader takes minutes and gigabytes for some; others were not tried.
    pub rows_in_loops: bool,
    /// The most floating-point operations in one dispatch: a quarter of a second on the slowest device of the class, since
    /// desktops reset a GPU that is busy for two seconds.
    pub max_dispatch_flops: f64,
}

/// The limits that plans are made for, with WebGPU's names (`_bytes` where they are sizes).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CapsLimits {
    /// `maxStorageBufferBindingSize`.
    pub max_storage_buffer_binding_bytes: u64,
    /// `maxBufferSize`.
    pub max_buffer_bytes: u64,
    /// `maxStorageBuffersPerShaderStage`.
    pub max_storage_buffers: u32,
    /// `maxComputeWorkgroupStorageSize`.
    pub max_workgroup_bytes: u32,
    /// `maxComputeInvocationsPerWorkgroup`.
    pub max_invocations: u32,
    /// `maxComputeWorkgroupsPerDimension`.
    pub max_workgroups_per_dimension: u32,
    /// `minStorageBufferOffsetAlignment`.
    pub storage_offset_alignment_bytes: u32,
    /// `minUniformBufferOffsetAlignment`.
    pub uniform_offset_alignment_bytes: u32,
}

impl CapsLimits {
    /// WebGPU's default limits: what every adapter has.
    pub const PORTABLE: CapsLimits = CapsLimits {
        max_storage_buffer_binding_bytes: 128 << 20,
        max_buffer_bytes: 256 << 20,
        max_storage_buffers: 8,
        max_workgroup_bytes: 16 << 10,
        max_invocations: 256,
        max_workgroups_per_dimension: 65_535,
        storage_offset_alignment_bytes: 256,
        uniform_offset_alignment_bytes: 256,
    };

    /// The worse of two, limit by limit.
    fn worst(self, other: Self) -> Self {
        Self {
            max_storage_buffer_binding_bytes: self
                .max_storage_buffer_binding_bytes
                .min(other.max_storage_buffer_binding_bytes),
            max_buffer_bytes: self.max_buffer_bytes.min(other.max_buffer_bytes),
            max_storage_buffers: self.max_storage_buffers.min(other.max_storage_buffers),
            max_workgroup_bytes: self.max_workgroup_bytes.min(other.max_workgroup_bytes),
            max_invocations: self.max_invocations.min(other.max_invocations),
            max_workgroups_per_dimension: self
                .max_workgroups_per_dimension
                .min(other.max_workgroups_per_dimension),
            storage_offset_alignment_bytes: self
                .storage_offset_alignment_bytes
                .max(other.storage_offset_alignment_bytes),
            uniform_offset_alignment_bytes: self
                .uniform_offset_alignment_bytes
                .max(other.uniform_offset_alignment_bytes),
        }
    }
}

impl Default for DeviceCaps {
    /// A device of which nothing is known: WebGPU's default limits, no features.
    fn default() -> Self {
        Self {
            name: String::new(),
            backend: String::new(),
            driver: String::new(),
            class: DeviceClass::Unknown,
            tier: Tier::Portable,
            limits: CapsLimits::PORTABLE,
            subgroup_sizes: None,
            shader_f16: false,
            shader_int64: false,
            matrix_shapes: Vec::new(),
            only_family: None,
            tuning: None,
            timestamps: false,
            max_loop_trips: None,
            compiles_slowly: false,
            rows_in_loops: false,
            max_dispatch_flops: max_dispatch_flops(DeviceClass::Unknown),
        }
    }
}

impl DeviceCaps {
    /// Reads a device: what it was made with, not what its adapter could do.
    pub fn from_wgpu(info: &wgpu::AdapterInfo, features: wgpu::Features, limits: &wgpu::Limits) -> Self {
        let class = match info.device_type {
            wgpu::DeviceType::Cpu => DeviceClass::Cpu,
            wgpu::DeviceType::DiscreteGpu => DeviceClass::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceClass::Integrated,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => DeviceClass::Unknown,
        };
        let limits = CapsLimits {
            // Rounded down to what a binding's size must be a multiple of.
            max_storage_buffer_binding_bytes: limits.max_storage_buffer_binding_size & !3,
            max_buffer_bytes: limits.max_buffer_size,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            storage_offset_alignment_bytes: limits.min_storage_buffer_offset_alignment,
            uniform_offset_alignment_bytes: limits.min_uniform_buffer_offset_alignment,
        };
        let extended = limits.max_workgroup_bytes >= 32 << 10 && limits.max_storage_buffers >= 8;
        let subgroup_sizes = features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size));
        Self {
            name: info.name.clone(),
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            class,
            tier: if extended { Tier::Extended } else { Tier::Portable },
            limits,
            subgroup_sizes,
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            shader_int64: features.contains(wgpu::Features::SHADER_INT64),
            matrix_shapes: Vec::new(),
            only_family: None,
            tuning: None,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            max_loop_trips: max_loop_trips(&info.driver, &info.driver_info),
            compiles_slowly: compiles_slowly(&info.driver, &info.driver_info),
            rows_in_loops: info.driver == "llvmpipe",
            max_dispatch_flops: max_dispatch_flops(class),
        }
    }

    /// Whether each `lanes` invocations of a workgroup in a row, from a multiple of `lanes` on, are neighbours in one subgroup: of
    /// subgroups at least that large, whose lanes are numbered as `local_invocation_index` is.
    ///
    /// WGSL leaves that order open. Vulkan's and Metal's drivers number workgroups of one dimension so, as llvmpipe and
    /// SwiftShader do; of DX12's it is not taken for granted.
    pub fn lanes_in_order(&self, lanes: u32) -> bool {
        let numbered = ["vulkan", "metal"].contains(&self.backend.as_str());
        numbered && self.subgroup_sizes.is_some_and(|(least, _)| least >= lanes)
    }

    /// The same device, with no more than a tier allows. Asking for a higher tier than the device has changes nothing.
    #[must_use]
    pub fn at_most(mut self, tier: Tier) -> Self {
        if tier < self.tier {
            self.tier = tier;
        }
        if self.tier == Tier::Portable {
            self.limits = self.limits.worst(CapsLimits::PORTABLE);
            self.subgroup_sizes = None;
            self.shader_f16 = false;
            self.shader_int64 = false;
            self.matrix_shapes.clear();
        }
        self
    }

    /// Notes what matrices a device of these features multiplies, of those that its adapter lists:
    /// [`wgpu::Adapter::cooperative_matrix_properties`].
    #[must_use]
    pub fn with_matrices(mut self, features: wgpu::Features, listed: &[wgpu::CooperativeMatrixProperties]) -> Self {
        // Kernels count the workgroup's subgroups, and give each a share. llvmpipe of Mesa 26 lists matrices at any width of its
        // vectors, but makes no device with them at 4 lanes, and crashes when it compiles kernels with them for 16.
        let works = match self.driver.starts_with("llvmpipe") {
            true => self.subgroup_sizes == Some((8, 8)),
            false => self.subgroup_sizes.is_some(),
        };
        let has =
            works && features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) && self.tier > Tier::Portable;
        let usable =
            |shape: &MatrixShape| has && shape.is_listed(listed) && (shape.element_bytes() == 4 || self.shader_f16);
        self.matrix_shapes = MatrixShape::ALL.into_iter().filter(usable).collect();
        self
    }
}

/// A quarter of a second at the least rate that attention reaches on a device of the class: 40 GFLOP/s on the weakest
/// integrated ones, 400 on discrete ones. Software drivers have no watchdog; theirs only bounds how long one dispatch blocks.
fn max_dispatch_flops(class: DeviceClass) -> f64 {
    match class {
        DeviceClass::Cpu => 4e10,
        DeviceClass::Discrete => 1e11,
        DeviceClass::Integrated | DeviceClass::Unknown => 1e10,
    }
}

/// llvmpipe ends an invocation's loops after 65,535 trips in total, nested and successive ones counted together, on Mesa
/// 22.3.6; 25.0.7 runs all. Versions between were not measured, so they count as having the fault.
fn max_loop_trips(driver: &str, driver_info: &str) -> Option<u32> {
    if driver != "llvmpipe" {
        return None;
    }
    match mesa_major(driver_info) {
        Some(major) if major >= 25 => None,
        _ => Some(65_535),
    }
}

fn compiles_slowly(driver: &str, driver_info: &str) -> bool {
    let llvmpipe = driver == "llvmpipe" && mesa_major(driver_info).is_some_and(|major| major >= 25);
    llvmpipe || driver == "SwiftShader driver"
}

fn mesa_major(driver_info: &str) -> Option<u32> {
    let version = driver_info
        .split_whitespace()
        .skip_while(|word| *word != "Mesa")
        .nth(1)?;
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loop_quirk_is_read_from_the_driver() {
        assert_eq!(max_loop_trips("llvmpipe", "Mesa 22.3.6 (LLVM 15.0.6)"), Some(65_535));
        assert_eq!(max_loop_trips("llvmpipe", "Mesa 25.0.7-2 (LLVM 19.1.7)"), None);
        assert_eq!(max_loop_trips("llvmpipe", "of unknown make"), Some(65_535));
        assert_eq!(max_loop_trips("radv", "Mesa 22.3.6"), None);
    }

    #[test]
    fn slow_compilers_are_read_from_the_driver() {
        assert!(compiles_slowly("llvmpipe", "Mesa 25.0.7-2 (LLVM 19.1.7)"));
        assert!(!compiles_slowly("llvmpipe", "Mesa 22.3.6 (LLVM 15.0.6)"));
        assert!(compiles_slowly("SwiftShader driver", ""));
        assert!(!compiles_slowly("radv", "Mesa 25.0.7"));
    }

    #[test]
    fn lanes_are_in_order_where_it_is_known() {
        let on = |backend: &str, subgroup_sizes| DeviceCaps {
            backend: backend.to_owned(),
            subgroup_sizes,
            ..DeviceCaps::default()
        };
        assert!(on("vulkan", Some((8, 32))).lanes_in_order(8));
        assert!(!on("vulkan", Some((4, 32))).lanes_in_order(8));
        assert!(!on("vulkan", None).lanes_in_order(8));
        assert!(!on("dx12", Some((32, 32))).lanes_in_order(8));
        assert_eq!(wgpu::Backend::Vulkan.to_string(), "vulkan");
        assert_eq!(wgpu::Backend::Metal.to_string(), "metal");
    }

    #[test]
    fn matrices_are_those_that_are_listed_and_work() {
        let listed = |size, ab_type, cr_type| wgpu::CooperativeMatrixProperties {
            m_size: size,
            n_size: size,
            k_size: size,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        };
        use wgpu::CooperativeScalarType::{F16, F32};
        let all = [listed(8, F32, F32), listed(16, F16, F32), listed(8, F16, F16)];
        let feature = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let device = |driver: &str, lanes| DeviceCaps {
            driver: driver.to_owned(),
            tier: Tier::Extended,
            subgroup_sizes: Some(lanes),
            shader_f16: true,
            ..DeviceCaps::default()
        };
        let shapes = |caps: DeviceCaps| caps.with_matrices(feature, &all).matrix_shapes;
        assert_eq!(
            shapes(device("radv", (32, 64))),
            [MatrixShape::F16Size16, MatrixShape::F32Size8]
        );
        assert_eq!(shapes(device("llvmpipe Mesa 26.1.6", (8, 8))).len(), 2);
        assert_eq!(shapes(device("llvmpipe Mesa 26.1.6", (4, 4))), []);
        assert_eq!(shapes(device("llvmpipe Mesa 26.1.6", (16, 16))), []);
        let without_f16 = DeviceCaps {
            shader_f16: false,
            ..device("radv", (32, 64))
        };
        assert_eq!(shapes(without_f16), [MatrixShape::F32Size8]);
        let caps = device("radv", (32, 64));
        assert_eq!(
            caps.clone().with_matrices(wgpu::Features::empty(), &all).matrix_shapes,
            []
        );
        let lowered = caps.with_matrices(feature, &all).at_most(Tier::Portable);
        assert_eq!(lowered.matrix_shapes, []);
    }

    #[test]
    fn a_lower_tier_never_has_more() {
        let mut caps = DeviceCaps {
            tier: Tier::Extended,
            ..DeviceCaps::default()
        };
        caps.limits.max_workgroup_bytes = 64 << 10;
        caps.limits.max_storage_buffer_binding_bytes = 1 << 20;
        let lowered = caps.clone().at_most(Tier::Portable);
        assert_eq!(lowered.limits.max_workgroup_bytes, 16 << 10);
        assert_eq!(lowered.limits.max_storage_buffer_binding_bytes, 1 << 20);
        assert_eq!(caps.clone().at_most(Tier::Extended), caps);
    }
}
