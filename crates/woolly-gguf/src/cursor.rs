//! Bounded reading of a byte sequence: every length is compared with what is left before it is used.

use std::fmt;

use crate::bytes::SharedBytes;
use crate::error::Error;

/// What is being read, for error messages; formatted only when an error occurs.
#[derive(Clone, Copy)]
pub(crate) enum Field<'a> {
    Magic,
    Version,
    TensorCount,
    EntryCount,
    Key(u64),
    TypeOf(&'a str),
    ValueOf(&'a str),
    LengthOf(&'a str),
    ElementOf(&'a str, u64),
    TensorName(u64),
    TensorInfo(&'a str),
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("the magic number"),
            Self::Version => f.write_str("the version number"),
            Self::TensorCount => f.write_str("tensor_count"),
            Self::EntryCount => f.write_str("metadata_kv_count"),
            Self::Key(number) => write!(f, "the key of metadata entry {number}"),
            Self::TypeOf(key) => write!(f, "the type of metadata key {key:?}"),
            Self::ValueOf(key) => write!(f, "the value of metadata key {key:?}"),
            Self::LengthOf(key) => write!(f, "the array length of metadata key {key:?}"),
            Self::ElementOf(key, index) => write!(f, "element {index} of metadata key {key:?}"),
            Self::TensorName(number) => write!(f, "the name of tensor number {number}"),
            Self::TensorInfo(name) => write!(f, "the description of tensor {name:?}"),
        }
    }
}

/// A position in the bytes of a file.
pub(crate) struct Cursor<'a> {
    shared: &'a SharedBytes,
    bytes: &'a [u8],
    position: usize,
    /// Version 1 stores lengths, counts and dimensions as u32, later versions as u64.
    narrow: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(shared: &'a SharedBytes) -> Self {
        Self { shared, bytes: shared, position: 0, narrow: false }
    }

    /// Switches to the field widths of version 1.
    pub(crate) fn use_narrow_lengths(&mut self) {
        self.narrow = true;
    }

    /// Bytes that a length, count or dimension takes.
    pub(crate) fn length_bytes(&self) -> usize {
        if self.narrow { 4 } else { 8 }
    }

    /// Bytes from the start of the file.
    pub(crate) fn offset(&self) -> u64 {
        self.position as u64
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// The bytes from `start` to the current position.
    pub(crate) fn since(&self, start: usize) -> SharedBytes {
        self.shared.slice(start..self.position).unwrap_or_default()
    }

    /// Takes the next `length` bytes.
    pub(crate) fn take(&mut self, length: u64, field: Field<'_>) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| Error::Truncated {
            field: field.to_string(),
            offset: self.offset(),
            needed: length,
            available: rest.len() as u64,
        })?;
        self.position += taken.len();
        Ok(taken)
    }

    fn take_array<const N: usize>(&mut self, field: Field<'_>) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, field)?);
        Ok(bytes)
    }

    pub(crate) fn u32(&mut self, field: Field<'_>) -> Result<u32, Error> {
        self.take_array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: Field<'_>) -> Result<u64, Error> {
        self.take_array(field).map(u64::from_le_bytes)
    }

    /// Reads a length, count or dimension in the width of the file's version.
    pub(crate) fn length(&mut self, field: Field<'_>) -> Result<u64, Error> {
        if self.narrow { self.u32(field).map(u64::from) } else { self.u64(field) }
    }

    /// Reads a count of items that take at least `item_bytes` each, and checks that so many can follow.
    pub(crate) fn count(&mut self, item_bytes: usize, field: Field<'_>) -> Result<u64, Error> {
        let offset = self.offset();
        let value = self.length(field)?;
        let limit = (self.bytes.len().saturating_sub(self.position) / item_bytes.max(1)) as u64;
        if value > limit {
            return Err(Error::ImplausibleCount { field: field.to_string(), offset, value, limit });
        }
        Ok(value)
    }

    /// Takes `length` bytes of UTF-8.
    pub(crate) fn text(&mut self, length: u64, field: Field<'_>) -> Result<&'a str, Error> {
        let offset = self.offset();
        let bytes = self.take(length, field)?;
        std::str::from_utf8(bytes).map_err(|_| Error::NotUtf8 { field: field.to_string(), offset })
    }
}
