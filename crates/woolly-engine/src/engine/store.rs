//! The cache blocks of the sequences that run.

use woolly_tensor::BLOCK_TOKENS;

use crate::schedule::Cached;

/// All blocks of a decoder's cache.
#[derive(Debug)]
pub(crate) struct Store {
    free: Vec<u32>,
    total: usize,
}

/// The blocks of one sequence, in the order of positions.
#[derive(Debug)]
pub(crate) struct Held {
    blocks: Vec<u32>,
}

impl Store {
    pub(crate) fn new(total: usize) -> Self {
        Self { free: (0_u32..).take(total).collect(), total }
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn lookup(&self, _tokens: &[u32], _salt: u64) -> Cached {
        Cached::default()
    }

    /// Begins a sequence with what the cache has of its tokens; returns how many these are.
    pub(crate) fn open(&mut self, _tokens: &[u32], _salt: u64) -> (Held, usize) {
        (Held { blocks: Vec::new() }, 0)
    }

    /// Extends a sequence to `tokens` tokens; returns whether there were blocks for that.
    pub(crate) fn reserve(&mut self, held: &mut Held, tokens: usize) -> bool {
        let missing = tokens.div_ceil(BLOCK_TOKENS).saturating_sub(held.blocks.len());
        if missing > self.free.len() {
            return false;
        }
        held.blocks.extend(self.free.drain(self.free.len() - missing..));
        true
    }

    /// Gives a sequence's blocks back.
    pub(crate) fn close(&mut self, held: Held) {
        self.free.extend(held.blocks);
    }
}

impl Held {
    pub(crate) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Blocks that nobody else uses.
    pub(crate) fn owned(&self) -> usize {
        self.blocks.len()
    }
}
