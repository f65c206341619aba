//! Which rows of a step belong to which sequence, and where each sequence's cache lies.

use std::ops::Range;

/// Number of tokens in one block of the key-value cache.
pub const BLOCK_TOKENS: usize = 32;

/// The tokens of one step: every tensor of the step has one row per token, sequence after sequence.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The sequences, whose row ranges follow one another without gaps from row 0.
    pub sequences: &'a [Sequence<'a>],
}

/// The part of one sequence that a step computes.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// Rows of the step's tensors that hold this sequence's new tokens.
    pub rows: Range<usize>,
    /// Position of the first new token; tokens `0..start` are already in the cache.
    pub start: usize,
    /// Cache blocks in the order of positions; they cover at least `start + rows.len()` tokens.
    pub blocks: &'a [u32],
}

impl Batch<'_> {
    /// Returns the number of rows (new tokens) of the step.
    pub fn rows(&self) -> usize {
        self.sequences.last().map_or(0, |sequence| sequence.rows.end)
    }
}

impl Sequence<'_> {
    /// Returns the number of tokens in the cache once the step is done: the length of the last row's context.
    pub fn end(&self) -> usize {
        self.start + self.rows.len()
    }

    /// Returns block and slot within the block of the token at `position`, or `None` when no block covers it.
    pub fn slot(&self, position: usize) -> Option<(u32, usize)> {
        self.blocks.get(position / BLOCK_TOKENS).map(|&block| (block, position % BLOCK_TOKENS))
    }
}
