//! Where files lie, and how they are written: beside the target first, then renamed, so that a reader meets the old or the new.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::{Error, Result};

/// This crate's part of the user's cache folder: `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on
/// Windows. `None` for a user without a home.
pub(super) fn cache_folder() -> Option<PathBuf> {
    // A relative path is to be ignored, says the XDG Base Directory Specification, and it does no good elsewhere.
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let variable = |name| std::env::var_os(name).map(PathBuf::from).and_then(absolute);
    let home = |folder| std::env::home_dir().and_then(absolute).map(|home| home.join(folder));
    let folder = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_vendor = "apple") {
        home("Library/Caches")
    } else {
        variable("XDG_CACHE_HOME").or_else(|| home(".cache"))
    };
    folder.map(|folder| folder.join("wgpu-attention"))
}

/// The file's bytes, if there is one and it has at most `most` of them.
pub(super) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(path, error)),
        Ok(file) => file,
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(path, error))?;
    if bytes.len() as u64 > most {
        return Err(fault(path, format!("larger than {most} bytes")));
    }
    Ok(Some(bytes))
}

/// Writes a file whole or not at all; makes its folder if need be. Of several writers at once one wins.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    static WRITTEN: AtomicU32 = AtomicU32::new(0);
    let Some(name) = path.file_name() else {
        return Err(fault(path, "no file name"));
    };
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let mut temporary = name.to_owned();
    temporary.push(format!(".{}-{number}.part", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let written = folder
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&temporary, bytes))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Nothing more can be done about the remains.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(|error| fault(path, error))
}

pub(super) fn fault(path: &Path, message: impl ToString) -> Error {
    Error::File {
        path: path.display().to_string(),
        message: message.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("wgpu-attention-{name}-{}", std::process::id()));
        // From a run before, of the same number.
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    /// Whoever reads meanwhile meets one writer's text whole, never a mixture, and nothing is left lying about.
    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let folder = scratch("writers");
        let path = folder.join("deep/file");
        let texts: Vec<Vec<u8>> = (0..4u8).map(|writer| vec![writer; 100_000]).collect();
        std::thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| (0..20).for_each(|_| write(&path, text).unwrap()));
            }
            for _ in 0..200 {
                if let Some(bytes) = read(&path, 1 << 20).unwrap() {
                    assert!(texts.contains(&bytes));
                }
            }
        });
        assert!(texts.contains(&read(&path, 1 << 20).unwrap().unwrap()));
        assert_eq!(fs::read_dir(folder.join("deep")).unwrap().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn faults_name_the_file() {
        let folder = scratch("faults");
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("file");
        write(&file, b"12345").unwrap();
        assert_eq!(read(&file, 5).unwrap().unwrap(), b"12345");
        assert!(matches!(read(&file, 4), Err(Error::File { path, .. }) if path.ends_with("file")));
        assert_eq!(read(&folder.join("none"), 5).unwrap(), None);
        // A file is no folder, and a folder no file.
        assert!(matches!(write(&file.join("below"), b""), Err(Error::File { path, .. }) if path.ends_with("below")));
        assert!(matches!(write(&folder, b"1"), Err(Error::File { .. })));
        assert!(matches!(read(&folder, 5), Err(Error::File { .. })));
        assert!(matches!(write(Path::new(".."), b""), Err(Error::File { .. })));
        fs::remove_dir_all(folder).unwrap();
    }
}
