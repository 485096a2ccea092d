//! The device and queue that everything else borrows: error scopes, the lost callback, memory in use.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
#[cfg(not(target_arch = "wasm32"))]
use crate::store::PipelineStore;

/// A device with its queue, and what is known of its health.
#[derive(Clone, Debug)]
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    lost: Arc<Mutex<Option<String>>>,
    memory: Arc<Memory>,
    /// The driver's compiled kernels, kept in a file.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) store: Option<Arc<PipelineStore>>,
}

/// Bytes of the buffers that this crate made and that still live.
#[derive(Debug, Default)]
struct Memory {
    current: AtomicU64,
    peak: AtomicU64,
}

/// GPU memory in buffers that an engine made: tensors, workspaces, parameters and staging.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MemoryUse {
    /// Bytes in use now.
    pub current_bytes: u64,
    /// The most bytes in use at any time, or since the last [`Engine::reset_memory_peak`](crate::Engine::reset_memory_peak).
    pub peak_bytes: u64,
}

/// Gives its bytes back to the count when the last buffer that shares it goes.
#[derive(Debug)]
pub(crate) struct Allocation {
    bytes: u64,
    memory: Arc<Memory>,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.memory.current.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A buffer that counts.
#[derive(Clone, Debug)]
pub(crate) struct CountedBuffer {
    pub(crate) buffer: wgpu::Buffer,
    _allocation: Arc<Allocation>,
}

impl Gpu {
    /// A device that belongs to somebody else: its callbacks are left alone.
    pub(crate) fn shared(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        Self {
            device,
            queue,
            lost: Arc::default(),
            memory: Arc::default(),
            #[cfg(not(target_arch = "wasm32"))]
            store: None,
        }
    }

    /// A device of our own: its loss is noted, and errors outside of any scope are logged rather than panicked about.
    pub(crate) fn owned(device: wgpu::Device, queue: wgpu::Queue) -> Self {
        let gpu = Self::shared(device, queue);
        let lost = Arc::clone(&gpu.lost);
        gpu.device.set_device_lost_callback(move |reason, message| {
            let text = if message.is_empty() {
                format!("{reason:?}")
            } else {
                format!("{reason:?}: {message}")
            };
            *lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        });
        gpu.device
            .on_uncaptured_error(Arc::new(|error: wgpu::Error| tracing::error!("wgpu: {error}")));
        gpu
    }

    /// The driver's compiled kernels, to be used and added to.
    pub(crate) fn pipeline_cache(&self) -> Option<&wgpu::PipelineCache> {
        #[cfg(not(target_arch = "wasm32"))]
        return self.store.as_deref().map(PipelineStore::cache);
        #[cfg(target_arch = "wasm32")]
        None
    }

    pub(crate) fn memory(&self) -> MemoryUse {
        MemoryUse {
            current_bytes: self.memory.current.load(Ordering::Relaxed),
            peak_bytes: self.memory.peak.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn reset_memory_peak(&self) {
        self.memory
            .peak
            .store(self.memory.current.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Fails if the device is known to be lost.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Err(Error::DeviceLost { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// As [`check`](Self::check), and asks the device itself, whose loss may not have been told: a device of the caller's
    /// tells the caller, and one of ours not before it is next polled.
    pub(crate) async fn check_device(&self) -> Result<()> {
        self.check()?;
        let (valid, reports) = {
            let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let probe = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("probe"),
                size: 4,
                usage: wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: true,
            });
            let valid = probe.get_mapped_range_mut(..).is_ok();
            (valid, (validation.pop(), memory.pop()))
        };
        let (_, memory) = (reports.0.await, reports.1.await);
        // On a lost device wgpu makes an invalid buffer and says nothing; without memory it says so.
        if valid || memory.is_some() {
            return Ok(());
        }
        self.check()?;
        let reason = "it was reset, removed or destroyed".into();
        Err(Error::DeviceLost { reason })
    }

    /// Runs wgpu calls within error scopes; what they report comes back as our error.
    pub(crate) async fn scoped<T>(&self, operation: &'static str, calls: impl FnOnce() -> T) -> Result<T> {
        self.check()?;
        // The scopes are of this thread: all are popped before anything is awaited.
        let (value, reports) = {
            let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
            let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
            let value = calls();
            let internal = internal.pop();
            let validation = validation.pop();
            (value, (internal, validation, memory.pop()))
        };
        let reports = [reports.2.await, reports.0.await, reports.1.await];
        self.check()?;
        match reports.into_iter().flatten().next() {
            None => Ok(value),
            Some(error) => {
                // A lost device fails every call in its own words: the loss is what matters.
                self.check_device().await?;
                Err(from_wgpu(operation, &error))
            }
        }
    }

    /// A buffer, made within error scopes.
    pub(crate) async fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
        contents: Option<&[u8]>,
    ) -> Result<CountedBuffer> {
        let size = bytes.max(4).next_multiple_of(4);
        let limit = self.device.limits().max_buffer_size;
        if size > limit {
            let what = format!("the buffer {label:?}");
            return Err(Error::Limit {
                what,
                required: size,
                limit_name: "maxBufferSize",
                limit,
            });
        }
        let mapped_at_creation = contents.is_some();
        let descriptor = wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation,
        };
        let buffer = self
            .scoped("create a buffer", || {
                let buffer = self.device.create_buffer(&descriptor);
                if let Some(contents) = contents {
                    // An invalid buffer has no range; the scope says why.
                    if let Ok(mut view) = buffer.get_mapped_range_mut(..) {
                        view.slice(..contents.len()).copy_from_slice(contents);
                    }
                    buffer.unmap();
                }
                buffer
            })
            .await?;
        let current = self.memory.current.fetch_add(size, Ordering::Relaxed) + size;
        self.memory.peak.fetch_max(current, Ordering::Relaxed);
        let allocation = Arc::new(Allocation {
            bytes: size,
            memory: Arc::clone(&self.memory),
        });
        Ok(CountedBuffer {
            buffer,
            _allocation: allocation,
        })
    }

    /// Submits, within error scopes.
    pub(crate) async fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<()> {
        self.scoped("submit commands", || {
            self.queue.submit([encoder.finish()]);
        })
        .await
    }
}

fn from_wgpu(operation: &'static str, error: &wgpu::Error) -> Error {
    let message = describe(error);
    if message.contains("device is lost") || message.contains("Device is lost") {
        return Error::DeviceLost { reason: message };
    }
    match error {
        wgpu::Error::OutOfMemory { .. } => Error::OutOfMemory { operation, message },
        wgpu::Error::Validation { .. } => Error::Validation { operation, message },
        wgpu::Error::Internal { .. } => Error::Driver { operation, message },
    }
}

/// The error with its causes, one line.
fn describe(error: &wgpu::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
