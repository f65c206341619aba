//! Reference-counted byte ranges: how tensors and strings point into a mapping without copying it.
//!
//! Deliberately read-only, and deliberately ignorant of what the bytes mean.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A range of bytes that keeps its owner (a mapping, a `Vec` or a static slice) alive.
///
/// Cloning and slicing copy no bytes. Dereferences to `[u8]`.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl SharedBytes {
    /// Takes over `bytes` without copying them.
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        Self::from_owner(Arc::new(bytes))
    }

    /// Refers to bytes that live as long as the program.
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self::from_owner(Arc::new(bytes))
    }

    /// Refers to all bytes of `owner`, which must return the same slice at every call; if it later returns a shorter
    /// one, ranges that no longer fit read as empty.
    pub fn from_owner(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        let range = 0..owner.as_ref().as_ref().len();
        Self { owner, range }
    }

    /// Returns the sub-range `range`, counted from the start of these bytes, or `None` if it does not lie within them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        let start = self.range.start.checked_add(range.start)?;
        let end = self.range.start.checked_add(range.end)?;
        let inside = start <= end && end <= self.range.end;
        inside.then(|| Self { owner: Arc::clone(&self.owner), range: start..end })
    }

    /// Returns the owner of the bytes: `owner.as_ref()[range]` are these bytes.
    pub fn owner(&self) -> Arc<dyn AsRef<[u8]> + Send + Sync> {
        Arc::clone(&self.owner)
    }

    /// Returns where in the owner these bytes lie.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.owner.as_ref().as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for SharedBytes {
    fn default() -> Self {
        Self::from_static(&[])
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_vec(bytes)
    }
}

impl From<&'static [u8]> for SharedBytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self::from_static(bytes)
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

/// Shows where the bytes lie, not what they are: a tensor's bytes would fill the screen.
impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBytes({:?})", self.range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_refers_to_the_same_owner() {
        let whole = SharedBytes::from_vec(vec![1, 2, 3, 4, 5]);
        let middle = whole.slice(1..4).expect("inside");
        assert_eq!(&middle[..], [2, 3, 4]);
        let last = middle.slice(2..3).expect("inside");
        assert_eq!(&last[..], [4]);
        assert_eq!(last.owner().as_ref().as_ref()[last.range()], last[..]);
        assert!(Arc::ptr_eq(&whole.owner(), &last.owner()));
    }

    #[test]
    #[expect(clippy::reversed_empty_ranges, reason = "a reversed range is one of the refused cases")]
    fn a_slice_never_leaves_its_range() {
        let middle = SharedBytes::from_static(b"abcdef").slice(2..4).expect("inside");
        for outside in [0..3, 3..3, 2..1, usize::MAX..usize::MAX, 0..usize::MAX] {
            assert_eq!(middle.slice(outside.clone()), None, "{outside:?}");
        }
        assert_eq!(middle.slice(2..2).as_deref(), Some(&[][..]));
    }
}
