//! The kernels that the driver compiled, in a file: wgpu's pipeline cache, where the backend has one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Setting;
use super::file::{cache_folder, fault, read, write};
use crate::error::{Error, Result};
use crate::kernel::source::fnv;

/// A file begins with this line and the FNV-1a of what follows: wgpu checks that it is of the same adapter and driver, but not that
/// it is whole.
const MAGIC: &[u8] = b"wgpu-attention pipelines 1\n";

/// A driver's cache only grows: one beyond this is begun anew.
const MOST_BYTES: u64 = 64 << 20;

/// A pipeline cache that is saved when the last engine that uses it goes.
#[derive(Debug)]
pub(crate) struct PipelineStore {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Whether something was compiled since it was saved.
    used: AtomicBool,
}

/// The folder that `ATTN_PIPELINE_CACHE` names, else the user's own; `None` if it is `off`, or there is none.
pub(crate) fn user_folder() -> Option<PathBuf> {
    match Setting::of("ATTN_PIPELINE_CACHE") {
        Setting::Off => None,
        Setting::Path(path) => Some(path),
        Setting::Default => cache_folder(),
    }
}

impl PipelineStore {
    /// What the folder has for this device; `None` where the device has no pipeline cache.
    pub(crate) fn open(device: &wgpu::Device, folder: &Path) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = folder.join(wgpu::util::pipeline_cache_key(&device.adapter_info())?);
        let data = contents(&path).unwrap_or_else(|error| {
            tracing::warn!("compiled kernels are ignored: {error}");
            None
        });
        Some(Self {
            cache: create(device, data.as_deref()),
            path,
            used: AtomicBool::new(false),
        })
    }

    /// To be given to a pipeline that is made now.
    pub(crate) fn cache(&self) -> &wgpu::PipelineCache {
        self.used.store(true, Ordering::Relaxed);
        &self.cache
    }

    /// Writes what is not in the file yet.
    pub(crate) fn save(&self) -> Result<()> {
        if !self.used.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let Some(data) = self.cache.get_data() else {
            return Ok(());
        };
        if data.len() as u64 + 64 > MOST_BYTES {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(fault(&self.path, error)),
                _ => Ok(()),
            };
        }
        let packed = pack(&data);
        // Most runs compile nothing new.
        match read(&self.path, MOST_BYTES) {
            Ok(Some(there)) if there == packed => Ok(()),
            _ => write(&self.path, &packed),
        }
    }
}

impl Drop for PipelineStore {
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::warn!("compiled kernels are not kept: {error}");
        }
    }
}

/// What a file holds, if there is one and it is whole.
fn contents(path: &Path) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = read(path, MOST_BYTES)? else {
        return Ok(None);
    };
    match unpack(&bytes) {
        Some(data) => Ok(Some(data.to_vec())),
        None => Err(Error::File {
            path: path.display().to_string(),
            message: "is not whole, or no cache of pipelines".into(),
        }),
    }
}

fn pack(data: &[u8]) -> Vec<u8> {
    [MAGIC, &fnv(data.iter().copied()).to_le_bytes(), data].concat()
}

fn unpack(bytes: &[u8]) -> Option<&[u8]> {
    let (hash, data) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*hash) == fnv(data.iter().copied())).then_some(data)
}

#[allow(
    unsafe_code,
    reason = "wgpu cannot prove that the data came from a cache: ours did, unless somebody who may write to the user's own files made \
              it look so, checksum included"
)]
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor {
        label: Some("wgpu-attention"),
        data,
        fallback: true,
    };
    // SAFETY: as the reason above says.
    unsafe { device.create_pipeline_cache(&descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_not_used() {
        let packed = pack(b"compiled");
        assert_eq!(unpack(&packed), Some(&b"compiled"[..]));
        assert_eq!(unpack(&pack(b"")), Some(&b""[..]));
        for end in 0..packed.len() {
            assert_eq!(unpack(&packed[..end]), None, "{end}");
        }
        for at in 0..packed.len() {
            let mut other = packed.clone();
            other[at] ^= 4;
            assert_eq!(unpack(&other), None, "{at}");
        }
    }
}
