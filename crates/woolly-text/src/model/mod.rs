//! The encoding methods: one file per value of `tokenizer.ggml.model`, and the merging they share.
//!
//! A method turns a piece of plain text into ids. Special tokens, BOS and EOS are not its business.

pub(crate) mod bpe;
pub(crate) mod gemma4;
pub(crate) mod merge;
pub(crate) mod spm;
mod words;

use std::sync::atomic::{AtomicU8, Ordering};

use crate::vocab::{SPACE_SYMBOL, Vocab, byte_token_text};

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

/// The tokens for single bytes, for characters that are no token.
#[derive(Debug)]
struct ByteTokens {
    tokens: Vec<Option<u32>>,
    unknown: Option<u32>,
}

impl ByteTokens {
    fn new(vocab: &Vocab, unknown: Option<u32>) -> Self {
        Self { tokens: (0..=255).map(|byte| vocab.find(&byte_token_text(byte))).collect(), unknown }
    }

    /// Appends the tokens of the bytes of one character, or the unknown token when there is not one for each.
    fn push(&self, character: &[u8], ids: &mut Vec<u32>) {
        // In the vocabulary a space is U+2581, so those are the bytes to fall back to.
        let bytes = if character == b" " { SPACE_SYMBOL } else { character };
        let tokens = bytes.iter().map(|byte| self.tokens.get(usize::from(*byte)).copied().flatten());
        if tokens.clone().all(|token| token.is_some()) {
            ids.extend(tokens.flatten());
        } else if let Some(unknown) = self.unknown {
            ids.push(unknown);
        } else {
            tracing::warn!(?character, "a character is not in the vocabulary, which has no unknown token");
        }
    }
}
