//! Memory that kernels read and write: aligned vectors, and outputs shared by several threads.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU32, Ordering};

/// Alignment of every [`AlignedVec`]: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;

/// A type whose values may be made of zero bytes.
///
/// # Safety
/// All-zero bytes are a valid value, and the type needs no drop.
pub unsafe trait Zeroed: Copy {}

macro_rules! zeroed {
    ($($ty:ty),+) => { $(
        // SAFETY: zero is a value of every primitive number.
        unsafe impl Zeroed for $ty {}
    )+ };
}

zeroed!(u8, i8, u16, i16, u32, i32, f32, f64, u64, i64, usize);

// SAFETY: an array of zero-byte-valid values is one itself.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}

/// A zeroed vector of fixed length that starts on a cache line.
///
/// Large ones cost nothing until they are touched: the allocator hands out fresh zero pages.
pub struct AlignedVec<T: Zeroed> {
    start: NonNull<T>,
    len: usize,
}

impl<T: Zeroed> AlignedVec<T> {
    /// Allocates `len` zeros; aborts the process when the memory is refused, as `Vec` does.
    ///
    /// # Panics
    /// When the size in bytes overflows.
    pub fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len).expect("a buffer's size fits the address space");
        Self::allocate(len, layout).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// Allocates `len` zeros, or returns `None` when the size overflows or the memory is refused.
    pub fn try_zeroed(len: usize) -> Option<Self> {
        Self::allocate(len, Self::layout(len)?)
    }

    fn allocate(len: usize, layout: Layout) -> Option<Self> {
        if layout.size() == 0 {
            return Some(Self { start: NonNull::dangling(), len });
        }
        // SAFETY: the layout's size is not zero.
        let start = unsafe { if huge(layout) { alloc_zeroed_huge(layout) } else { alloc_zeroed(layout) } };
        Some(Self { start: NonNull::new(start.cast())?, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        let layout = Layout::array::<T>(len).and_then(|layout| layout.align_to(ALIGNMENT)).ok()?;
        if layout.size() < HUGE { Some(layout) } else { layout.align_to(HUGE).ok() }
    }
}

/// Bytes of a large page. Vectors of at least one are put on such pages where the system has them: walking through
/// activations and caches row by row touches a page for every line, and looking pages up costs more than reading lines.
const HUGE: usize = 2 << 20;

fn huge(layout: Layout) -> bool {
    cfg!(all(target_os = "linux", not(miri))) && layout.align() >= HUGE
}

/// Allocates zeros on large pages, if the system agrees, in whole ones: neighbours on a shared page would be no gain.
///
/// # Safety
/// The layout's size is not zero.
#[cfg(all(target_os = "linux", not(miri)))]
unsafe fn alloc_zeroed_huge(layout: Layout) -> *mut u8 {
    // SAFETY: fresh anonymous memory, and advice about what lies inside of it. The mapping is one page longer than needed,
    // so that an aligned part of it is long enough; the rest goes back.
    unsafe {
        let size = layout.size().next_multiple_of(HUGE);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let Some(total) = size.checked_add(HUGE) else { return std::ptr::null_mut() };
        let start = libc::mmap(std::ptr::null_mut(), total, protection, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return std::ptr::null_mut();
        }
        let before = start.addr().next_multiple_of(HUGE) - start.addr();
        let aligned = start.byte_add(before);
        if before > 0 {
            libc::munmap(start, before);
        }
        libc::munmap(aligned.byte_add(size), HUGE - before);
        // Refused where large pages are not built in: then ordinary ones do.
        libc::madvise(aligned, size, libc::MADV_HUGEPAGE);
        aligned.cast()
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
unsafe fn alloc_zeroed_huge(layout: Layout) -> *mut u8 {
    // SAFETY: passed on from the caller.
    unsafe { alloc_zeroed(layout) }
}

/// Frees what [`AlignedVec`] allocated.
///
/// # Safety
/// `start` was allocated with this layout, and nobody uses it.
unsafe fn free(start: *mut u8, layout: Layout) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if huge(layout) {
        // SAFETY: passed on from the caller; the mapping has this size.
        unsafe { libc::munmap(start.cast(), layout.size().next_multiple_of(HUGE)) };
        return;
    }
    // SAFETY: passed on from the caller.
    unsafe { dealloc(start, layout) }
}

impl<T: Zeroed> Default for AlignedVec<T> {
    fn default() -> Self {
        Self { start: NonNull::dangling(), len: 0 }
    }
}

impl<T: Zeroed> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `start` heads `len` values, all initialised (to zero) and owned by `self`; dangling only for no bytes.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Zeroed> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len).filter(|layout| layout.size() > 0) {
            // SAFETY: allocated in `zeroed` with the same layout, and freed only here.
            unsafe { free(self.start.as_ptr().cast(), layout) }
        }
    }
}

// SAFETY: the vector owns its values and has no interior mutability, like a `Vec`.
unsafe impl<T: Zeroed + Send> Send for AlignedVec<T> {}
// SAFETY: as above.
unsafe impl<T: Zeroed + Sync> Sync for AlignedVec<T> {}

impl<T: Zeroed> fmt::Debug for AlignedVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedVec").field("len", &self.len).finish_non_exhaustive()
    }
}

/// An exclusive `&mut [f32]` that several threads fill together, each with its own part.
#[derive(Clone, Copy, Debug)]
pub struct SharedOut<'a> {
    cells: &'a [AtomicU32],
    exclusive: PhantomData<&'a mut [f32]>,
}

impl<'a> SharedOut<'a> {
    /// Shares `out` for as long as the threads need it.
    pub fn new(out: &'a mut [f32]) -> Self {
        let (start, len) = (out.as_mut_ptr(), out.len());
        // SAFETY: `AtomicU32` has the size and alignment of `f32`, every bit pattern is valid for both, and the exclusive
        // borrow lasts for `'a`, so that all access goes through these cells or the contract of `slice_mut`.
        let cells = unsafe { slice::from_raw_parts(start.cast::<AtomicU32>(), len) };
        Self { cells, exclusive: PhantomData }
    }

    /// Returns the number of elements.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Returns the address of the first element, to prefetch from.
    pub fn as_ptr(&self) -> *const f32 {
        self.cells.as_ptr().cast()
    }

    /// Writes one element with a plain store (a relaxed atomic one: threads that collide leave either value).
    ///
    /// # Panics
    /// When `index` is outside.
    #[inline(always)]
    pub fn set(&self, index: usize, value: f32) {
        self.cells[index].store(value.to_bits(), Ordering::Relaxed);
    }

    /// Lends a part for writing with vector stores.
    ///
    /// # Panics
    /// When `range` is outside.
    ///
    /// # Safety
    /// While the slice lives, no other access to the same elements happens, by this method or by [`SharedOut::set`].
    pub unsafe fn slice_mut(&self, range: Range<usize>) -> &'a mut [f32] {
        let cells = &self.cells[range];
        // SAFETY: atomics allow mutation behind a shared reference, the layout is that of `f32`, and the caller promises
        // that nobody else touches these elements.
        unsafe { slice::from_raw_parts_mut(cells.as_ptr().cast_mut().cast::<f32>(), cells.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_zeroed_aligned_and_writable() {
        for len in [0, 1, 15, 16, 1000, 100_000] {
            let mut v = AlignedVec::<f32>::zeroed(len);
            assert_eq!(v.len(), len);
            assert!(v.iter().all(|&x| x == 0.0));
            assert!(len == 0 || v.as_ptr().addr().is_multiple_of(ALIGNMENT));
            v.fill(1.5);
            assert!(v.iter().all(|&x| x == 1.5));
        }
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(AlignedVec::<f32>::try_zeroed(usize::MAX).is_none(), "the size in bytes overflows");
        assert!(AlignedVec::<f32>::try_zeroed(1 << 58).is_none(), "no machine has an exabyte");
        assert!(AlignedVec::<f32>::try_zeroed(3).is_some_and(|v| *v == [0.0; 3]));
    }

    #[test]
    fn threads_write_their_own_parts() {
        let mut data = vec![0.0; 64];
        let out = SharedOut::new(&mut data);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..32).for_each(|i| out.set(i, i as f32)));
            // SAFETY: the other thread stays below 32.
            scope.spawn(|| unsafe { out.slice_mut(32..64) }.fill(-1.0));
        });
        assert!(data[..32].iter().enumerate().all(|(i, &x)| x == i as f32));
        assert!(data[32..].iter().all(|&x| x == -1.0));
    }

    #[test]
    #[should_panic(expected = "out of bounds")]
    fn writing_outside_panics() {
        SharedOut::new(&mut [0.0; 4]).set(4, 1.0);
    }
}
