//! A mutable slice that several threads write disjoint parts of.

use std::marker::PhantomData;
use std::ops::Range;

/// A `&mut [T]` whose parts can be handed out to threads; it does not track who has which.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    owner: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives access to `T`s only as `&mut [T]`, which is `Send` for these `T`, and only through an unsafe method
// whose contract forbids overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}
// SAFETY: as for `Sync`.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Returns the elements of `range`.
    ///
    /// # Safety
    /// While the result lives, no other slice overlapping it is obtained from this value.
    #[allow(clippy::mut_from_ref, reason = "that is the purpose of the type; the contract excludes overlap")]
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part of a shared slice out of range");
        // SAFETY: in bounds by the assertion; unaliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
