//! What can be wrong with a GGUF file, in words that name the field, its value, where it lies and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::foreign::Foreign;
use crate::tensor::{MAX_DIMS, MAX_NAME_BYTES};

const DAMAGED: &str = "the file is damaged or was written by a faulty converter: download it again or convert it anew";

/// Why a GGUF file could not be opened, queried or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What went wrong in the file at `path`; [`Error::root`] returns the cause.
    #[error("{}: {cause}", path.display())]
    File {
        /// The file, as it was opened.
        path: PathBuf,
        /// What is wrong with it.
        cause: Box<Error>,
    },
    /// The operating system refused to open, map, read or write.
    #[error("cannot {action}: {error}")]
    Io {
        /// What was tried, for example `open the file`.
        action: &'static str,
        /// The operating system's answer.
        error: io::Error,
    },
    /// The settings of a [`LoaderBuilder`](crate::LoaderBuilder) contradict each other.
    #[error("{field} cannot be honoured: {reason}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What it contradicts and what to do.
        reason: &'static str,
    },
    /// The path names something other than a regular file.
    #[error("this is a {kind}, not a file: {hint}")]
    NotAFile {
        /// `directory`, `named pipe`, `device` or `socket`.
        kind: &'static str,
        /// What to give instead.
        hint: &'static str,
    },
    /// The file has no bytes.
    #[error("the file is empty (0 bytes): the download did not start or failed, download it again")]
    Empty,
    /// The file is of another, recognised kind.
    #[error("this is {}, which cannot be opened as a model: {}", .0, .0.hint())]
    Foreign(Foreign),
    /// The file does not begin with `GGUF` and is of no kind that is recognised.
    #[error(
        "this is not a GGUF file: it begins with {found:02x?} instead of [47, 47, 55, 46] (\"GGUF\"); check that this is the model file and download it again"
    )]
    BadMagic {
        /// The first bytes, four at most.
        found: Vec<u8>,
    },
    /// The version number is none that is known.
    #[error(
        "GGUF version {version} (byte 4) is not supported: versions 1, 2 and 3 are; a newer version needs a newer woolly, any other value means that the file is damaged"
    )]
    UnsupportedVersion {
        /// The number in the file.
        version: u32,
    },
    /// The file ends before a field does.
    #[error("the file ends inside {field} at byte {offset}: {needed} bytes are needed, {available} are there, {} are missing; the file was cut short or is damaged: download it again", needed.saturating_sub(*available))]
    Truncated {
        /// What was being read, for example `the value of "general.name"`.
        field: String,
        /// Where the field begins, in bytes from the start of the file.
        offset: u64,
        /// How many bytes the field takes.
        needed: u64,
        /// How many bytes are left in the file.
        available: u64,
    },
    /// A count is larger than the rest of the file could hold.
    #[error("{field} at byte {offset} is {value}, but the rest of the file holds {limit} at most; {DAMAGED}")]
    ImplausibleCount {
        /// Which count.
        field: String,
        /// Where it lies, in bytes from the start of the file.
        offset: u64,
        /// What it says.
        value: u64,
        /// How many of the smallest possible items fit into the remaining bytes.
        limit: u64,
    },
    /// The header announces neither metadata nor tensors.
    #[error(
        "the file holds no metadata and no tensors: it is a valid GGUF header without a model, download it again or convert it anew"
    )]
    NoContent,
    /// A name or string that must be UTF-8 is not.
    #[error("{field} at byte {offset} is not valid UTF-8; {DAMAGED}")]
    NotUtf8 {
        /// Which string.
        field: String,
        /// Where its bytes begin, from the start of the file.
        offset: u64,
    },
    /// A metadata entry is invalid.
    #[error("metadata key {key:?}{}: {fault}{}", At(*offset), Remedy(*offset, DAMAGED))]
    Key {
        /// The key, shortened if it is very long; `#3` for the key of the fourth entry if it cannot be read.
        key: String,
        /// Where the offending field lies, from the start of the file; `None` when writing.
        offset: Option<u64>,
        /// What is wrong with it.
        fault: KeyFault,
    },
    /// A tensor's description is invalid.
    #[error("tensor {name:?}{}: {fault}{}", At(*offset), Remedy(*offset, fault.remedy()))]
    Tensor {
        /// The tensor's name, shortened if it is very long; `#3` for the fourth tensor if its name cannot be read.
        name: String,
        /// Where its description begins, from the start of the file; `None` when writing.
        offset: Option<u64>,
        /// What is wrong with it.
        fault: TensorFault,
    },
    /// The file ends before its tensor data does.
    #[error("the file is cut short or its offsets are damaged: it has {available} bytes, its tensors need {needed}, {} are missing (the first one affected is {tensor:?} at byte {offset}): download it again", needed.saturating_sub(*available))]
    DataTruncated {
        /// The first tensor, in the order of the file, that does not lie within it.
        tensor: String,
        /// Where that tensor's data begins, from the start of the file.
        offset: u64,
        /// The file length that all tensors together need.
        needed: u64,
        /// The file length.
        available: u64,
    },
    /// The parts of a split model do not make up one model.
    #[error("split model: {0}")]
    Split(SplitFault),
    /// A metadata value has another type than asked for.
    #[error("metadata key {key:?} must be {expected} but is {found}: convert the model anew")]
    WrongType {
        /// The key.
        key: String,
        /// The type asked for.
        expected: &'static str,
        /// The type and, if it is short, the value found.
        found: String,
    },
    /// A metadata integer does not fit the type asked for.
    #[error("metadata key {key:?} is {value}, which does not fit {expected}: convert the model anew")]
    OutOfRange {
        /// The key.
        key: String,
        /// The value found.
        value: i128,
        /// The type asked for.
        expected: &'static str,
    },
    /// A required metadata key is absent.
    #[error("metadata key {key:?} is missing: the file is incomplete or of an older form, convert the model anew")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// The file changed after it was opened.
    #[error(
        "the file changed while it was in use ({opened} bytes when opened, {now} now): stop using what was read and open it again"
    )]
    Changed {
        /// Length in bytes when opened.
        opened: u64,
        /// Length in bytes now.
        now: u64,
    },
}

impl Error {
    /// Returns the error without the paths around it.
    pub fn root(&self) -> &Self {
        match self {
            Self::File { cause, .. } => cause.root(),
            other => other,
        }
    }

    pub(crate) fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { action, error }
    }

    pub(crate) fn in_file(path: &std::path::Path) -> impl FnOnce(Self) -> Self {
        move |cause| match cause {
            named @ Self::File { .. } => named,
            cause => Self::File { path: path.to_owned(), cause: Box::new(cause) },
        }
    }

    pub(crate) fn key(key: &str, offset: Option<u64>, fault: KeyFault) -> Self {
        Self::Key { key: shorten(key), offset, fault }
    }

    pub(crate) fn tensor(name: &str, offset: Option<u64>, fault: TensorFault) -> Self {
        Self::Tensor { name: shorten(name), offset, fault }
    }
}

/// What is wrong with a metadata entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// The key is the empty string.
    #[error("the key is empty")]
    Empty,
    /// The key is longer than the specification allows.
    #[error("the key is {bytes} bytes long, 65535 is the limit")]
    TooLong {
        /// Its length.
        bytes: u64,
    },
    /// An earlier entry has the same key.
    #[error("the key occurs twice")]
    Duplicate,
    /// The type number stands for no type.
    #[error("value type {id} does not exist (0 to 12 do)")]
    UnknownType {
        /// The number in the file.
        id: u32,
    },
    /// A boolean is neither 0 nor 1.
    #[error("a boolean is {byte}, only 0 and 1 are allowed")]
    InvalidBool {
        /// The byte in the file.
        byte: u8,
    },
    /// Arrays lie within arrays beyond [`MAX_ARRAY_DEPTH`](crate::MAX_ARRAY_DEPTH).
    #[error("arrays are nested more than {} deep", crate::MAX_ARRAY_DEPTH)]
    TooDeep,
    /// The strings of one array take more than 4 GiB.
    #[error("a string array of more than 4 GiB is not supported")]
    StringsTooLarge,
    /// `general.alignment` is of the wrong type or value.
    #[error("the alignment is {found}, it must be a u32, a power of two and at least 8")]
    BadAlignment {
        /// Type and value in the file.
        found: String,
    },
}

/// What is wrong with a tensor's description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorFault {
    /// The name is the empty string.
    #[error("the name is empty")]
    EmptyName,
    /// The name is longer than the specification allows.
    #[error("the name is {bytes} bytes long, {MAX_NAME_BYTES} is the limit")]
    NameTooLong {
        /// Its length.
        bytes: u64,
    },
    /// An earlier tensor has the same name.
    #[error("the name occurs twice")]
    Duplicate,
    /// The number of dimensions is 0 or too large.
    #[error("it has {count} dimensions, 1 to {MAX_DIMS} are allowed")]
    Dimensions {
        /// The number in the file.
        count: u64,
    },
    /// A dimension is 0.
    #[error("dimension {axis} is 0")]
    ZeroDimension {
        /// Which one, counted from 0.
        axis: usize,
    },
    /// The type number stands for no type, or for one that was removed.
    #[error(
        "tensor type {id} does not exist or was removed from the format; a type newer than this program needs a newer woolly"
    )]
    UnknownType {
        /// The number in the file.
        id: u32,
    },
    /// A row is not a whole number of blocks.
    #[error("a row of {elements} elements is not a whole number of {ty} blocks of {block}")]
    PartialBlock {
        /// Dimension 0.
        elements: u64,
        /// The tensor type's name.
        ty: &'static str,
        /// Elements per block.
        block: usize,
    },
    /// The element or byte count of these dimensions exceeds what 63 bits (or the address space) can hold.
    #[error("its dimensions {dims:?} make it larger than any file")]
    TooLarge {
        /// The dimensions in the file.
        dims: Vec<u64>,
    },
    /// The offset is not a multiple of the alignment.
    #[error("its data offset {offset} is not a multiple of the alignment {alignment}")]
    Unaligned {
        /// Offset from the start of the data section.
        offset: u64,
        /// The file's alignment.
        alignment: u64,
    },
    /// The offset plus the size exceed 64 bits.
    #[error("its data offset {offset} lies beyond any file")]
    OffsetTooLarge {
        /// Offset from the start of the data section.
        offset: u64,
    },
    /// The data shares bytes with another tensor.
    #[error("its data overlaps that of {other:?}")]
    Overlap {
        /// The other tensor.
        other: String,
    },
    /// The bytes given for writing are not as many as dimensions and type demand.
    #[error("{given} bytes of data were given, its dimensions and type need {needed}")]
    DataLength {
        /// Bytes given.
        given: u64,
        /// Bytes needed.
        needed: u64,
    },
}

impl TensorFault {
    fn remedy(&self) -> &'static str {
        match self {
            Self::UnknownType { .. } => {
                "a type that is newer than this program needs a newer woolly, a removed one a new conversion of the model"
            }
            _ => DAMAGED,
        }
    }
}

/// Why the parts of a split model do not make up one model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitFault {
    /// The file is a part, but its name does not lead to the others.
    #[error("this is part {} of {count}, so its name must end in -{:05}-of-{count:05}.gguf for the other parts to be found: rename it as it was downloaded", no + 1, no + 1)]
    Name {
        /// Number of this part, counted from 0.
        no: u64,
        /// Number of parts.
        count: u64,
    },
    /// Parts are missing.
    #[error("{} of {count} parts missing: download {}", missing.len(), Paths(missing))]
    Missing {
        /// The files that are not there.
        missing: Vec<PathBuf>,
        /// Number of parts.
        count: u64,
    },
    /// A part says that it is another one than its name or place says.
    #[error(
        "{key} is {found} where {expected} is expected: the parts were renamed or belong to different models, download them again"
    )]
    Mismatch {
        /// `split.no` or `split.count`.
        key: &'static str,
        /// What the part says.
        found: String,
        /// What the name and the first part say.
        expected: u64,
    },
    /// A part's metadata contradicts the first part's.
    #[error(
        "key {key:?} of part {part} differs from the first part's: the parts belong to different models, download them again"
    )]
    Mixed {
        /// The key.
        key: String,
        /// The part that differs from the first, counted from 1.
        part: usize,
    },
    /// The parts hold fewer or more tensors than announced.
    #[error(
        "the parts hold {found} tensors, split.tensors.count says {expected}: parts of different models were mixed, download them again"
    )]
    TensorCount {
        /// Tensors in all parts together.
        found: u64,
        /// What `split.tensors.count` says.
        expected: u64,
    },
    /// Bytes in memory have no name by which the other parts could be found.
    #[error("this is one part of {count}: give all parts, or open it by its path")]
    InMemory {
        /// Number of parts.
        count: u64,
    },
    /// The tensors to be written need more parts than the format can number.
    #[error("{parts} parts are needed, 65535 is the limit: allow more bytes per part")]
    TooManyParts {
        /// Parts needed.
        parts: usize,
    },
}

/// ` at byte N`, or nothing.
struct At(Option<u64>);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |offset| write!(f, " at byte {offset}"))
    }
}

/// `; what to do`, or nothing when writing, where the fault itself says it.
struct Remedy(Option<u64>, &'static str);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |_| write!(f, "; {}", self.1))
    }
}

/// The first few of a list of paths.
struct Paths<'a>(&'a [PathBuf]);

impl fmt::Display for Paths<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        for (i, path) in self.0.iter().take(SHOWN).enumerate() {
            write!(f, "{}{}", if i > 0 { ", " } else { "" }, path.display())?;
        }
        match self.0.len().checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

/// Keeps messages readable when a damaged length makes a name of many kilobytes.
fn shorten(name: &str) -> String {
    const SHOWN: usize = 80;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_field_value_place_and_remedy() {
        let cases: [(Error, &[&str]); 9] = [
            (
                Error::Truncated { field: "tensor_count".into(), offset: 8, needed: 8, available: 3 },
                &["tensor_count", "byte 8", "5 are missing", "download it again"],
            ),
            (
                Error::DataTruncated { tensor: "t".into(), offset: 64, needed: 96, available: 90 },
                &["\"t\"", "byte 64", "6 are missing", "download it again"],
            ),
            (
                Error::ImplausibleCount { field: "metadata_kv_count".into(), offset: 16, value: 9, limit: 2 },
                &["metadata_kv_count", "byte 16", "is 9", "2 at most", "convert it anew"],
            ),
            (Error::key("k", Some(24), KeyFault::UnknownType { id: 13 }), &["\"k\"", "byte 24", "13", "download"]),
            (Error::tensor("t", Some(24), TensorFault::UnknownType { id: 99 }), &["\"t\"", "99", "newer woolly"]),
            (Error::in_file("m.gguf".as_ref())(Error::Empty), &["m.gguf: ", "0 bytes", "download it again"]),
            (Error::BadMagic { found: b"FUGG".to_vec() }, &["[46, 55, 47, 47]", "\"GGUF\""]),
            (
                Error::Split(SplitFault::Missing { missing: vec!["b.gguf".into(); 6], count: 7 }),
                &["6 of 7", "b.gguf, ", "and 2 more", "download"],
            ),
            (Error::MissingKey { key: "general.architecture".into() }, &["general.architecture", "missing"]),
        ];
        for (error, parts) in cases {
            let message = error.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    fn a_fault_found_when_writing_blames_no_file() {
        let message = Error::tensor("t", None, TensorFault::EmptyName).to_string();
        assert_eq!(message, "tensor \"t\": the name is empty");
    }

    #[test]
    fn the_root_is_what_is_wrong_with_the_file() {
        let nested = Error::in_file("b".as_ref())(Error::in_file("a".as_ref())(Error::Empty));
        assert!(matches!(nested.root(), Error::Empty));
        assert!(nested.to_string().starts_with("a: "), "the file in which it was found is named once: {nested}");
    }

    #[test]
    fn damaged_names_do_not_fill_the_screen() {
        let message = Error::key(&"k".repeat(65_000), None, KeyFault::Duplicate).to_string();
        assert!(message.len() < 200, "{message}");
    }
}
