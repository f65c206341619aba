//! The merge loop of byte-pair encoding: repeatedly join the adjacent pair of best priority, leftmost on ties.
//!
//! Short pieces, which is nearly all of them, are merged by scanning; long ones with a heap over a linked list, so that
//! the worst case is O(n log n) for a piece of n symbols. What may merge is the rules' decision.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::index::Merge;

/// A stretch of the piece that is one symbol: the bytes from `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol {
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// A token id, or a number the rules understand.
    pub(crate) id: u32,
}

/// Decides whether two adjacent symbols merge.
pub(crate) trait Rules {
    /// The merge of `left` and `right` in `piece`, or [`Merge::NONE`].
    fn merge(&self, piece: &[u8], left: Symbol, right: Symbol) -> Merge;
}

/// Above this many symbols the heap is faster than scanning.
const SCAN_LIMIT: usize = 48;

/// The working memory of the merge loop, kept between pieces.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    /// The symbols of the piece: filled by the caller, merged in place.
    pub(crate) symbols: Vec<Symbol>,
    pending: Vec<Merge>,
    links: Vec<Link>,
    heap: BinaryHeap<Reverse<Candidate>>,
}

/// Neighbours of a symbol in the list. A symbol merged into its left neighbour is dead: `next` is [`Link::DEAD`].
#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

impl Link {
    const END: u32 = u32::MAX;
    const DEAD: u32 = u32::MAX - 1;
}

/// A possible merge. Ordered by priority, then position. `end` tells whether it is still current when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u32,
    left: u32,
    end: u32,
    id: u32,
}

impl Merger {
    /// Merges [`Self::symbols`] until no rule applies.
    pub(crate) fn run(&mut self, piece: &[u8], rules: &impl Rules) {
        if self.symbols.len() <= SCAN_LIMIT {
            self.run_scanning(piece, rules);
        } else {
            self.run_heap(piece, rules);
        }
    }

    fn run_scanning(&mut self, piece: &[u8], rules: &impl Rules) {
        let Self { symbols, pending, .. } = self;
        pending.clear();
        pending
            .extend(symbols.iter().zip(symbols.iter().skip(1)).map(|(left, right)| rules.merge(piece, *left, *right)));
        while let Some((at, best)) = pending.iter().copied().enumerate().min_by_key(|(_, merge)| merge.priority) {
            if best == Merge::NONE {
                break;
            }
            symbols[at] = Symbol { start: symbols[at].start, end: symbols[at + 1].end, id: best.id };
            symbols.remove(at + 1);
            pending.remove(at);
            if at < pending.len() {
                pending[at] = rules.merge(piece, symbols[at], symbols[at + 1]);
            }
            if at > 0 {
                pending[at - 1] = rules.merge(piece, symbols[at - 1], symbols[at]);
            }
        }
    }

    fn run_heap(&mut self, piece: &[u8], rules: &impl Rules) {
        self.link_up();
        self.heap.clear();
        for left in 0..self.symbols.len() as u32 {
            self.offer(piece, rules, left);
        }
        while let Some(Reverse(candidate)) = self.heap.pop() {
            self.apply(piece, rules, candidate);
        }
        let links = &self.links;
        let mut alive = links.iter().map(|link| link.next != Link::DEAD);
        self.symbols.retain(|_| alive.next().unwrap_or(false));
    }

    fn link_up(&mut self) {
        let count = self.symbols.len() as u32;
        self.links.clear();
        self.links.extend((0..count).map(|at| Link {
            previous: at.checked_sub(1).unwrap_or(Link::END),
            next: if at + 1 == count { Link::END } else { at + 1 },
        }));
    }

    fn offer(&mut self, piece: &[u8], rules: &impl Rules, left: u32) {
        let next = self.links[left as usize].next;
        if next == Link::END {
            return;
        }
        let right = self.symbols[next as usize];
        let merge = rules.merge(piece, self.symbols[left as usize], right);
        if merge != Merge::NONE {
            self.heap.push(Reverse(Candidate { priority: merge.priority, left, end: right.end, id: merge.id }));
        }
    }

    /// Symbols only grow, so a candidate is current if its left symbol lives and the neighbour still ends where it did.
    fn apply(&mut self, piece: &[u8], rules: &impl Rules, candidate: Candidate) {
        let left = candidate.left as usize;
        let next = self.links[left].next;
        if next >= Link::DEAD || self.symbols[next as usize].end != candidate.end {
            return;
        }
        let after = self.links[next as usize].next;
        self.symbols[left].end = candidate.end;
        self.symbols[left].id = candidate.id;
        self.links[left].next = after;
        self.links[next as usize].next = Link::DEAD;
        if after != Link::END {
            self.links[after as usize].previous = candidate.left;
        }
        self.offer(piece, rules, candidate.left);
        let previous = self.links[left].previous;
        if previous != Link::END {
            self.offer(piece, rules, previous);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges equal symbols into the next number: 1 1 becomes 2, 2 2 becomes 3 and so on; lower numbers first.
    struct Doubling;

    impl Rules for Doubling {
        fn merge(&self, _: &[u8], left: Symbol, right: Symbol) -> Merge {
            if left.id == right.id { Merge { priority: left.id, id: left.id + 1 } } else { Merge::NONE }
        }
    }

    /// Merges pairs by a fixed pseudo-random priority, to compare the two loops.
    struct Scrambled;

    impl Rules for Scrambled {
        fn merge(&self, _: &[u8], left: Symbol, right: Symbol) -> Merge {
            let mix = (left.id.wrapping_mul(31) ^ right.id.wrapping_mul(17)) % 97;
            if mix < 60 { Merge { priority: mix / 3, id: mix } } else { Merge::NONE }
        }
    }

    fn symbols(ids: impl Iterator<Item = u32>) -> Vec<Symbol> {
        (0..).zip(ids).map(|(start, id)| Symbol { start, end: start + 1, id }).collect()
    }

    #[test]
    fn leftmost_of_equal_priority_merges_first() {
        let mut merger = Merger { symbols: symbols([1, 1, 1].into_iter()), ..Merger::default() };
        merger.run(&[], &Doubling);
        assert_eq!(merger.symbols, [Symbol { start: 0, end: 2, id: 2 }, Symbol { start: 2, end: 3, id: 1 }]);
    }

    #[test]
    fn both_loops_agree() {
        for length in 0..200 {
            let ids = || (0..length).map(|i: u32| i.wrapping_mul(2_654_435_761) >> 25);
            let mut scanning = Merger { symbols: symbols(ids()), ..Merger::default() };
            let mut heap = Merger { symbols: symbols(ids()), ..Merger::default() };
            scanning.run_scanning(&[], &Scrambled);
            heap.run_heap(&[], &Scrambled);
            assert_eq!(scanning.symbols, heap.symbols, "{length} symbols");
        }
    }

    #[test]
    fn a_long_run_is_merged_fully() {
        let mut merger = Merger { symbols: symbols((0..1 << 17).map(|_| 1)), ..Merger::default() };
        merger.run(&[], &Doubling);
        assert_eq!(merger.symbols, [Symbol { start: 0, end: 1 << 17, id: 18 }]);
    }
}
