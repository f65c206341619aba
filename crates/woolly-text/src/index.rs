//! Hash tables for vocabularies: from the bytes of a token to its id, and from a pair of symbols to their merge.
//!
//! Both are open-addressing tables of plain numbers that are built once and only read afterwards: 8 and 16 bytes a
//! slot, no allocation per entry. The hash is keyed with a random seed, so that a vocabulary cannot be made to collide.

use std::hash::{BuildHasher, RandomState};

const EMPTY: u32 = u32::MAX;
/// An odd constant with well-mixed bits: the fractional part of the golden ratio.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// A folded multiplication: all 128 bits of the product influence the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

fn random_seed() -> u64 {
    RandomState::new().hash_one(MULTIPLIER)
}

#[inline]
fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = seed ^ (bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        hash = fold(hash ^ u64::from_le_bytes(word), MULTIPLIER ^ seed);
    }
    let mut tail = 0u64;
    for &byte in chunks.remainder() {
        tail = tail << 8 | u64::from(byte);
    }
    fold(hash ^ tail, MULTIPLIER)
}

/// Finds the id of a token by its bytes. The bytes themselves stay with the owner, who passes a way to read them.
#[derive(Debug)]
pub(crate) struct TokenIndex {
    seed: u64,
    /// Hash and id of each entry; a power of two in number, at most half of them used.
    slots: Vec<(u32, u32)>,
}

impl TokenIndex {
    /// An index with room for `tokens` entries.
    pub(crate) fn with_capacity(tokens: usize) -> Self {
        let slots = (tokens.max(1) * 2).next_power_of_two();
        Self { seed: random_seed(), slots: vec![(0, EMPTY); slots] }
    }

    /// Adds `id` under `bytes` unless those bytes have an id already: the lowest id of equal tokens wins. Returns whether
    /// it was added.
    pub(crate) fn insert<'a>(&mut self, bytes: &[u8], id: u32, read: impl Fn(u32) -> &'a [u8]) -> bool {
        let hash = hash_bytes(self.seed, bytes);
        let slot = self.find(hash, bytes, read);
        match self.slots.get_mut(slot) {
            Some(slot) if slot.1 == EMPTY => {
                *slot = (hash as u32, id);
                true
            }
            _ => false,
        }
    }

    /// The id stored under `bytes`.
    #[inline]
    pub(crate) fn get<'a>(&self, bytes: &[u8], read: impl Fn(u32) -> &'a [u8]) -> Option<u32> {
        let slot = self.find(hash_bytes(self.seed, bytes), bytes, read);
        self.slots.get(slot).map(|slot| slot.1).filter(|id| *id != EMPTY)
    }

    /// All ids, in no particular order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.slots.iter().map(|slot| slot.1).filter(|id| *id != EMPTY)
    }

    /// The slot that holds `bytes`, or the empty one where they belong.
    #[inline]
    fn find<'a>(&self, hash: u64, bytes: &[u8], read: impl Fn(u32) -> &'a [u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = (hash >> 32) as usize & mask;
        while let Some(&(stored, id)) = self.slots.get(slot) {
            if id == EMPTY || (stored == hash as u32 && read(id) == bytes) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }
}

/// A merge: what two adjacent symbols become, and how early that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merge {
    /// Lower merges first; `u32::MAX` is never a merge.
    pub(crate) priority: u32,
    /// The symbol that the pair becomes.
    pub(crate) id: u32,
}

impl Merge {
    /// Stands for "these two do not merge".
    pub(crate) const NONE: Self = Self { priority: u32::MAX, id: EMPTY };
}

/// Finds the merge of a pair of symbols.
#[derive(Debug)]
pub(crate) struct PairIndex {
    seed: u64,
    /// Left, right and what they become; a power of two in number, at most half of them used.
    slots: Vec<(u32, u32, Merge)>,
}

impl PairIndex {
    /// An index with room for `pairs` entries.
    pub(crate) fn with_capacity(pairs: usize) -> Self {
        let slots = (pairs.max(1) * 2).next_power_of_two();
        Self { seed: random_seed(), slots: vec![(0, 0, Merge::NONE); slots] }
    }

    /// Adds a merge unless the pair has one already: the first, which has the lower rank, wins.
    pub(crate) fn insert(&mut self, left: u32, right: u32, merge: Merge) {
        let slot = self.find(left, right);
        if let Some(slot) = self.slots.get_mut(slot)
            && slot.2 == Merge::NONE
        {
            *slot = (left, right, merge);
        }
    }

    /// The merge of `left` and `right`, or [`Merge::NONE`].
    #[inline]
    pub(crate) fn get(&self, left: u32, right: u32) -> Merge {
        self.slots.get(self.find(left, right)).map_or(Merge::NONE, |slot| slot.2)
    }

    #[inline]
    fn find(&self, left: u32, right: u32) -> usize {
        let mask = self.slots.len() - 1;
        let key = u64::from(left) << 32 | u64::from(right);
        let mut slot = (fold(key ^ self.seed, MULTIPLIER) >> 20) as usize & mask;
        while let Some(&(l, r, merge)) = self.slots.get(slot) {
            if merge == Merge::NONE || (l == left && r == right) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_and_the_first_of_equals_wins() {
        let texts: Vec<Vec<u8>> = (0..1000u32).map(|i| format!("token number {}", i % 900).into_bytes()).collect();
        let read = |id: u32| texts[id as usize].as_slice();
        let mut index = TokenIndex::with_capacity(texts.len());
        for (id, text) in (0..).zip(&texts) {
            assert_eq!(index.insert(text, id, read), id < 900);
        }
        for (id, text) in (0..).zip(&texts) {
            assert_eq!(index.get(text, read), Some(id % 900));
        }
        assert_eq!(index.get(b"token number 900", read), None);
        assert_eq!(index.get(b"", read), None);
    }

    #[test]
    fn pairs_are_ordered_and_the_first_wins() {
        let mut pairs = PairIndex::with_capacity(2);
        pairs.insert(1, 2, Merge { priority: 0, id: 10 });
        pairs.insert(1, 2, Merge { priority: 1, id: 11 });
        assert_eq!(pairs.get(1, 2), Merge { priority: 0, id: 10 });
        assert_eq!(pairs.get(2, 1), Merge::NONE);
    }
}
