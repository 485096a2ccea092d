//! Tuning in a file: JSON, for one adapter, driver and set of shaders.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Setting;
use super::file::{cache_folder, fault, read, write};
use crate::caps::DeviceCaps;
use crate::error::Result;
use crate::kernel::source::{fingerprint, fnv};
use crate::tune::Tuning;

/// Counts up whenever the meaning of a file changes.
const FORMAT: u32 = 1;

/// A file of every class that there could be is far smaller.
const MOST_BYTES: u64 = 1 << 20;

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    tuning: Tuning,
}

/// What a measurement holds for.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    adapter: String,
    backend: String,
    driver: String,
    /// This crate's version, and the fingerprint of its shaders.
    version: String,
    shaders: String,
}

/// All that is read of a file before its format is known.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Tuning {
    /// The user's file for an adapter, in the platform's cache folder; `None` for a user without a home.
    pub fn user_path(caps: &DeviceCaps) -> Option<PathBuf> {
        let readable: String = (caps.name.to_lowercase().chars())
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(40)
            .collect();
        // Names that differ elsewhere, and the backends of one adapter, are apart.
        let number = fnv(caps.name.bytes().chain([0]).chain(caps.backend.bytes()));
        Some(cache_folder()?.join(format!("tuning-{readable}-{number:016x}.json")))
    }

    /// What [`Engine::new`](crate::Engine::new) uses: the file that the environment's `ATTN_TUNING` names, else the user's own;
    /// `None` if there is no such file, or `ATTN_TUNING` is `off`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of_user(caps: &DeviceCaps) -> Result<Option<Self>> {
        match Setting::of("ATTN_TUNING") {
            Setting::Off => Ok(None),
            Setting::Path(path) => Self::load(&path, caps).map(Some),
            Setting::Default => match Self::user_path(caps) {
                Some(path) if path.exists() => Self::load(&path, caps).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where it cannot be read, makes no sense, or was measured on another adapter, with another
    /// driver, or with other shaders than this version of the crate has.
    pub fn load(path: &Path, caps: &DeviceCaps) -> Result<Self> {
        let bytes = read(path, MOST_BYTES)?.ok_or_else(|| fault(path, "no such file"))?;
        let corrupt = |error: serde_json::Error| fault(path, format!("is no tuning ({error}); `attn tune` makes one"));
        let Format { format } = serde_json::from_slice(&bytes).map_err(corrupt)?;
        if format != FORMAT {
            let message = format!("has format {format}, and this version reads {FORMAT}; run `attn tune` again");
            return Err(fault(path, message));
        }
        let File { key, tuning, .. } = serde_json::from_slice(&bytes).map_err(corrupt)?;
        match key.difference(&Key::of(caps)) {
            None => Ok(tuning),
            Some(what) => Err(fault(path, format!("was measured with {what}; run `attn tune` again"))),
        }
    }

    /// Writes a file, whole or not at all: beside it first, then renamed.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) where that fails; an older file is then as it was.
    pub fn save(&self, path: &Path, caps: &DeviceCaps) -> Result<()> {
        let file = File {
            format: FORMAT,
            key: Key::of(caps),
            tuning: self.clone(),
        };
        let mut text = serde_json::to_vec_pretty(&file).map_err(|error| fault(path, error))?;
        text.push(b'\n');
        write(path, &text)
    }
}

impl Key {
    fn of(caps: &DeviceCaps) -> Self {
        Self {
            adapter: caps.name.clone(),
            backend: caps.backend.clone(),
            driver: caps.driver.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            shaders: format!("{:016x}", fingerprint()),
        }
    }

    /// What is not as it is now.
    fn difference(&self, now: &Self) -> Option<String> {
        let pairs = [
            ("the adapter", &self.adapter, &now.adapter),
            ("the backend", &self.backend, &now.backend),
            ("the driver", &self.driver, &now.driver),
            ("version", &self.version, &now.version),
            ("the shaders", &self.shaders, &now.shaders),
        ];
        let (what, then, now) = pairs.into_iter().find(|(_, then, now)| then != now)?;
        Some(format!("{what} {then:?}, and this is {now:?}"))
    }
}

/// The user's tuning; what is wrong with it is logged, and it is then as if there were none.
pub(crate) fn user_tuning(caps: &DeviceCaps) -> Option<Tuning> {
    Tuning::of_user(caps).unwrap_or_else(|error| {
        tracing::warn!("tuning is ignored: {error}");
        None
    })
}
