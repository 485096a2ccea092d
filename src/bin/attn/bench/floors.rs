//! What the device can do at all, measured with two kernels that do nothing else: no attention can be faster than its
//! multiply-adds at the one rate, nor than its operands at the other.

use serde::Serialize;
use wgpu_attention::{DeviceClass, Engine};

use super::stopwatch::{Lap, Stopwatch, median};

/// The two rates.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floors {
    /// Multiply-adds count as two operations.
    pub gflops: f64,
    /// Bytes read.
    pub gb_per_s: f64,
}

/// Sizes that the shaders state.
const FMA_THREADS: u64 = 64;
const FMA_FLOPS: f64 = 64.0 * 4096.0 * 8.0 * 4.0 * 2.0;
const STREAM_THREADS: u64 = 256;
const STREAM_BYTES: u64 = 256 * 16 * 16;

impl Floors {
    /// Measures both, each as the best of several runs' median.
    pub fn measure(engine: &Engine, stopwatch: &Stopwatch<'_>) -> anyhow::Result<Self> {
        Ok(Self {
            gflops: multiply_adds(engine, stopwatch)?,
            gb_per_s: stream(engine, stopwatch)?,
        })
    }

    /// The shortest time that so many operations and bytes can take, in ms.
    pub fn floor_ms(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.gflops).max(bytes / self.gb_per_s) * 1e-6
    }
}

fn multiply_adds(engine: &Engine, stopwatch: &Stopwatch<'_>) -> anyhow::Result<f64> {
    let lanes = usize::try_from(FMA_THREADS)?;
    let seeds: Vec<f32> = (0..4 * lanes).map(|index| 0.5 + index as f32 * 1e-3).collect();
    let seeds = engine.upload(&seeds)?;
    let sink = engine.allocate(16 * FMA_THREADS)?;
    let kernel = Kernel::new(engine, "multiply_add", include_str!("multiply_add.wgsl"));
    let group = kernel.bind(
        engine,
        [binding(seeds.buffer(), 0, None), binding(sink.buffer(), 0, None)],
    );
    let most = (engine.caps().max_dispatch_flops / FMA_FLOPS) as u32;
    let rate = |workgroups: u32| -> anyhow::Result<f64> {
        let grid = [workgroups, 1];
        let ms = steady(|| kernel.lap(stopwatch, &[(&group, grid)]))?;
        Ok(f64::from(workgroups) * FMA_FLOPS / ms * 1e-6)
    };
    // Enough work to fill the device: twice as much until that gains no more than a twentieth.
    let mut workgroups = 256.min(most);
    let mut best = rate(workgroups)?;
    while workgroups * 2 <= most.min(32_768) {
        workgroups *= 2;
        let next = rate(workgroups)?;
        if next <= best * 1.05 {
            return Ok(best.max(next));
        }
        best = next;
    }
    Ok(best)
}

fn stream(engine: &Engine, stopwatch: &Stopwatch<'_>) -> anyhow::Result<f64> {
    let limits = &engine.caps().limits;
    // Beyond the caches of the class.
    let wanted: u64 = match engine.caps().class {
        DeviceClass::Discrete => 1 << 30,
        _ => 256 << 20,
    };
    let window = limits.max_storage_buffer_binding_bytes.min(wanted) / STREAM_BYTES * STREAM_BYTES;
    let windows = (wanted.min(limits.max_buffer_bytes) / window).max(1);
    let data = engine.allocate(window * windows)?;
    let sums = engine.allocate(16 * STREAM_THREADS)?;
    let kernel = Kernel::new(engine, "stream", include_str!("stream.wgsl"));
    let groups: Vec<_> = (0..windows)
        .map(|index| {
            let data = binding(data.buffer(), index * window, Some(window));
            kernel.bind(engine, [data, binding(sums.buffer(), 0, None)])
        })
        .collect();
    let workgroups = u32::try_from(window / STREAM_BYTES)?;
    let rows = workgroups.div_ceil(limits.max_workgroups_per_dimension);
    anyhow::ensure!(workgroups.is_multiple_of(rows), "{workgroups} workgroups do not fold");
    let grid = [workgroups / rows, rows];
    let dispatches: Vec<_> = groups.iter().map(|group| (group, grid)).collect();
    let ms = steady(|| kernel.lap(stopwatch, &dispatches))?;
    Ok((window * windows) as f64 / ms * 1e-6)
}

/// The median of five laps after two that warm up, by the GPU's clock if it has one.
fn steady(lap: impl Fn() -> anyhow::Result<Lap>) -> anyhow::Result<f64> {
    for _ in 0..2 {
        lap()?;
    }
    let laps = (0..5).map(|_| lap()).collect::<Result<Vec<_>, _>>()?;
    Ok(median(laps.iter().map(|lap| lap.gpu_ms.unwrap_or(lap.wall_ms))))
}

/// A pipeline of two storage buffers.
struct Kernel {
    pipeline: wgpu::ComputePipeline,
}

impl Kernel {
    fn new(engine: &Engine, label: &str, source: &'static str) -> Self {
        let module = engine.device().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(label),
            source: wgpu::ShaderSource::Wgsl(source.into()),
        });
        let pipeline = engine
            .device()
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: Default::default(),
                cache: None,
            });
        Self { pipeline }
    }

    fn bind(&self, engine: &Engine, bindings: [wgpu::BufferBinding<'_>; 2]) -> wgpu::BindGroup {
        let entries: Vec<_> = (0..)
            .zip(bindings)
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: wgpu::BindingResource::Buffer(buffer),
            })
            .collect();
        engine.device().create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    fn lap(&self, stopwatch: &Stopwatch<'_>, dispatches: &[(&wgpu::BindGroup, [u32; 2])]) -> anyhow::Result<Lap> {
        stopwatch.lap(|encoder, timestamp_writes| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes,
            });
            pass.set_pipeline(&self.pipeline);
            for (group, [x, y]) in dispatches {
                pass.set_bind_group(0, *group, &[]);
                pass.dispatch_workgroups(*x, *y, 1);
            }
        })
    }
}

fn binding(buffer: &wgpu::Buffer, offset: u64, size: Option<u64>) -> wgpu::BufferBinding<'_> {
    wgpu::BufferBinding {
        buffer,
        offset,
        size: size.and_then(wgpu::BufferSize::new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_floor_counts() {
        let floors = Floors {
            gflops: 100.0,
            gb_per_s: 10.0,
        };
        assert_eq!(floors.floor_ms(1e9, 1e6), 10.0);
        assert_eq!(floors.floor_ms(1e6, 1e9), 100.0);
    }

    #[test]
    fn shaders_are_valid_and_state_the_sizes() {
        for (text, constants) in [
            (
                include_str!("multiply_add.wgsl"),
                ["THREADS: u32 = 64u", "ROUNDS: u32 = 4096u"],
            ),
            (include_str!("stream.wgsl"), ["THREADS: u32 = 256u", "TRIPS: u32 = 4u"]),
        ] {
            naga::front::wgsl::parse_str(text).unwrap();
            for constant in constants {
                assert!(text.contains(constant), "{constant}");
            }
        }
    }
}
