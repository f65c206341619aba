//! A file that appears under its name only when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A file that is removed again unless it is kept.
pub(crate) struct Temporary {
    pub(crate) file: File,
    path: PathBuf,
    kept: bool,
}

impl Temporary {
    /// Creates a file in the directory of `target`, so that renaming stays within one file system.
    pub(crate) fn beside(target: &Path) -> io::Result<Self> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
        for attempt in 0..100 {
            let path = target.with_file_name(format!(".{name}.{}-{attempt}.incomplete", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, kept: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Flushes the file to the disk and gives it its name.
    pub(crate) fn keep_as(&mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, target)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(%error, path = %self.path.display(), "an incomplete file stays behind");
        }
    }
}
