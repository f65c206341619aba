//! Where a text without pre-tokenizer can be cut without changing its tokens.

use crate::vocab::Vocab;

/// A stretch without a boundary is cut here so that 32-bit positions suffice.
const MAX_STRETCH: usize = 1 << 30;

/// Whether merges can cross from one word into the next.
#[derive(Debug)]
pub(crate) struct Words {
    /// No token has a space after another character, so words can be encoded one at a time.
    independent: bool,
}

impl Words {
    /// Looks at all tokens of `vocab`.
    pub(crate) fn new(vocab: &Vocab) -> Self {
        let crosses = |bytes: &[u8]| bytes.windows(2).any(|pair| matches!(pair, [before, b' '] if *before != b' '));
        Self { independent: !vocab.iter_findable().any(crosses) }
    }

    /// Calls `emit` with stretches of `text` that can be encoded one at a time. Spaces belong to the word behind them.
    pub(crate) fn split(&self, text: &str, mut emit: impl FnMut(&str)) {
        let mut rest = text;
        while !rest.is_empty() {
            let (stretch, after) = rest.split_at(self.stretch_end(rest));
            emit(stretch);
            rest = after;
        }
    }

    fn stretch_end(&self, rest: &str) -> usize {
        let mut end = rest.len();
        if self.independent {
            let bytes = rest.as_bytes();
            let spaces = bytes.iter().position(|b| *b != b' ').unwrap_or(end);
            let word = bytes.get(spaces..).and_then(|word| word.iter().position(|b| *b == b' '));
            end = word.map_or(end, |length| spaces + length);
        }
        if end > MAX_STRETCH { rest.floor_char_boundary(MAX_STRETCH) } else { end }
    }
}
