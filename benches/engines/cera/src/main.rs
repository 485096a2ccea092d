//! The shader `attention_flash_hd64.wgsl` of the crate cera, which keeps it private: read at run time from the source that
//! `cargo fetch` brought, and dispatched as its comments ask. For a head_dim of 64, as many queries as keys, not causal.

use attn_common::{Answer, Case, measure, swap};
use wgpu::util::{BufferInitDescriptor, DeviceExt as _};

const SHADER: &str = "cera-0.7.3/src/backend/shaders/attention_flash_hd64.wgsl";

fn main() {
    let case = Case::from_env();
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("no adapter");
    let name = adapter.get_info().name;
    let answer = Answer {
        engine: "cera",
        version: "0.7.3",
        variant: "",
        adapter: &name,
        dtype: "f32",
    };
    if case.head_dim != 64 || case.causal || case.seqlen_q != case.seqlen_k || case.batch != 1 {
        return answer.skip(&case, "head_dim 64, equal lengths, one batch, not causal");
    }
    let inputs = case.inputs();
    let expected = case.reference(&inputs, "f32");
    let source = find(SHADER);
    answer.guard(&case, || {
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            required_limits: adapter.limits(),
            ..Default::default()
        }))
        .unwrap();
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        });
        let load = |bytes: &[u8]| {
            device.create_buffer_init(&BufferInitDescriptor {
                label: None,
                contents: bytes,
                usage: wgpu::BufferUsages::STORAGE,
            })
        };
        // Its layout is [seqlen, heads, head_dim].
        let q = load(bytemuck::cast_slice(&swap(&inputs.q, case.q_shape())));
        let k = load(bytemuck::cast_slice(&swap(&inputs.k, case.kv_shape())));
        let v = load(bytemuck::cast_slice(&swap(&inputs.v, case.kv_shape())));
        let sizes = [case.seqlen_q, case.heads, case.head_dim].map(|size| size as u32);
        let params = [
            sizes[0],
            sizes[1],
            sizes[2],
            case.scale().to_bits(),
            case.kv_heads as u32,
            0,
            0,
            0,
        ];
        let params = load(bytemuck::cast_slice(&params));
        let buffer = |usage| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: q.size(),
                usage,
                mapped_at_creation: false,
            })
        };
        let out = buffer(wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
        let back = buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let entries: Vec<_> = (0..)
            .zip([&q, &k, &v, &out, &params])
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        let wait = || device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
        let run = || {
            let mut encoder = device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(case.seqlen_q.div_ceil(32) as u32, case.heads as u32, 1);
            drop(pass);
            queue.submit([encoder.finish()]);
            wait();
        };
        measure(&expected, run, |()| {
            let mut encoder = device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(&out, 0, &back, 0, back.size());
            queue.submit([encoder.finish()]);
            back.slice(..).map_async(wgpu::MapMode::Read, |result| result.unwrap());
            wait();
            let out: Vec<f32> = bytemuck::cast_slice(&back.slice(..).get_mapped_range().unwrap()).to_vec();
            swap(&out, [1, case.seqlen_q, case.heads, case.head_dim])
        })
    });
}

/// A file of a crate that cargo has downloaded.
fn find(path: &str) -> String {
    let home = std::env::var_os("CARGO_HOME")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .expect("no home folder");
    let registries = std::fs::read_dir(home.join("registry/src")).expect("cargo has no sources: run `cargo fetch`");
    registries
        .flatten()
        .find_map(|registry| std::fs::read_to_string(registry.path().join(path)).ok())
        .unwrap_or_else(|| panic!("no {path}: run `cargo fetch`"))
}
