//! The encoding methods: one file per value of `tokenizer.ggml.model`, and the merging they share.
//!
//! A method turns a piece of plain text into ids. Special tokens, BOS and EOS are not its business.

pub(crate) mod bpe;
pub(crate) mod merge;
pub(crate) mod spm;

use std::sync::atomic::{AtomicU8, Ordering};

/// Remembers for each token whether encoding its own text yields just that token.
///
/// Nearly always it does, but the merges decide. With the answer at hand most words of a text cost one lookup instead
/// of a merge loop. An answer is computed at the first question; threads that ask at once compute the same one.
#[derive(Debug)]
pub(crate) struct Known(Vec<AtomicU8>);

const YES: u8 = 1;
const NO: u8 = 2;

impl Known {
    /// No answers yet for `tokens` tokens.
    fn new(tokens: usize) -> Self {
        Self(std::iter::repeat_with(|| AtomicU8::new(0)).take(tokens).collect())
    }

    /// The answer for token `id`, from `compute` if it is not known yet.
    #[inline]
    fn is_atomic(&self, id: u32, compute: impl FnOnce() -> bool) -> bool {
        let Some(answer) = self.0.get(id as usize) else { return false };
        match answer.load(Ordering::Relaxed) {
            YES => true,
            NO => false,
            _ => {
                let atomic = compute();
                answer.store(if atomic { YES } else { NO }, Ordering::Relaxed);
                atomic
            }
        }
    }
}
