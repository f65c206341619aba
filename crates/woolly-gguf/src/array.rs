//! Metadata arrays as views of the file: numbers stay little-endian bytes, strings stay where they lie.

use std::fmt;
use std::sync::Arc;

use crate::bytes::SharedBytes;
use crate::value::{Value, ValueType};

/// How deep arrays may nest: an array of scalars has depth 1.
pub const MAX_ARRAY_DEPTH: usize = 4;

/// A metadata array.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// Numbers or booleans.
    Scalars(ScalarArray),
    /// Strings.
    Strings(StringArray),
    /// Arrays, each with its own element type.
    Arrays(Arc<[Array]>),
}

impl Array {
    pub(crate) fn from_scalar_bytes(ty: ValueType, bytes: Vec<u8>) -> Self {
        Self::Scalars(ScalarArray { ty, bytes: bytes.into() })
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Scalars(array) => array.len(),
            Self::Strings(array) => array.len(),
            Self::Arrays(array) => array.len(),
        }
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the type of the elements.
    pub fn element_type(&self) -> ValueType {
        match self {
            Self::Scalars(array) => array.element_type(),
            Self::Strings(_) => ValueType::String,
            Self::Arrays(_) => ValueType::Array,
        }
    }
}

/// Type and length: `[f32; 32000]`.
impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}; {}]", self.element_type(), self.len())
    }
}

/// Numbers or booleans of one type, as little-endian bytes of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalarArray {
    ty: ValueType,
    bytes: SharedBytes,
}

impl ScalarArray {
    /// The caller has checked that `bytes` is a whole number of valid elements.
    pub(crate) fn from_checked(ty: ValueType, bytes: SharedBytes) -> Self {
        Self { ty, bytes }
    }

    /// Returns the type of the elements, never string or array.
    pub fn element_type(&self) -> ValueType {
        self.ty
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.element_bytes()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns element `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<Value> {
        let start = index.checked_mul(self.element_bytes())?;
        let element = self.bytes.get(start..start.checked_add(self.element_bytes())?)?;
        Value::from_le_bytes(self.ty, element)
    }

    /// Iterates over the elements.
    pub fn iter(&self) -> impl Iterator<Item = Value> {
        self.bytes.chunks_exact(self.element_bytes()).filter_map(|element| Value::from_le_bytes(self.ty, element))
    }

    /// Returns the elements as they lie in the file, little-endian and not necessarily aligned.
    pub fn le_bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    fn element_bytes(&self) -> usize {
        self.ty.scalar_bytes().unwrap_or(1)
    }
}

/// Strings as they lie in the file, with an index of where each one ends.
///
/// The strings are raw bytes: tokens of a vocabulary may be invalid UTF-8. The index takes four bytes per string.
#[derive(Clone)]
pub struct StringArray {
    bytes: SharedBytes,
    /// Bytes of the length field before each string.
    prefix: usize,
    ends: Arc<[u32]>,
}

impl StringArray {
    /// The caller has checked that string `i` lies at `ends[i - 1] + prefix..ends[i]` of `bytes`.
    pub(crate) fn from_checked(bytes: SharedBytes, prefix: usize, ends: Vec<u32>) -> Self {
        Self { bytes, prefix, ends: ends.into() }
    }

    /// Returns the number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the bytes of string `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let before = index.checked_sub(1).and_then(|i| self.ends.get(i)).copied().unwrap_or(0);
        self.bytes.get(before as usize + self.prefix..end as usize)
    }

    /// Iterates over the bytes of the strings.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        let bytes: &[u8] = &self.bytes;
        let mut before = 0;
        self.ends.iter().map(move |&end| {
            let start = std::mem::replace(&mut before, end as usize) + self.prefix;
            bytes.get(start..end as usize).unwrap_or_default()
        })
    }
}

/// # Panics
/// When the strings take more than 4 GiB together.
impl<S: AsRef<[u8]>> FromIterator<S> for StringArray {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for string in strings {
            bytes.extend_from_slice(string.as_ref());
            ends.push(u32::try_from(bytes.len()).expect("a string array of more than 4 GiB was built in memory"));
        }
        Self::from_checked(bytes.into(), 0, ends)
    }
}

impl PartialEq for StringArray {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl fmt::Debug for StringArray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_behind_their_lengths() {
        let file = [&2u32.to_le_bytes()[..], b"ab", &0u32.to_le_bytes(), &1u32.to_le_bytes(), b"\xff"].concat();
        let array = StringArray::from_checked(file.into(), 4, vec![6, 10, 15]);
        assert_eq!(array.iter().collect::<Vec<_>>(), [&b"ab"[..], b"", b"\xff"]);
        assert_eq!(array.get(0), Some(&b"ab"[..]));
        assert_eq!(array.get(1), Some(&b""[..]));
        assert_eq!(array.get(2), Some(&b"\xff"[..]));
        assert_eq!(array.get(3), None);
        assert_eq!(array, [&b"ab"[..], b"", b"\xff"].into_iter().collect(), "the length fields are not part of it");
    }

    #[test]
    fn scalars_are_read_by_index_and_in_order() {
        let Value::Array(Array::Scalars(array)) = Value::from([1i16, -2, 3]) else { panic!("an array of scalars") };
        assert_eq!(array.len(), 3);
        assert_eq!(array.get(1), Some(Value::I16(-2)));
        assert_eq!(array.get(3), None);
        assert_eq!(array.get(usize::MAX), None);
        assert_eq!(array.iter().filter_map(|v| v.as_integer()).collect::<Vec<_>>(), [1, -2, 3]);
    }
}
