//! Expressions on the GPU.

use std::sync::LazyLock;

use wgpu::util::DeviceExt as _;
use wgpu_attention::Engine;
use wgpu_attention::kernel::source::part;

use super::*;

pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new().expect("an adapter: run tools/ensure-vulkan.sh"));

/// Runs an expression for a score or a probability at each `[b, h, q, kv]` and compares with what is expected.
pub fn compare(expression: &Expression<'_>, value: f64, places: &[[u32; 4]], want: &[f64]) {
    let got = run(expression, value as f32, places);
    assert_eq!(got.len(), want.len());
    for ((&got, &want), place) in got.iter().zip(want).zip(places) {
        let (got, want) = (finite(got), finite(want as f32));
        // A few roundings, of which WGSL asks little in exp, log, tan and pow.
        let close = got == want || (want.is_finite() && (got - want).abs() <= 1e-6 + 1e-5 * want.abs());
        assert!(close, "got {got}, want {want} at {place:?}\n{}", expression.wgsl());
    }
}

/// Infinities as the kernels have them.
fn finite(number: f32) -> f32 {
    number.clamp(f32::MIN, f32::MAX)
}

/// What the GPU computes for a score or a probability at each `[b, h, q, kv]`; the WGSL is validated before.
pub fn run(expression: &Expression<'_>, value: f32, places: &[[u32; 4]]) -> Vec<f32> {
    let text = module(expression);
    validate(&text);
    let (device, queue) = (ENGINE.device(), ENGINE.queue());
    let buffer = |contents: &[u8], usage| {
        device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: None,
            contents,
            usage,
        })
    };
    let results = buffer(
        &vec![0xff; 4 * places.len()],
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
    );
    let mut buffers = vec![
        buffer(bytemuck::bytes_of(&value), wgpu::BufferUsages::STORAGE),
        buffer(bytemuck::cast_slice(places), wgpu::BufferUsages::STORAGE),
        results.clone(),
    ];
    let captured = expression.captured().iter();
    buffers.extend(captured.map(|captured| buffer(&captured.bytes(), wgpu::BufferUsages::STORAGE)));
    let shader = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(text.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &shader,
        entry_point: None,
        compilation_options: Default::default(),
        cache: None,
    });
    let entries: Vec<_> = buffers
        .iter()
        .zip(0..)
        .map(|(buffer, binding)| wgpu::BindGroupEntry {
            binding,
            resource: buffer.as_entire_binding(),
        })
        .collect();
    let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    let readback = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: results.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let mut encoder = device.create_command_encoder(&Default::default());
    {
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &bind_group, &[]);
        pass.dispatch_workgroups((places.len() as u32).div_ceil(64), 1, 1);
    }
    encoder.copy_buffer_to_buffer(&results, 0, &readback, 0, results.size());
    queue.submit([encoder.finish()]);
    readback.map_async(wgpu::MapMode::Read, .., |result| result.unwrap());
    ENGINE.wait().unwrap();
    let bytes = readback.get_mapped_range(..).unwrap();
    bytemuck::pod_collect_to_vec(&bytes)
}

/// A kernel that calls an expression's function once an invocation.
fn module(expression: &Expression<'_>) -> String {
    let mut text = String::from(
        "@group(0) @binding(0) var<storage, read> value: f32;
@group(0) @binding(1) var<storage, read> places: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> results: array<f32>;
",
    );
    text += part("mods/environment.wgsl").map_or("", |part| part.text);
    for (captured, binding) in expression.captured().iter().zip(3..) {
        let (name, element) = (captured.wgsl_name(), captured.element());
        let element = format!("{element:?}").to_lowercase();
        text += &format!("@group(0) @binding({binding}) var<storage, read> {name}: array<{element}>;\n");
    }
    text += &expression.wgsl();
    let indexes = "place.x, place.y, place.z, place.w";
    let call = match expression.hook {
        Hook::Mask => format!("select(0.0, 1.0, mask_mod({indexes}))"),
        hook => format!("{}(value, {indexes})", hook.name()),
    };
    text += &format!(
        "@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
    if id.x < arrayLength(&places) {{
        _ = value; // a mask does not read it
        let place = places[id.x];
        results[id.x] = {call};
    }}
}}
"
    );
    text
}

fn validate(text: &str) {
    let module =
        naga::front::wgsl::parse_str(text).unwrap_or_else(|error| panic!("{text}\n{}", error.emit_to_string(text)));
    naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{text}\n{}", error.emit_to_string(text)));
}
