//! Memory reserved as address space: a page takes room when it is first written, and can be given back.
//!
//! On systems other than Unix it is ordinary memory, all of it taken at once and kept.

use std::ops::Range;
use std::slice;

/// Zeroed memory of fixed length that starts on a page.
pub(crate) struct Pages(imp::Memory);

impl Pages {
    /// Reserves `len` bytes of zeros, or returns `None` when the system has no such room.
    pub(crate) fn reserve(len: usize) -> Option<Self> {
        imp::Memory::reserve(len).map(Self)
    }

    /// Returns the bytes of a page, the unit in which memory is taken and given back.
    pub(crate) fn page_size() -> usize {
        imp::page_size()
    }

    /// Returns the bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (start, len) = self.0.parts();
        // SAFETY: `len` bytes from `start` on are initialised and ours.
        unsafe { slice::from_raw_parts(start, len) }
    }

    /// Returns the bytes for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = self.0.parts();
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(start, len) }
    }

    /// Asks for huge pages where `range`, which begins at a page, is first written: advice, which may be ignored, and is
    /// given on Linux only. Memory is then taken in steps of up to a huge page.
    pub(crate) fn prefer_huge(&mut self, range: Range<usize>) {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let memory = &mut self.bytes_mut()[range];
            // SAFETY: memory that is borrowed exclusively; the advice changes no contents, and a refusal changes nothing.
            unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), libc::MADV_HUGEPAGE) };
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        let _ = range;
    }

    /// Gives back the pages that lie wholly in `range` of the bytes; their contents are unspecified afterwards.
    pub(crate) fn release(&mut self, range: Range<usize>) {
        let (page, len) = (imp::page_size(), self.0.parts().1);
        let (start, end) = (range.start.next_multiple_of(page), range.end.min(len) / page * page);
        if start < end {
            self.0.release(start..end);
        }
    }
}

#[cfg(all(unix, not(miri)))]
mod imp {
    use std::ops::Range;
    use std::ptr::{self, NonNull};

    /// An anonymous private mapping.
    pub(super) struct Memory {
        start: NonNull<u8>,
        len: usize,
    }

    // SAFETY: the mapping is owned like a vector of bytes.
    unsafe impl Send for Memory {}
    // SAFETY: shared access only reads.
    unsafe impl Sync for Memory {}

    impl Memory {
        pub(super) fn reserve(len: usize) -> Option<Self> {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
            // SAFETY: a new mapping at an address of the system's choice touches nothing that exists.
            let start =
                unsafe { libc::mmap(ptr::null_mut(), len.max(1), protection, flags | libc::MAP_NORESERVE, -1, 0) };
            if start == libc::MAP_FAILED {
                return None;
            }
            Some(Self { start: NonNull::new(start.cast())?, len })
        }

        pub(super) fn parts(&self) -> (*mut u8, usize) {
            (self.start.as_ptr(), self.len)
        }

        pub(super) fn release(&mut self, pages: Range<usize>) {
            // Elsewhere the other advice may leave the pages in place.
            let advice = if cfg!(target_os = "linux") { libc::MADV_DONTNEED } else { libc::MADV_FREE };
            // SAFETY: whole pages of this mapping, exclusively borrowed. A refusal leaves them as they are.
            unsafe { libc::madvise(self.start.as_ptr().add(pages.start).cast(), pages.len(), advice) };
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: the mapping was made in `reserve` with this length and is removed only here.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.len.max(1)) };
        }
    }

    pub(super) fn page_size() -> usize {
        // SAFETY: asks for a constant of the system.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).ok().filter(|size| size.is_power_of_two()).unwrap_or(4096)
    }
}

#[cfg(any(not(unix), miri))]
mod imp {
    use std::ops::Range;

    use crate::buffer::AlignedVec;

    pub(super) struct Memory(AlignedVec<[u8; 64]>, usize);

    impl Memory {
        pub(super) fn reserve(len: usize) -> Option<Self> {
            AlignedVec::try_zeroed(len.div_ceil(64)).map(|memory| Self(memory, len))
        }

        pub(super) fn parts(&self) -> (*mut u8, usize) {
            (self.0.as_ptr().cast_mut().cast(), self.1)
        }

        pub(super) fn release(&mut self, _: Range<usize>) {}
    }

    pub(super) fn page_size() -> usize {
        4096
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_aligned_and_writable() {
        let mut pages = Pages::reserve(10_003).unwrap();
        assert!(pages.bytes().len() == 10_003 && pages.bytes().iter().all(|&b| b == 0));
        assert!(pages.bytes().as_ptr().addr().is_multiple_of(64));
        pages.bytes_mut()[10_002] = 1;
        assert_eq!(pages.bytes()[10_001..], [0, 1]);
        assert!(Pages::reserve(0).unwrap().bytes().is_empty());
        assert!(Pages::reserve(usize::MAX / 2).is_none(), "no machine has that much address space");
    }

    /// Pages of `memory` that take room.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn resident(memory: &Pages) -> usize {
        let bytes = memory.bytes();
        let mut pages = vec![0_u8; bytes.len().div_ceil(Pages::page_size())];
        // SAFETY: the mapping is ours, and there is a byte for each of its pages.
        let status = unsafe { libc::mincore(bytes.as_ptr().cast_mut().cast(), bytes.len(), pages.as_mut_ptr()) };
        assert_eq!(status, 0);
        pages.iter().filter(|&&page| page & 1 == 1).count()
    }

    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn only_written_pages_take_room_and_whole_ones_are_given_back() {
        let page = Pages::page_size();
        let mut memory = Pages::reserve(1 << 40).expect("a terabyte of address space is not memory");
        drop(memory);
        memory = Pages::reserve(16 * page).unwrap();
        assert_eq!(resident(&memory), 0);
        memory.bytes_mut()[2 * page..6 * page].fill(1);
        assert_eq!(resident(&memory), 4);
        memory.release(2 * page + 1..5 * page + 1);
        assert_eq!(resident(&memory), 2, "pages 3 and 4 lie wholly inside, 2 and 5 do not");
        assert_eq!([2, 5].map(|i| memory.bytes()[i * page]), [1, 1]);
        memory.bytes_mut()[3 * page] = 7;
        assert_eq!(resident(&memory), 3, "a page given back can be written again");
    }
}
