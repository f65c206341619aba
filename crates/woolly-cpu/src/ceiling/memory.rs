//! Fresh memory in huge pages.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};

use crate::pages::Pages;

/// The size of a huge page.
const HUGE: usize = 2 << 20;

/// Zeroed memory that the system is asked to give in huge pages, before they are first touched.
///
/// A model of random weights in it is read like one in a file that was mapped with huge pages.
pub struct HugeMemory {
    pages: Pages,
    /// What is used of them: it begins at a huge page.
    used: Range<usize>,
}

impl HugeMemory {
    /// Reserves `bytes` zeros, or returns `None` when the system refuses.
    pub fn zeroed(bytes: usize) -> Option<Self> {
        let whole = bytes.checked_next_multiple_of(HUGE)?;
        let mut pages = Pages::reserve(whole.checked_add(HUGE)?)?;
        let address = pages.bytes().as_ptr().addr();
        let start = address.next_multiple_of(HUGE) - address;
        pages.prefer_huge(start..start + whole);
        Some(Self { pages, used: start..start + bytes })
    }
}

impl Deref for HugeMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages.bytes()[self.used.clone()]
    }
}

impl DerefMut for HugeMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages.bytes_mut()[self.used.clone()]
    }
}

impl AsRef<[u8]> for HugeMemory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for HugeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HugeMemory").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_writable() {
        for bytes in [0, 1, 4096, (2 << 20) + 1] {
            let mut memory = HugeMemory::zeroed(bytes).unwrap();
            assert_eq!(memory.len(), bytes);
            assert!(memory.iter().all(|&byte| byte == 0));
            assert!(bytes == 0 || memory.as_ptr().addr().is_multiple_of(64));
            memory.fill(7);
            assert_eq!(memory.iter().map(|&byte| usize::from(byte)).sum::<usize>(), 7 * bytes);
        }
    }

    #[test]
    fn what_no_machine_has_is_refused() {
        assert!(HugeMemory::zeroed(usize::MAX).is_none());
    }
}
