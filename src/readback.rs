//! From GPU to host: copy to a staging buffer, map, read.

use crate::error::{Error, Result};
use crate::gpu::Gpu;

/// Who drives the device while a future waits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// This thread blocks in `poll`: for the blocking calls.
    #[cfg(not(target_arch = "wasm32"))]
    Here,
    /// A thread of its own on native, so that the executor's stays free; the event loop in a browser.
    Elsewhere,
}

/// The first `bytes` bytes of a buffer that has the usage `COPY_SRC`.
pub(crate) async fn read_bytes(gpu: &Gpu, source: &wgpu::Buffer, bytes: u64, wait: Wait) -> Result<Vec<u8>> {
    let size = bytes.next_multiple_of(4);
    let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
    let staging = gpu.buffer("readback", size, usage, None).await?;
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor {
        label: Some("readback"),
    });
    encoder.copy_buffer_to_buffer(source, 0, &staging.buffer, 0, size);
    gpu.submit(encoder).await?;

    let (sender, receiver) = futures_channel::oneshot::channel();
    gpu.scoped("map a buffer", || {
        staging.buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            // The receiver is gone only if the caller dropped the future.
            let _ = sender.send(result);
        });
    })
    .await?;
    drive(gpu, wait)?;
    let mapped = match receiver.await {
        Err(_) => Err("the device went away".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(())) => staging.buffer.get_mapped_range(..).map_err(|error| error.to_string()),
    };
    let view = match mapped {
        Ok(view) => view,
        Err(message) => {
            gpu.check_device().await?;
            let operation = "map a buffer";
            return Err(Error::Driver { operation, message });
        }
    };
    let mut contents = view.to_vec();
    contents.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    Ok(contents)
}

/// Waits until everything submitted so far is done.
pub(crate) async fn wait_idle(gpu: &Gpu, wait: Wait) -> Result<()> {
    gpu.check()?;
    let (sender, receiver) = futures_channel::oneshot::channel();
    gpu.queue.on_submitted_work_done(move || {
        let _ = sender.send(());
    });
    drive(gpu, wait)?;
    let done = receiver.await;
    // What was submitted to a lost device is dropped without a word.
    gpu.check_device().await?;
    done.map_err(|_| Error::Driver {
        operation: "wait for the GPU",
        message: "the device went away".into(),
    })
}

#[cfg(not(target_arch = "wasm32"))]
fn drive(gpu: &Gpu, wait: Wait) -> Result<()> {
    let device = gpu.device.clone();
    let poll = move || device.poll(wgpu::PollType::wait_indefinitely());
    match wait {
        Wait::Here => {
            let polled = poll();
            gpu.check()?;
            polled.map_err(|error| Error::Driver {
                operation: "wait for the GPU",
                message: error.to_string(),
            })?;
        }
        Wait::Elsewhere => {
            std::thread::Builder::new()
                .name("wgpu-attention poll".into())
                // What it finds also reaches the callbacks that the future waits for.
                .spawn(move || drop(poll()))
                .map_err(|error| Error::Driver {
                    operation: "start a thread",
                    message: error.to_string(),
                })?;
        }
    }
    Ok(())
}

#[cfg(target_arch = "wasm32")]
fn drive(_: &Gpu, Wait::Elsewhere: Wait) -> Result<()> {
    // The browser's event loop runs the callbacks.
    Ok(())
}
