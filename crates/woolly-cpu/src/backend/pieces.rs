//! Work cut into pieces that threads claim: everyone begins with its own share and then helps with what others left.
//!
//! A share is consecutive, so that each thread reads its weights from one end to the other. Its pieces become smaller
//! towards the end: the first are few, since every piece begins with reads that nothing has fetched, and the last are
//! short, since that is how long others may wait for a thread that was interrupted.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Where the pieces of a share end, in parts of [`PARTS`].
const ENDS: [usize; 4] = [4, 6, 7, 8];

/// Parts of a share.
const PARTS: usize = ENDS[ENDS.len() - 1];

/// Bytes of a share below which it is one piece.
const WHOLE: usize = 256 << 10;

/// The work from `start` to `end` when all of it is `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) of: usize,
}

/// A counter alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line(AtomicUsize);

/// The claims of one operation.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// For each share, the number of its pieces that have been claimed, or more.
    claimed: Vec<Line>,
    /// Pieces of a share, each share being one thread's.
    each: usize,
    threads: usize,
}

impl Pieces {
    /// Makes room for the claims of `threads` threads.
    pub(super) fn reserve(&mut self, threads: usize) {
        if self.claimed.len() < threads {
            self.claimed.resize_with(threads, Line::default);
        }
    }

    /// Cuts `bytes` of weights for `threads` threads; allocates when there are more than any before.
    pub(super) fn reset(&mut self, threads: usize, bytes: usize) {
        self.reserve(threads);
        self.claimed.iter_mut().for_each(|line| *line.0.get_mut() = 0);
        self.threads = threads;
        self.each = if threads == 1 || bytes / threads < WHOLE { 1 } else { ENDS.len() };
    }

    /// Returns the next piece for a thread: of its own share, or of the first after it that has one left.
    pub(super) fn claim(&self, thread: usize) -> Option<Piece> {
        (0..self.threads).find_map(|i| self.claim_own((thread + i) % self.threads))
    }

    /// Returns the next piece of one share.
    pub(super) fn claim_own(&self, share: usize) -> Option<Piece> {
        let piece = self.claimed[share].0.fetch_add(1, Ordering::Relaxed);
        if piece >= self.each {
            return None;
        }
        if self.each == 1 {
            return Some(Piece { start: share, end: share + 1, of: self.threads });
        }
        let start = if piece == 0 { 0 } else { ENDS[piece - 1] };
        let (start, end) = (share * PARTS + start, share * PARTS + ENDS[piece]);
        Some(Piece { start, end, of: self.threads * PARTS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_does_all_the_work_once() {
        for (threads, bytes) in [(1, 1 << 30), (2, 1 << 10), (2, 1 << 30), (5, 1 << 30)] {
            let mut pieces = Pieces::default();
            for present in 1..=threads {
                pieces.reset(threads, bytes);
                // Threads take turns; those beyond `present` never come.
                let mut all: Vec<Piece> = Vec::new();
                let mut idle = 0;
                for thread in (0..present).cycle() {
                    match pieces.claim(thread) {
                        Some(piece) => all.push(piece),
                        None => idle += 1,
                    }
                    if idle == present {
                        break;
                    }
                }
                all.sort_by_key(|piece| piece.start);
                assert!(all.iter().all(|piece| piece.start < piece.end && piece.of == all[0].of));
                assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start), "{present} of {threads}: {all:?}");
                assert_eq!((all[0].start, all[all.len() - 1].end), (0, all[0].of));
            }
        }
    }

    #[test]
    fn a_thread_helps_others_only_when_its_share_is_done() {
        let mut pieces = Pieces::default();
        pieces.reset(2, 1 << 30);
        let starts = |thread: usize, n: usize| -> Vec<usize> {
            (0..n).map(|_| pieces.claim(thread).expect("a piece is left").start).collect()
        };
        assert_eq!(starts(1, 2), [8, 12]);
        assert_eq!(starts(0, 4), [0, 4, 6, 7]);
        assert_eq!(starts(0, 2), [14, 15], "the rest of the other share");
        assert_eq!(pieces.claim(1), None);
    }
}
