//! Where the conformance tests find their data.
//!
//! The folder is named by `WOOLLY_TESTDATA` and defaults to `shared` beside the repository. Tests walk it and discover
//! their cases; a test whose part of the folder is absent is skipped, counted and reported on the process's real
//! standard error, which the test harness does not capture.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

static SKIPPED: AtomicUsize = AtomicUsize::new(0);

/// Returns the data folder, whether or not it exists.
pub fn root() -> PathBuf {
    match std::env::var_os("WOOLLY_TESTDATA") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
    }
}

/// Returns `relative` inside the data folder, or `None` after reporting that the test named `test` is skipped.
pub fn folder(test: &str, relative: &str) -> Option<PathBuf> {
    let path = root().join(relative);
    if path.exists() {
        return Some(path);
    }
    skip(test, &format!("{} is absent (set WOOLLY_TESTDATA)", path.display()));
    None
}

/// Reports on standard error that `test` did not run and why, with the number of tests of this process skipped so far.
pub fn skip(test: &str, reason: &str) {
    let count = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    let _ = writeln!(io::stderr(), "skipped ({count} in this binary): {test}: {reason}");
}

/// Lists the files of `dir` whose name ends in `suffix`, sorted by name; not recursive.
///
/// # Panics
/// When `dir` cannot be listed: a data folder that exists must be readable.
pub fn files_ending_in(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("cannot list {}: {e}", dir.display()));
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(suffix)))
        .collect();
    files.sort();
    files
}

/// Reads a file of little-endian `f32` values.
///
/// # Panics
/// When the file cannot be read or its length is not a multiple of four.
pub fn read_f32(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
    assert_eq!(bytes.len() % 4, 0, "{} is not a whole number of f32", path.display());
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
