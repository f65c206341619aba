//! The order in which the rows of a range are read.

use std::array;
use std::ops::Range;

/// Bytes after which addresses fall into the same set of a cache next to a core: those of x86-64 processors that AVX2 comes with.
const SET_PERIOD: usize = 4096;

/// `R` runs of rows, one after the other in the range, that are read in step.
///
/// Rows far apart let the processor's prefetchers follow each; neighbouring rows that share pages lose half the bandwidth. Runs a
/// multiple of [`SET_PERIOD`] apart, as in matrices with a power of two of rows, would all be in the same few sets of the cache,
/// and drive each other's lines out of it before they are used. So each run begins a few rows after its first one, further than
/// the run before it, and takes those that it left out at its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams<const R: usize> {
    start: usize,
    last: usize,
    /// Rows of a run.
    length: usize,
    /// Which row of its own each run begins with.
    first: [usize; R],
}

impl<const R: usize> Streams<R> {
    /// Deals rows of `row_bytes` to runs; there is at least one.
    #[inline(always)]
    pub(super) fn new(range: &Range<usize>, row_bytes: usize) -> Self {
        let length = range.len().div_ceil(R);
        let skew = skew(length, row_bytes);
        Self { start: range.start, last: range.end - 1, length, first: array::from_fn(|r| r * skew % length) }
    }

    /// Returns how many times a row of each run is taken.
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the rows that are taken together at the `i`th time; where rows are no multiple of `R`, some are the last one again.
    #[inline(always)]
    pub(super) fn rows(&self, i: usize) -> [usize; R] {
        array::from_fn(|r| {
            let row = self.first[r] + i;
            let row = if row < self.length { row } else { row - self.length };
            (self.start + r * self.length + row).min(self.last)
        })
    }
}

/// Returns by how many rows more each run is ahead than the one before, so that runs are as close to a quarter of the period from
/// each other as a few rows can bring them.
fn skew(length: usize, row_bytes: usize) -> usize {
    const MOST: usize = 16;
    let off = |skew: &usize| ((length + skew) * row_bytes % (SET_PERIOD / 2)).abs_diff(SET_PERIOD / 4);
    (0..length.min(MOST)).min_by_key(off).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_taken_and_none_outside() {
        for (start, len) in [(0, 1), (3, 2), (0, 5), (7, 64), (100, 257), (5, 1000)] {
            for row_bytes in [1, 18, 528, 1056, 4096, 11264] {
                let streams = Streams::<4>::new(&(start..start + len), row_bytes);
                let mut taken: Vec<_> = (0..streams.len()).flat_map(|i| streams.rows(i)).collect();
                taken.sort_unstable();
                taken.dedup();
                assert_eq!(taken, (start..start + len).collect::<Vec<_>>(), "{len} rows of {row_bytes} bytes");
            }
        }
    }

    #[test]
    fn runs_are_in_different_sets() {
        // Rows of Q4_0, Q4_K and TQ2_0 in the shapes of usual models; rows of whole periods cannot be moved within one.
        for (rows, row_bytes) in [(2048, 1152), (5632, 1152), (2048, 3168), (4096, 2304), (2048, 528), (14336, 2304)] {
            let streams = Streams::<4>::new(&(0..rows), row_bytes);
            let places = streams.rows(0).map(|row| row * row_bytes % SET_PERIOD);
            for (i, a) in places.iter().enumerate() {
                for b in &places[..i] {
                    let apart = a.abs_diff(*b).min(SET_PERIOD - a.abs_diff(*b));
                    assert!(apart >= SET_PERIOD / 8, "{rows} rows of {row_bytes} bytes: {places:?}");
                }
            }
        }
    }
}
