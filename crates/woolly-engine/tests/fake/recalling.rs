//! A decoder of many sequences whose answer depends on every token before, read back through the block table: a wrong
//! position, a block given twice or a stale cache shows in the next token.

use std::ops::Range;
use std::sync::mpsc::Receiver;

use woolly_model::{Config, Decoder, Error, Step};
use woolly_tensor::{BLOCK_TOKENS, Sequence};

use super::{PEAK, VOCAB};

/// A sequence with this token has no finite logits.
pub(crate) const POISON: u32 = 48;
/// A step with this token fails as a whole.
pub(crate) const BROKEN: u32 = 49;

/// Predicts what [`following`] says of the tokens in its cache.
pub(crate) struct Recalling {
    config: Config,
    max_rows: usize,
    max_outputs: usize,
    /// Token in each slot of each block.
    cache: Vec<u32>,
    /// Where given, each step waits for a permit.
    pub(crate) permits: Option<Receiver<()>>,
}

impl Recalling {
    pub(crate) fn new(blocks: usize, max_rows: usize, max_outputs: usize) -> Self {
        let cache = vec![u32::MAX; blocks * BLOCK_TOKENS];
        Self { config: super::config(), max_rows, max_outputs, cache, permits: None }
    }

    fn slot(sequence: &Sequence<'_>, position: usize) -> usize {
        let (block, slot) = sequence.slot(position).expect("a block for every position");
        block as usize * BLOCK_TOKENS + slot
    }

    fn block(block: u32) -> Range<usize> {
        let first = block as usize * BLOCK_TOKENS;
        first..first + BLOCK_TOKENS
    }

    fn recall(&self, sequence: &Sequence<'_>, end: usize) -> Vec<u32> {
        (0..end).map(|position| self.cache[Self::slot(sequence, position)]).collect()
    }
}

/// Returns the token after `ids`: FNV-1a of them all, never one of the two that fail.
pub(crate) fn following(ids: &[u32]) -> u32 {
    let hash =
        ids.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &id| (hash ^ u64::from(id)).wrapping_mul(0x100_0000_01b3));
    (hash >> 20) as u32 % POISON
}

/// Returns the `count` tokens after a prompt.
pub(crate) fn continuation(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    (0..count).for_each(|_| ids.push(following(&ids)));
    ids.split_off(prompt.len())
}

impl Decoder for Recalling {
    fn config(&self) -> &Config {
        &self.config
    }

    fn max_rows(&self) -> usize {
        self.max_rows
    }

    fn max_outputs(&self) -> usize {
        self.max_outputs
    }

    fn cache_blocks(&self) -> usize {
        self.cache.len() / BLOCK_TOKENS
    }

    fn block_bytes(&self) -> usize {
        BLOCK_TOKENS * size_of::<u32>()
    }

    fn copy_block(&mut self, from: u32, to: u32) -> Result<(), Error> {
        self.cache.copy_within(Self::block(from), Self::block(to).start);
        Ok(())
    }

    fn save_block(&self, block: u32, out: &mut [u8]) -> Result<(), Error> {
        let tokens = &self.cache[Self::block(block)];
        out.chunks_exact_mut(4).zip(tokens).for_each(|(out, token)| out.copy_from_slice(&token.to_le_bytes()));
        Ok(())
    }

    fn keep_tokens(&self, tokens: usize, saved: &mut [u8]) -> Result<(), Error> {
        saved[4 * tokens..].fill(0);
        Ok(())
    }

    fn load_block(&mut self, block: u32, bytes: &[u8]) -> Result<(), Error> {
        let tokens = self.cache[Self::block(block)].iter_mut();
        tokens.zip(bytes.as_chunks().0).for_each(|(token, bytes)| *token = u32::from_le_bytes(*bytes));
        Ok(())
    }

    fn release_blocks(&mut self, blocks: &[u32]) -> Result<(), Error> {
        blocks.iter().for_each(|&block| self.cache[Self::block(block)].fill(u32::MAX));
        Ok(())
    }

    fn forward(&mut self, step: Step<'_>, logits: &mut [f32]) -> Result<(), Error> {
        if let Some(permits) = &self.permits {
            // A sender that is gone permits everything.
            let _ = permits.recv();
        }
        assert_eq!((step.batch.rows(), logits.len()), (step.ids.len(), step.outputs.len() * VOCAB));
        assert!(step.ids.len() <= self.max_rows && step.outputs.len() <= self.max_outputs);
        if let Some(row) = step.ids.iter().position(|&id| id == BROKEN) {
            return Err(Error::TokenId { id: BROKEN, row, vocab_size: VOCAB });
        }
        for sequence in step.batch.sequences {
            for row in sequence.rows.clone() {
                let slot = Self::slot(sequence, sequence.start + row - sequence.rows.start);
                self.cache[slot] = step.ids[row];
            }
        }
        for (logits, &output) in logits.chunks_exact_mut(VOCAB).zip(step.outputs) {
            let output = output as usize;
            let sequence = step.batch.sequences.iter().find(|s| s.rows.contains(&output)).expect("a row of the step");
            let ids = self.recall(sequence, sequence.start + output - sequence.rows.start + 1);
            assert!(ids.iter().all(|&id| id < VOCAB as u32), "a position was never written");
            logits.fill(if ids.contains(&POISON) { f32::NAN } else { 0.0 });
            logits[following(&ids) as usize] += PEAK;
        }
        Ok(())
    }
}
