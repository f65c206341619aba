//! Work cut into pieces that threads claim: everyone begins with its own share and then helps with what others left.
//!
//! A share is consecutive, so that each thread reads its weights from one end to the other. Its pieces become smaller
//! towards the end: the first are few, since every piece begins with reads that nothing has fetched, and the last are
//! short, since that is how long others may wait for a thread that was interrupted.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool::Sharing;

/// Pieces of a share at most: a half, a quarter, and two eighths.
const MOST: usize = 4;

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
    stealing: bool,
}

impl Pieces {
    /// Makes room for the claims of `threads` threads.
    pub(super) fn reserve(&mut self, threads: usize) {
        if self.claimed.len() < threads {
            self.claimed.resize_with(threads, Line::default);
        }
    }

    /// Cuts `bytes` of weights, `rows` rows of them, for `threads` threads; allocates when there are more than any before.
    pub(super) fn reset(&mut self, threads: usize, bytes: usize, rows: usize, sharing: Sharing) {
        self.reserve(threads);
        self.claimed.iter_mut().for_each(|line| *line.0.get_mut() = 0);
        self.threads = threads;
        self.stealing = sharing.stealing;
        let most = if threads == 1 || bytes / threads < WHOLE { 1 } else { MOST.min(sharing.queue) };
        // The last two pieces are the smallest.
        let smallest = |pieces: usize| (rows / threads) >> (pieces - 1);
        self.each = (2..=most).rev().find(|&pieces| smallest(pieces) >= sharing.unit_rows).unwrap_or(1);
    }

    /// Returns the next piece for a thread: of its own share, or of the first after it that has one left.
    pub(super) fn claim(&self, thread: usize) -> Option<Piece> {
        let shares = if self.stealing { self.threads } else { 1 };
        (0..shares).find_map(|i| self.claim_own((thread + i) % self.threads))
    }

    /// Returns the next piece of one share.
    pub(super) fn claim_own(&self, share: usize) -> Option<Piece> {
        let piece = self.claimed[share].0.fetch_add(1, Ordering::Relaxed);
        if piece >= self.each {
            return None;
        }
        // Each piece is half of what is left, the last all of it.
        let parts = 1 << (self.each - 1);
        let end = |pieces: usize| if pieces == self.each { parts } else { parts - (parts >> pieces) };
        let (start, end) = (share * parts + end(piece), share * parts + end(piece + 1));
        Some(Piece { start, end, of: self.threads * parts })
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
                pieces.reset(threads, bytes, 1 << 20, Sharing::default());
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
        pieces.reset(2, 1 << 30, 1 << 20, Sharing::default());
        let starts = |thread: usize, n: usize| -> Vec<usize> {
            (0..n).map(|_| pieces.claim(thread).expect("a piece is left").start).collect()
        };
        assert_eq!(starts(1, 2), [8, 12]);
        assert_eq!(starts(0, 4), [0, 4, 6, 7]);
        assert_eq!(starts(0, 2), [14, 15], "the rest of the other share");
        assert_eq!(pieces.claim(1), None);
    }

    #[test]
    fn units_and_queues_bound_how_finely_a_share_is_cut() {
        let mut pieces = Pieces::default();
        let mut ends = |rows: usize, sharing: Sharing| {
            pieces.reset(2, 1 << 30, rows, sharing);
            std::iter::from_fn(|| pieces.claim_own(0)).map(|p| (p.end * 2 * 64) / p.of).collect::<Vec<_>>()
        };
        let default = Sharing::default();
        assert_eq!(ends(1024, default), [32, 48, 56, 64], "eighths of 512 rows are units of 64");
        assert_eq!(ends(1023, default), [32, 48, 64], "eighths would be too small");
        assert_eq!(ends(1024, Sharing { unit_rows: 256, ..default }), [32, 64]);
        assert_eq!(ends(1024, Sharing { unit_rows: 257, ..default }), [64]);
        assert_eq!(ends(1024, Sharing { queue: 1, ..default }), [64]);
        assert_eq!(ends(1024, Sharing { queue: 2, ..default }), [32, 64]);
        pieces.reset(2, 1 << 30, 1 << 20, Sharing { stealing: false, ..default });
        assert_eq!(std::iter::from_fn(|| pieces.claim(1)).count(), MOST, "its own and no other's");
    }
}
