//! Attention between a program's own commands, on its own device and buffers: `cargo run --example own_device`.
//!
//! One buffer holds query, key and value, one encoder the attention and a copy of what it gives. What comes back is compared
//! with the reference.

use wgpu_attention::{
    AttentionDescriptor, AttentionShape, BufferAt, CausalAlignment, Engine, HostInputs, Inputs, OutputBuffers, Problem,
    reference, wgpu,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The program's own device, with whatever limits and features it likes.
    let instance = wgpu::Instance::default();
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()))?;
    println!("on {}", adapter.get_info().name);

    let engine = Engine::from_wgpu(&adapter, device.clone(), queue.clone());
    let shape = AttentionShape::new(1, 4, 30, 30, 32);
    let descriptor = AttentionDescriptor {
        shape,
        causal: Some(CausalAlignment::LowerRight),
        ..Default::default()
    };
    let attention = engine.prepare(&descriptor)?;
    println!("{}", attention.plan());

    let elements = 4 * 30 * 32;
    let bytes = 4 * elements as u64;
    let buffer = |size, usage| {
        device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    };
    let qkv = buffer(3 * bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST);
    let out = buffer(bytes, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    let back = buffer(bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
    let numbers: Vec<f32> = (0..3 * elements).map(|i| (i as f32 * 0.37).sin()).collect();
    queue.write_buffer(&qkv, 0, bytemuck::cast_slice(&numbers));

    // Once: parameters and bind groups. Then, as often as wanted: commands.
    let at = |index| BufferAt {
        buffer: &qkv,
        offset_bytes: index * bytes,
    };
    let bound = attention.bind(&Inputs::new(at(0), at(1), at(2)), &OutputBuffers::new(&out))?;
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    bound.encode(&mut encoder);
    encoder.copy_buffer_to_buffer(&out, 0, &back, 0, bytes);
    queue.submit([encoder.finish()]);

    let (sender, mapped) = std::sync::mpsc::channel();
    back.slice(..).map_async(wgpu::MapMode::Read, move |result| {
        let _ = sender.send(result);
    });
    device.poll(wgpu::PollType::wait_indefinitely())?;
    mapped.recv()??;
    let got: Vec<f32> = bytemuck::cast_slice(&back.slice(..).get_mapped_range()?).to_vec();

    let [query, key, value] = [0, 1, 2].map(|index| &numbers[index * elements..(index + 1) * elements]);
    let want = reference::attention(&Problem::new(&descriptor)?, &HostInputs::new(query, key, value))?;
    let largest =
        (got.iter().zip(&want.out)).fold(0f64, |largest, (&got, want)| largest.max((f64::from(got) - want).abs()));
    println!("largest difference from the reference: {largest:.1e}");
    if largest.is_nan() || largest > 1e-5 {
        return Err("the reference says otherwise".into());
    }
    Ok(())
}
