//! Time on the GPU's own clock.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::gpu::CountedBuffer;

/// Two timestamps around compute passes, where the device has `TIMESTAMP_QUERY`.
#[derive(Debug)]
pub struct GpuTimer {
    engine: Engine,
    queries: wgpu::QuerySet,
    resolved: CountedBuffer,
}

impl GpuTimer {
    /// A timer, or `None` on a device without timestamps.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn new(engine: &Engine) -> Result<Option<Self>> {
        pollster::block_on(Self::new_async(engine))
    }

    /// As [`new`](Self::new), for where blocking is not possible.
    pub async fn new_async(engine: &Engine) -> Result<Option<Self>> {
        if !engine.caps().timestamps {
            return Ok(None);
        }
        let gpu = engine.gpu();
        let descriptor = wgpu::QuerySetDescriptor {
            label: Some("timer"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        };
        let queries = gpu
            .scoped("create a timer", || gpu.device.create_query_set(&descriptor))
            .await?;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer("timer", 16, usage, None).await?;
        Ok(Some(Self {
            engine: engine.clone(),
            queries,
            resolved,
        }))
    }

    /// What to give to [`BoundAttention::encode_timed`](crate::BoundAttention::encode_timed).
    pub fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    /// Records the end of a measurement: call it in the same encoder, after the timed pass.
    pub fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved.buffer, 0);
    }

    /// Nanoseconds between the two timestamps of the last submission.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn elapsed_ns(&self) -> Result<f64> {
        pollster::block_on(self.elapsed(crate::readback::Wait::Here))
    }

    /// As [`elapsed_ns`](Self::elapsed_ns), for where blocking is not possible.
    pub async fn elapsed_ns_async(&self) -> Result<f64> {
        self.elapsed(crate::readback::Wait::Elsewhere).await
    }

    async fn elapsed(&self, wait: crate::readback::Wait) -> Result<f64> {
        let gpu = self.engine.gpu();
        let bytes = crate::readback::read_bytes(gpu, &self.resolved.buffer, 16, wait).await?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        match ticks[..] {
            [begin, end] => Ok(end.saturating_sub(begin) as f64 * f64::from(gpu.queue.get_timestamp_period())),
            _ => Err(Error::Driver {
                operation: "read a timer",
                message: format!("{} bytes", bytes.len()),
            }),
        }
    }
}
