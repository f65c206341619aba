//! From a path to bytes: refuses what is not a regular file, then maps or reads it.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use crate::bytes::SharedBytes;
use crate::error::Error;
use crate::foreign::refuse_foreign;
use crate::map::{self, Mapping};

/// How the bytes of a file are made available.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Access {
    /// Mapped; `aligned` asks for 2 MiB pages.
    Map { aligned: bool },
    /// Read into memory; `aligned` asks for 2 MiB pages.
    Read { aligned: bool },
}

/// An opened file and what it looked like then.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) bytes: SharedBytes,
    /// The mapping, to be populated in the background for as long as it exists.
    pub(crate) mapping: Option<Weak<Mapping>>,
    file: File,
    length: u64,
    modified: Option<SystemTime>,
}

impl Source {
    /// Opens `path` without ever waiting for the other end of a pipe.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, Error> {
        refuse_non_file(fs::metadata(path).map_err(Error::io("find the file"))?.file_type())?;
        let file = open_without_waiting(path).map_err(Error::io("open the file"))?;
        let metadata = file.metadata().map_err(Error::io("examine the file"))?;
        refuse_non_file(metadata.file_type())?;
        let length = usize::try_from(metadata.len()).map_err(|_| Error::Config {
            field: "use_mmap",
            reason: "the file is larger than this machine's address space",
        })?;
        let (bytes, mapping) = match length {
            0 => return Err(Error::Empty),
            _ => bytes_of(&file, length, access)?,
        };
        Ok(Self { bytes, mapping, length: metadata.len(), modified: modified(&metadata), file })
    }

    /// Compares length and modification time with those at opening.
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        let metadata = self.file.metadata().map_err(Error::io("examine the file"))?;
        if metadata.len() == self.length && modified(&metadata) == self.modified {
            return Ok(());
        }
        Err(Error::Changed { opened: self.length, now: metadata.len() })
    }
}

fn bytes_of(file: &File, length: usize, access: Access) -> Result<(SharedBytes, Option<Weak<Mapping>>), Error> {
    match access {
        Access::Map { aligned } => {
            let mapping = Arc::new(map::map_file(file, length, aligned).map_err(Error::io("map the file"))?);
            let weak = Arc::downgrade(&mapping);
            Ok((SharedBytes::from_owner(mapping), Some(weak)))
        }
        Access::Read { aligned } => {
            // Not worth reading gigabytes to find out that they are a web page.
            refuse_foreign(&map::read_start(file, length).map_err(Error::io("read the file"))?)?;
            Ok((map::read_file(file, length, aligned).map_err(Error::io("read the file"))?, None))
        }
    }
}

/// Some file systems keep no modification time.
fn modified(metadata: &Metadata) -> Option<SystemTime> {
    metadata.modified().ok()
}

#[cfg(unix)]
fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // The path may have become a pipe since it was examined; without the flag the call would wait for a writer.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

fn refuse_non_file(ty: FileType) -> Result<(), Error> {
    if ty.is_file() {
        return Ok(());
    }
    let (kind, hint) = if ty.is_dir() {
        ("directory", "give the .gguf file in it")
    } else {
        (special_kind(ty), "a model is read more than once and from any place: save it to a file first")
    };
    Err(Error::NotAFile { kind, hint })
}

#[cfg(unix)]
fn special_kind(ty: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match ty {
        ty if ty.is_fifo() => "named pipe",
        ty if ty.is_socket() => "socket",
        _ => "device",
    }
}

#[cfg(not(unix))]
fn special_kind(_: FileType) -> &'static str {
    "device"
}
