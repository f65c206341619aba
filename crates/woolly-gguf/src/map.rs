//! Files in memory: mapped at 2 MiB boundaries so that the kernel can use huge pages, or read into such memory.
//!
//! With `huge`, the only file of this crate with `unsafe`. Huge pages need three things in this order: an address that is a multiple
//! of 2 MiB, `MADV_HUGEPAGE`, and only then the first touch; `MAP_POPULATE` would touch too early, which is why the
//! population is a separate, later step. Where the kernel or the file system cannot do it, everything works the same
//! with small pages. Systems other than Linux get a plain mapping.

#![allow(unsafe_code, reason = "mapping files is the one thing this crate cannot do safely")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Weak;

use memmap2::Mmap;

use crate::bytes::SharedBytes;
#[cfg(target_os = "linux")]
use crate::huge;

/// A file mapped read-only.
#[derive(Debug)]
pub(crate) enum Mapping {
    Plain(Mmap),
    #[cfg(target_os = "linux")]
    Huge(linux::FileRegion),
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Plain(map) => map,
            #[cfg(target_os = "linux")]
            Self::Huge(region) => region.region.as_ref(),
        }
    }
}

impl Mapping {
    /// Gives back the memory of the pages that lie wholly within `range`; their bytes come from the file again when they
    /// are next read. Where the system cannot, nothing happens.
    pub(crate) fn release(&self, range: Range<usize>) {
        match self {
            Self::Plain(_) => {}
            #[cfg(target_os = "linux")]
            Self::Huge(region) => region.release(range),
        }
    }
}

/// Maps the first `length` bytes (more than 0) of `file`; `aligned` asks for huge pages.
pub(crate) fn map_file(file: &File, length: usize, aligned: bool) -> io::Result<Mapping> {
    #[cfg(target_os = "linux")]
    if aligned {
        return linux::FileRegion::map(file, length).map(Mapping::Huge);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = aligned;
    // SAFETY: the map is read-only and private to this crate's `SharedBytes`. That no other process truncates or
    // overwrites the file meanwhile is the documented condition of mapping, see the crate's documentation.
    unsafe { memmap2::MmapOptions::new().len(length).map(file) }.map(Mapping::Plain)
}

/// Reads the first bytes of `file`, enough to recognise what it is.
pub(crate) fn read_start(file: &File, length: usize) -> io::Result<Vec<u8>> {
    const ENOUGH: usize = 4096;
    let mut start = vec![0; length.min(ENOUGH)];
    read_at(file, 0, &mut start)?;
    Ok(start)
}

/// Reads the first `length` bytes (more than 0) of `file` into memory of huge pages where `aligned` asks for it.
pub(crate) fn read_file(file: &File, length: usize, aligned: bool) -> io::Result<SharedBytes> {
    #[cfg(target_os = "linux")]
    if aligned {
        let mut region = linux::Region::anonymous(length)?;
        read_in_two(file, region.as_mut())?;
        return Ok(SharedBytes::from_owner(std::sync::Arc::new(region)));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = aligned;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    bytes.resize(length, 0);
    read_in_two(file, &mut bytes)?;
    Ok(bytes.into())
}

/// Two readers keep a disk or network file system busier than one; more gain little.
fn read_in_two(file: &File, bytes: &mut [u8]) -> io::Result<()> {
    const TOO_SMALL_TO_SHARE: usize = 8 << 20;
    if bytes.len() < TOO_SMALL_TO_SHARE {
        return read_at(file, 0, bytes);
    }
    let middle = (bytes.len() / 2).next_multiple_of(HUGE_PAGE).min(bytes.len());
    let (first, second) = bytes.split_at_mut(middle);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("woolly-read".to_owned())
            .spawn_scoped(scope, || read_ahead_at(file, middle as u64, second))?;
        let result = read_ahead_at(file, 0, first);
        reader.join().map_err(|_| io::Error::other("the second reader died"))?.and(result)
    })
}

/// Asks for each piece while the one before is being copied: the system's own read-ahead is far too short for a disk's
/// full speed.
fn read_ahead_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    const PIECE: usize = 16 << 20;
    let mut at = offset;
    for piece in bytes.chunks_mut(PIECE) {
        let next = at + piece.len() as u64;
        #[cfg(target_os = "linux")]
        linux::read_ahead(file, next, PIECE);
        read_at(file, at, piece)?;
        at = next;
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_read(bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
        }
    }
    Ok(())
}

/// The size and alignment of a huge page.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

/// Populates `mappings` one after the other in file order, `chunk` bytes (more than 0) at a time, on a thread that ends
/// with the last of the mappings. Population is only a help: if it fails, pages come when they are first touched.
/// With `copy`, what is in small pages is copied to huge ones afterwards.
pub(crate) fn populate_in_background(mappings: Vec<Weak<Mapping>>, chunk: usize, copy: bool) {
    let work = move || {
        mappings.iter().for_each(|mapping| populate(mapping, chunk));
        #[cfg(target_os = "linux")]
        if copy {
            huge::copy(&mappings);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = copy;
    };
    if let Err(error) = std::thread::Builder::new().name("woolly-prefetch".to_owned()).spawn(work) {
        tracing::debug!(%error, "no background population");
    }
}

/// Holds the mapping only while one chunk is populated, so that dropping the model is never held up by more.
fn populate(mapping: &Weak<Mapping>, chunk: usize) {
    let mut start = 0usize;
    while let Some(mapping) = mapping.upgrade() {
        let bytes = mapping.as_ref().as_ref();
        let end = bytes.len().min(start.saturating_add(chunk));
        match bytes.get(start..end) {
            Some(bytes) if !bytes.is_empty() => {
                if let Err(error) = populate_chunk(bytes) {
                    tracing::debug!(%error, start, "background population stopped");
                    return;
                }
            }
            _ => return,
        }
        start = end;
    }
}

#[cfg(target_os = "linux")]
use linux::populate_chunk;

/// Touches one byte of each page.
#[cfg(not(target_os = "linux"))]
fn populate_chunk(bytes: &[u8]) -> io::Result<()> {
    const SMALLEST_PAGE: usize = 4096;
    bytes.iter().step_by(SMALLEST_PAGE).for_each(|byte| {
        std::hint::black_box(byte);
    });
    Ok(())
}

#[cfg(target_os = "linux")]
pub(crate) mod linux {
    //! Mappings at addresses of our choice.

    use std::fs::File;
    use std::io;
    use std::ops::Range;
    use std::os::fd::AsRawFd;
    use std::ptr::{self, NonNull};
    use std::sync::Mutex;

    use super::HUGE_PAGE;

    /// Mapped memory that begins at a multiple of [`HUGE_PAGE`] and is unmapped when dropped.
    #[derive(Debug)]
    pub(crate) struct Region {
        start: NonNull<u8>,
        length: usize,
    }

    // SAFETY: a `Region` owns its memory as a `Box<[u8]>` does; shared access only reads, writing takes `&mut`.
    unsafe impl Send for Region {}
    // SAFETY: as above.
    unsafe impl Sync for Region {}

    impl Region {
        /// Makes `length` zero bytes of huge pages.
        pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
            let region = Self::reserve(length)?;
            region.place(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
            region.advise_huge_pages();
            Ok(region)
        }

        /// Takes `length` bytes of address space at a multiple of [`HUGE_PAGE`], inaccessible as yet. The caller must
        /// `place` memory there before it gives the region away.
        fn reserve(length: usize) -> io::Result<Self> {
            let too_large = || io::Error::from(io::ErrorKind::OutOfMemory);
            let needed = mapped_length(length).ok_or_else(too_large)?;
            let reserved = needed.checked_add(HUGE_PAGE).ok_or_else(too_large)?;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            // SAFETY: a new mapping at an address of the kernel's choice touches nobody's memory.
            let base = unsafe { libc::mmap(ptr::null_mut(), reserved, libc::PROT_NONE, flags, -1, 0) };
            let base = checked_address(base)?;
            let before = base.align_offset(HUGE_PAGE);
            // SAFETY: `before` is less than HUGE_PAGE, so before, needed and the rest after them all lie within the
            // `reserved` bytes just mapped, which nobody else knows of.
            unsafe {
                unmap(base, before);
                unmap(base.add(before + needed), HUGE_PAGE - before);
                Ok(Self { start: base.add(before), length })
            }
        }

        /// Replaces the reserved address space by memory of the given kind.
        fn place(&self, protection: i32, flags: i32, fd: i32) -> io::Result<()> {
            let at = self.start.as_ptr().cast();
            // SAFETY: MAP_FIXED replaces exactly the pages that `reserve` set aside for this region and that nobody
            // refers to yet.
            let placed = unsafe { libc::mmap(at, self.length, protection, flags | libc::MAP_FIXED, fd, 0) };
            checked_address(placed).map(|_| ())
        }

        fn advise_huge_pages(&self) {
            // SAFETY: the range is this region's own; the advice changes no contents.
            let result = unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) };
            if result != 0 {
                tracing::debug!(error = %io::Error::last_os_error(), "no huge pages");
            }
        }
    }

    /// A file mapped read-only, of which parts may have become copies.
    #[derive(Debug)]
    pub(crate) struct FileRegion {
        pub(super) region: Region,
        file: File,
        copies: Mutex<Copies>,
    }

    /// Which of the huge pages that a region has room for are copies of the file.
    #[derive(Debug, Default)]
    struct Copies {
        made: Vec<bool>,
        /// Pages have been given back: whoever does so has no use for copies of them.
        refused: bool,
    }

    impl FileRegion {
        /// Maps the first `length` bytes of `file`, with huge pages where the file system has them.
        pub(super) fn map(file: &File, length: usize) -> io::Result<Self> {
            let region = Region::reserve(length)?;
            region.place(libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd())?;
            region.advise_huge_pages();
            Ok(Self { region, file: file.try_clone()?, copies: Mutex::default() })
        }

        /// Drops the pages within `range`; copies are kept.
        pub(super) fn release(&self, range: Range<usize>) {
            let Some(start) = range.start.checked_next_multiple_of(page_size()) else { return };
            let end = range.end.min(self.region.length) / page_size() * page_size();
            let Ok(mut copies) = self.copies.lock() else { return };
            copies.refused = true;
            let mut at = start;
            while at < end {
                let next = end.min((at / HUGE_PAGE + 1) * HUGE_PAGE);
                if !copies.made.get(at / HUGE_PAGE).is_some_and(|made| *made) {
                    self.drop_pages(at..next);
                }
                at = next;
            }
        }

        /// Drops whole pages that are the file's.
        fn drop_pages(&self, range: Range<usize>) {
            // SAFETY: the range is of whole pages within the region. They are the file's, mapped shared and read-only, so that a
            // page dropped is the file's when it is next touched: no byte changes under those who borrow it.
            let result = unsafe {
                libc::madvise(self.region.start.as_ptr().add(range.start).cast(), range.len(), libc::MADV_DONTNEED)
            };
            if result != 0 {
                tracing::debug!(error = %io::Error::last_os_error(), "pages are kept");
            }
        }

        /// Puts what `make` makes of the file in the place of huge page `unit`, unless pages have been given back.
        ///
        /// `make` is told where the page is in memory and in the file, and returns whether it replaced it by one with the same bytes.
        pub(crate) fn replace(&self, unit: usize, make: impl FnOnce(*mut u8, &File, u64) -> bool) -> bool {
            let Ok(mut copies) = self.copies.lock() else { return false };
            let (at, units) = (unit * HUGE_PAGE, self.units());
            if copies.refused || unit >= units {
                return false;
            }
            copies.made.resize(units, false);
            // SAFETY: the page lies within the region.
            let place = unsafe { self.region.start.as_ptr().add(at) };
            if make(place, &self.file, at as u64) {
                copies.made[unit] = true;
            } else if !copies.made[unit] {
                self.restore(at);
            }
            copies.made[unit]
        }

        /// Maps a huge page of the file anew: when moving another there failed for want of memory, the system may have unmapped it.
        fn restore(&self, at: usize) {
            let (fd, flags) = (self.file.as_raw_fd(), libc::MAP_SHARED | libc::MAP_FIXED);
            // SAFETY: the page is the region's own, and what is mapped there, if anything, are the same bytes of the file.
            let placed = unsafe {
                let place = self.region.start.as_ptr().add(at).cast();
                libc::mmap(place, HUGE_PAGE, libc::PROT_READ, flags, fd, at as libc::off_t)
            };
            if placed == libc::MAP_FAILED {
                tracing::warn!(error = %io::Error::last_os_error(), at, "a part of the file may have become unmapped");
            }
        }

        /// Returns where huge page `unit` of [`units`](Self::units) begins.
        pub(crate) fn page(&self, unit: usize) -> *const u8 {
            self.region.as_ref()[unit * HUGE_PAGE..].as_ptr()
        }

        /// Returns how many whole huge pages there are.
        pub(crate) fn units(&self) -> usize {
            self.region.length / HUGE_PAGE
        }
    }

    impl AsRef<[u8]> for Region {
        fn as_ref(&self) -> &[u8] {
            // SAFETY: `length` bytes from `start` are mapped and readable until the region is dropped, and are written
            // only through `&mut self` (for files: unless another process writes, see the crate's documentation).
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
        }
    }

    impl Region {
        /// The contents of an anonymous region.
        pub(crate) fn as_mut(&mut self) -> &mut [u8] {
            // SAFETY: called on anonymous regions only, which are mapped writable; `&mut self` excludes other access.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
        }
    }

    impl Region {
        /// Moves an anonymous region of whole huge pages, read-only from then on, to where something else is mapped; returns whether it
        /// did.
        ///
        /// # Safety
        /// As many bytes at `at`, a multiple of [`HUGE_PAGE`], are a mapping that the caller may replace. Those who borrow it see no change
        /// if the bytes are the same: the kernel replaces it under the lock that page faults wait for.
        pub(crate) unsafe fn move_to(self, at: *mut u8) -> bool {
            let from = self.start.as_ptr().cast();
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            // SAFETY: the memory is this region's own and not borrowed; what is replaced is the caller's promise.
            let moved = unsafe {
                libc::mprotect(from, self.length, libc::PROT_READ) == 0
                    && libc::mremap(from, self.length, self.length, flags, at.cast::<libc::c_void>())
                        != libc::MAP_FAILED
            };
            if moved {
                // Nothing is left to unmap here; another thread may have mapped something there by now.
                std::mem::forget(self);
            }
            moved
        }
    }

    impl Drop for Region {
        fn drop(&mut self) {
            // SAFETY: nothing borrows from the region any more, and it is the only owner of these pages.
            unsafe { unmap(self.start, mapped_length(self.length).unwrap_or(self.length)) };
        }
    }

    /// Bytes populated in one call. The system changes a process's address space in no other way meanwhile: threads that
    /// start and large allocations wait. Half a gigabyte at once made loading take as long as populating.
    const AT_ONCE: usize = 512 << 10;

    /// Populates page tables from the page cache or the disk; the range must begin at a page boundary.
    pub(super) fn populate_chunk(bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(AT_ONCE).try_for_each(populate_piece)
    }

    fn populate_piece(bytes: &[u8]) -> io::Result<()> {
        let advise = |advice| {
            // SAFETY: the range is borrowed, so it stays mapped during the call; the advice only reads.
            match unsafe { libc::madvise(bytes.as_ptr().cast_mut().cast(), bytes.len(), advice) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        match advise(libc::MADV_POPULATE_READ) {
            // Kernels before 5.14 do not know it; they can at least read ahead.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => advise(libc::MADV_WILLNEED),
            result => result,
        }
    }

    /// Starts reading a range into the page cache; a range beyond the end of the file is no error.
    pub(super) fn read_ahead(file: &File, offset: u64, length: usize) {
        let Ok(offset) = libc::off_t::try_from(offset) else { return };
        // SAFETY: the descriptor is open while `file` is borrowed; advice changes nothing but timing, so neither does
        // its failure.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, length as libc::off_t, libc::POSIX_FADV_WILLNEED) };
    }

    /// `length` rounded up to whole pages.
    fn mapped_length(length: usize) -> Option<usize> {
        length.checked_next_multiple_of(page_size())
    }

    fn page_size() -> usize {
        // SAFETY: the call only reads a constant of the system.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).ok().filter(|&page| page > 0).unwrap_or(HUGE_PAGE)
    }

    fn checked_address(address: *mut libc::c_void) -> io::Result<NonNull<u8>> {
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    /// # Safety
    /// The `length` bytes (0 or whole pages) at `start` are mapped, owned by the caller and not used afterwards.
    unsafe fn unmap(start: NonNull<u8>, length: usize) {
        if length > 0 {
            // SAFETY: the caller's promise.
            unsafe { libc::munmap(start.as_ptr().cast(), length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn every_way_gives_the_same_bytes() {
        for length in [1, 4095, 4096, 4097, HUGE_PAGE, 9 << 20, (9 << 20) + 5] {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let file = file_of(&bytes);
            for aligned in [false, true] {
                let mapping = map_file(&file, length, aligned).expect("mapped");
                assert!(mapping.as_ref() == bytes, "mapped, {length} bytes, aligned {aligned}");
                let read = read_file(&file, length, aligned).expect("read");
                assert!(read[..] == bytes[..], "read, {length} bytes, aligned {aligned}");
                if aligned && cfg!(target_os = "linux") {
                    assert_eq!(mapping.as_ref().as_ptr().align_offset(HUGE_PAGE), 0);
                    assert_eq!(read.as_ptr().align_offset(HUGE_PAGE), 0);
                }
            }
        }
    }

    #[test]
    fn released_pages_read_as_before() {
        let bytes: Vec<u8> = (0..(3 << 20) + 7).map(|i| (i % 251) as u8).collect();
        let file = file_of(&bytes);
        let mapping = map_file(&file, bytes.len(), true).expect("mapped");
        for range in [0..bytes.len(), 1..2, 5000..9000, 0..0, (3 << 20)..usize::MAX, usize::MAX..usize::MAX] {
            assert!(mapping.as_ref() == bytes);
            mapping.release(range.clone());
            assert!(mapping.as_ref() == bytes, "{range:?}");
        }
    }

    #[test]
    fn a_file_shorter_than_announced_is_an_error_when_read() {
        let file = file_of(b"short");
        assert!(read_file(&file, 6, true).is_err());
        assert!(read_file(&file, 6, false).is_err());
    }

    #[test]
    fn population_visits_every_chunk_and_ends_with_the_mapping() {
        let file = file_of(&vec![7; 3 << 20]);
        let mapping = Arc::new(map_file(&file, 3 << 20, true).expect("mapped"));
        populate(&Arc::downgrade(&mapping), 1 << 20);
        let gone = Arc::downgrade(&mapping);
        drop(mapping);
        populate(&gone, 1 << 20);
        assert!(gone.upgrade().is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_chunk_is_really_populated() {
        let length = 8 << 20;
        let file = file_of(&vec![7; length]);
        for aligned in [false, true] {
            let mapping = map_file(&file, length, aligned).expect("mapped");
            let before = resident_kib(mapping.as_ref());
            populate_chunk(mapping.as_ref()).expect("populated");
            let after = resident_kib(mapping.as_ref());
            assert_eq!((before, after), (0, length / 1024), "aligned {aligned}");
        }
    }

    /// How much of the mapping that begins with `bytes` is present in memory.
    #[cfg(target_os = "linux")]
    fn resident_kib(bytes: &[u8]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
        let start = format!("{:x}-", bytes.as_ptr().addr());
        let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
        let resident = lines.find_map(|line| line.strip_prefix("Rss:")).expect("the mapping's entry");
        resident.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}
