//! Copies in huge pages of what the page cache holds in small ones.
//!
//! A file that was written or read in small pieces lies in small pages, which the kernel maps one by one, whatever is advised. On some
//! processors that costs a fifth of the speed at which weights are read (docs/performance.md). So a thread reads such parts into anonymous
//! huge pages and moves these to the place of the mapping: addresses and bytes stay the same, and whoever reads meanwhile waits
//! for the kernel's lock at most. Linux only, and since 6.7, which can tell where huge pages are.

#![allow(unsafe_code, reason = "asking the kernel about pages and moving them")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Weak;
use std::thread::sleep;
use std::time::Duration;

use crate::map::linux::Region;
use crate::map::{HUGE_PAGE, Mapping};

/// Whoever wants no more than a few tokens is not disturbed.
const DELAY: Duration = Duration::from_millis(500);

/// One part in so many of the memory available is taken for copies at most.
const SHARE: usize = 4;

/// Copies at most: each takes up to two of the 65,530 mappings that a process may have.
const MOST: usize = 16 << 10;

/// Copies what lies in small pages of the mappings, as far as memory goes; ends with the mappings.
pub(crate) fn copy(mappings: &[Weak<Mapping>]) {
    let worth = |mapping: &Weak<Mapping>| matches!(mapping.upgrade().as_deref(), Some(Mapping::Huge(region)) if region.units() > 0);
    if !mappings.iter().any(worth) {
        return;
    }
    const STEPS: u32 = 10;
    for _ in 0..STEPS {
        sleep(DELAY / STEPS);
        if !mappings.iter().any(worth) {
            return;
        }
    }
    let Some(pages) = PageMap::open() else { return };
    let mut left = MOST.min(available() / SHARE / HUGE_PAGE);
    let made: usize = mappings.iter().map(|mapping| copy_mapping(mapping, &pages, &mut left)).sum();
    tracing::debug!(mebibytes = made * (HUGE_PAGE >> 20), "copied to huge pages");
}

/// Copies up to `left` pages and returns how many it has copied. Holds the mapping for a page at a time only.
fn copy_mapping(mapping: &Weak<Mapping>, pages: &PageMap, left: &mut usize) -> usize {
    let (mut unit, mut made) = (0, 0);
    while let Some(mapping) = mapping.upgrade() {
        let Mapping::Huge(region) = &*mapping else { break };
        if unit >= region.units() || *left == 0 {
            break;
        }
        if pages.is_huge(region.page(unit)) == Some(false) {
            // SAFETY: `FileRegion::replace` says where the mapping of which bytes is, and that it may be replaced.
            if !region.replace(unit, |at, file, offset| unsafe { replace(at, file, offset, pages) }) {
                break;
            }
            made += 1;
            *left -= 1;
        }
        unit += 1;
    }
    made
}

/// Replaces one huge page's worth of a file's mapping by a copy in a huge page; returns whether it did.
///
/// # Safety
/// At `at` there is a mapping of the bytes of `file` from `offset` on, which whoever calls this may replace.
unsafe fn replace(at: *mut u8, file: &File, offset: u64, pages: &PageMap) -> bool {
    let Ok(mut copy) = Region::anonymous(HUGE_PAGE) else { return false };
    // Reading, and no copying of what is mapped: a file that became shorter gives an error instead of a signal.
    if file.read_exact_at(copy.as_mut(), offset).is_err() || pages.is_huge(copy.as_ref().as_ptr()) != Some(true) {
        return false;
    }
    // SAFETY: the caller's promise; the bytes are the same.
    unsafe { copy.move_to(at) }
}

/// Tells which memory of this process is in huge pages (`PAGEMAP_SCAN`, Linux 6.7).
struct PageMap(File);

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    regions_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

impl PageMap {
    fn open() -> Option<Self> {
        File::open("/proc/self/pagemap").ok().map(Self)
    }

    /// Returns whether the memory at `at`, a multiple of [`HUGE_PAGE`], is one huge page, or `None` where the system cannot tell.
    fn is_huge(&self, at: *const u8) -> Option<bool> {
        const PAGEMAP_SCAN: libc::c_ulong = 0xc060_6610;
        const PAGE_IS_HUGE: u64 = 1 << 6;
        let start = at.addr() as u64;
        // Start, end and categories of a region found.
        let mut region = [0_u64; 3];
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            start,
            end: start + HUGE_PAGE as u64,
            regions: region.as_mut_ptr().addr() as u64,
            regions_len: 1,
            category_mask: PAGE_IS_HUGE,
            return_mask: PAGE_IS_HUGE,
            ..Scan::default()
        };
        // SAFETY: the kernel reads and writes the structure, whose size it is told, and writes at most one region.
        let found = unsafe { libc::ioctl(self.0.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan) };
        match found {
            ..0 => None,
            found => Some(found == 1 && region[..2] == [start, start + HUGE_PAGE as u64]),
        }
    }
}

/// Returns the bytes that can be taken without others going short: of the machine, and of this process's control group.
fn available() -> usize {
    let of_machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().trim_end_matches(" kB").parse::<usize>().ok()?.checked_mul(1024)
    });
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let of_group = read("memory.max").and_then(|most| {
        // `max`, which is no number, is no limit.
        let most = most.trim().parse::<usize>().ok()?;
        Some(most.saturating_sub(read("memory.current")?.trim().parse().ok()?))
    });
    of_machine.unwrap_or(0).min(of_group.unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::map::map_file;

    fn in_small_pages(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        bytes.chunks(4096).for_each(|page| file.write_all(page).expect("written"));
        file
    }

    /// Returns what tells about pages, or says why `test` is skipped.
    fn page_map(test: &str, at: *const u8) -> Option<PageMap> {
        let pages = PageMap::open().filter(|pages| pages.is_huge(at).is_some());
        if pages.is_none() {
            eprintln!("skipped: {test}: this system does not tell where huge pages are");
        }
        pages
    }

    #[test]
    fn copies_take_the_place_of_small_pages_while_others_read() {
        let bytes: Vec<u8> = (0..5 * HUGE_PAGE + 12345).map(|i| (i % 251) as u8).collect();
        let file = in_small_pages(&bytes);
        let mapping = Arc::new(map_file(&file, bytes.len(), true).expect("mapped"));
        let whole: &[u8] = (*mapping).as_ref();
        assert!(whole == bytes);
        let name = "copies_take_the_place_of_small_pages_while_others_read";
        let Some(pages) = page_map(name, whole.as_ptr()) else { return };
        let huge = || whole.chunks_exact(HUGE_PAGE).filter(|unit| pages.is_huge(unit.as_ptr()) == Some(true)).count();
        let before = huge();
        let done = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(whole == bytes, "bytes changed while pages moved");
                }
            });
            let mut left = 3;
            let first = copy_mapping(&Arc::downgrade(&mapping), &pages, &mut left);
            assert_eq!(first + left, 3, "more than was allowed");
            let made = first + copy_mapping(&Arc::downgrade(&mapping), &pages, &mut 9);
            done.store(true, Ordering::Relaxed);
            reader.join().expect("the same bytes");
            made
        });
        if made == 0 && before < whole.len() / HUGE_PAGE {
            eprintln!("skipped in part: {name}: the system has no huge page to spare, so that nothing was copied");
        }
        assert_eq!(huge(), before + made);
        assert!(whole == bytes);
        // Giving pages back leaves copies alone, and ends copying.
        mapping.release(0..bytes.len());
        assert!(whole == bytes);
        assert_eq!(huge().min(made), made);
        assert_eq!(copy_mapping(&Arc::downgrade(&mapping), &pages, &mut 9), 0);
    }

    #[test]
    fn a_file_that_became_shorter_is_not_copied() {
        let bytes = vec![7; 2 * HUGE_PAGE];
        let file = in_small_pages(&bytes);
        let mapping = Arc::new(map_file(&file, bytes.len(), true).expect("mapped"));
        let at = AsRef::<[u8]>::as_ref(&*mapping).as_ptr();
        let Some(pages) = page_map("a_file_that_became_shorter_is_not_copied", at) else { return };
        file.set_len(4096).expect("shortened");
        assert_eq!(copy_mapping(&Arc::downgrade(&mapping), &pages, &mut 9), 0);
        assert_eq!(pages.is_huge(at), Some(false));
    }

    #[test]
    fn a_page_lost_in_moving_is_mapped_again() {
        let bytes: Vec<u8> = (0..2 * HUGE_PAGE).map(|i| (i % 251) as u8).collect();
        let file = in_small_pages(&bytes);
        let mapping = map_file(&file, bytes.len(), true).expect("mapped");
        let Mapping::Huge(region) = &mapping else { panic!("a mapping at a multiple of 2 MiB") };
        let lose = |at: *mut u8, _: &File, _: u64| {
            // SAFETY: nobody reads these bytes before `replace` has mapped them again.
            unsafe { libc::munmap(at.cast(), HUGE_PAGE) };
            false
        };
        assert!(!region.replace(1, lose));
        assert!(mapping.as_ref() == bytes);
    }
}
