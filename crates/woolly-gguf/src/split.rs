//! Models split over several files: finding the parts and joining what they say.
//!
//! Part 1 carries the metadata, every part its own tensors and the keys `split.no`, `split.count` and
//! `split.tensors.count`. Parts find each other by their names, `NAME-00001-of-00003.gguf`.

use std::path::{Path, PathBuf};

use crate::error::{Error, SplitFault};
use crate::metadata::Metadata;
use crate::parse::{ALIGNMENT_KEY, Parsed};

pub(crate) const NO_KEY: &str = "split.no";
pub(crate) const COUNT_KEY: &str = "split.count";
pub(crate) const TENSORS_KEY: &str = "split.tensors.count";
pub(crate) const KEYS: [&str; 3] = [NO_KEY, COUNT_KEY, TENSORS_KEY];

/// Which part of how many a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Counted from 0.
    pub(crate) no: u64,
    pub(crate) count: u64,
}

impl Place {
    /// Returns what the metadata says; `None` for a model in one file.
    pub(crate) fn of(metadata: &Metadata) -> Result<Option<Self>, Error> {
        let count = metadata.u64(COUNT_KEY)?.unwrap_or(0);
        if count <= 1 {
            return Ok(None);
        }
        Ok(Some(Self { no: metadata.require_u64(NO_KEY)?, count }))
    }

    /// Checks that a file says to be this place.
    pub(crate) fn check(self, metadata: &Metadata) -> Result<(), Error> {
        let found = [(NO_KEY, self.no), (COUNT_KEY, self.count)];
        for (key, expected) in found {
            let value = metadata.u64(key)?;
            if value != Some(expected) {
                let found = value.map_or_else(|| "absent".to_owned(), |value| value.to_string());
                return Err(Error::Split(SplitFault::Mismatch { key, found, expected }));
            }
        }
        Ok(())
    }
}

/// Returns the path of one part of a model whose parts begin with `prefix`.
pub(crate) fn part_path(prefix: &Path, no: u64, count: u64) -> PathBuf {
    let mut path = prefix.as_os_str().to_owned();
    path.push(format!("-{:05}-of-{count:05}.gguf", no + 1));
    path.into()
}

/// Returns the paths of all parts, given that of one; all of them exist.
pub(crate) fn all_paths(path: &Path, place: Place) -> Result<Vec<PathBuf>, Error> {
    let Place { no, count } = place;
    let prefix = prefix_of(path, place).ok_or(Error::Split(SplitFault::Name { no, count }))?;
    let paths: Vec<_> = (0..count).map(|no| part_path(&prefix, no, count)).collect();
    let missing: Vec<_> = paths.iter().filter(|path| !path.exists()).cloned().collect();
    if missing.is_empty() { Ok(paths) } else { Err(Error::Split(SplitFault::Missing { missing, count })) }
}

fn prefix_of(path: &Path, place: Place) -> Option<PathBuf> {
    // More parts than this have no name of five digits; the limit also bounds the search for them.
    if place.no >= place.count || place.count > u16::MAX.into() {
        return None;
    }
    let ending = part_path(Path::new(""), place.no, place.count);
    let stem = path.file_name()?.to_str()?.strip_suffix(ending.to_str()?)?;
    Some(path.with_file_name(stem))
}

/// Joins the parts, in order, to one model.
pub(crate) fn join(parts: Vec<Parsed>) -> Result<Parsed, Error> {
    let mut parts = parts.into_iter();
    let mut whole = parts.next().ok_or(Error::NoContent)?;
    for (no, part) in parts.enumerate() {
        join_metadata(&mut whole.metadata, &part.metadata).map_err(|key| mixed(key, no + 2))?;
        whole.tensors.extend(part.tensors.into_iter().map(|tensor| crate::TensorInfo { part: no + 1, ..tensor }));
    }
    check_tensor_count(&whole)?;
    Ok(whole)
}

/// Takes over what the first part does not have; what both have must agree, except for what belongs to each file.
/// An error is the key in which they differ.
fn join_metadata(whole: &mut Metadata, part: &Metadata) -> Result<(), String> {
    for (key, value) in part.iter().filter(|(key, _)| *key != NO_KEY && *key != ALIGNMENT_KEY) {
        match whole.get(key) {
            None => drop(whole.insert(key, value.clone())),
            Some(first) if first == value => {}
            Some(_) => return Err(key.to_owned()),
        }
    }
    Ok(())
}

fn mixed(key: String, part: usize) -> Error {
    Error::Split(SplitFault::Mixed { key, part })
}

fn check_tensor_count(whole: &Parsed) -> Result<(), Error> {
    let found = whole.tensors.len() as u64;
    match whole.metadata.u64(TENSORS_KEY)? {
        Some(expected) if expected != found => Err(Error::Split(SplitFault::TensorCount { found, expected })),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_leads_to_the_prefix_only_by_its_own_name() {
        let second = Place { no: 1, count: 3 };
        let cases: [(&str, Place, Option<&str>, &str); 7] = [
            ("/m/llama-00002-of-00003.gguf", second, Some("/m/llama"), "the pattern"),
            ("a-00002-of-00003-00002-of-00003.gguf", second, Some("a-00002-of-00003"), "only the ending counts"),
            ("llama-00001-of-00003.gguf", second, None, "another number"),
            ("llama-2-of-3.gguf", second, None, "not five digits"),
            ("model.gguf", second, None, "no pattern at all"),
            ("m-00004-of-00003.gguf", Place { no: 3, count: 3 }, None, "beyond the last"),
            ("m-00001-of-70000.gguf", Place { no: 0, count: 70_000 }, None, "more than the format can number"),
        ];
        for (path, place, expected, why) in cases {
            assert_eq!(prefix_of(Path::new(path), place).as_deref(), expected.map(Path::new), "{why}");
        }
    }

    #[test]
    fn a_place_of_the_largest_numbers_is_no_overflow() {
        let place = Place { no: u64::MAX, count: u64::MAX };
        assert!(all_paths(Path::new("m.gguf"), place).is_err());
    }
}
