//! Writing files so that a failure leaves what was there.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Writes beside the target first, then renames: a file that exists is replaced whole or not at all.
pub fn write_whole(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let name = path
        .file_name()
        .with_context(|| format!("{} is no file name", path.display()))?;
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let written = fs::write(&temporary, contents).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Nothing more can be done about the remains.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Fails early if a file could not be written there.
pub fn check_writable(path: &Path) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    anyhow::ensure!(
        folder.is_dir(),
        "cannot write {}: {} is no folder",
        path.display(),
        folder.display()
    );
    anyhow::ensure!(!path.is_dir(), "cannot write {}: it is a folder", path.display());
    let probe = folder.join(format!(".attn-{}.part", std::process::id()));
    fs::write(&probe, []).with_context(|| format!("cannot write into {}", folder.display()))?;
    fs::remove_file(&probe).with_context(|| format!("cannot write into {}", folder.display()))
}
