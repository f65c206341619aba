//! The `llama` method: SentencePiece's byte-pair encoding by score (Kudo and Richardson, 2018).
//!
//! Adjacent symbols merge when their concatenation is a token, the one with the highest score first. Characters that
//! are no token become byte tokens, or the unknown token. Unigram models (`t5`) need another method.

use std::borrow::Cow;

use crate::index::Merge;
use crate::model::merge::{Merger, Rules, Symbol};
use crate::model::words::Words;
use crate::model::{ByteTokens, Known};
use crate::vocab::Vocab;

/// Marks a character that is no token.
const NO_TOKEN: u32 = u32::MAX;

/// What the method needs besides the vocabulary.
#[derive(Debug)]
pub(crate) struct Spm {
    /// Merge priority by token: lower is better.
    priorities: Vec<u32>,
    bytes: ByteTokens,
    space_prefix: bool,
    words: Words,
    known: Known,
}

impl Spm {
    /// Prepares `vocab` with the scores of its tokens, of which there must be as many; none means all are equal.
    pub(crate) fn new(vocab: &Vocab, scores: Option<&[f32]>, unknown: Option<u32>, space_prefix: bool) -> Self {
        Self {
            priorities: scores.map(|all| all.iter().copied().map(priority).collect()).unwrap_or_default(),
            bytes: ByteTokens::new(vocab, unknown),
            space_prefix,
            words: Words::new(vocab),
            known: Known::new(vocab.len()),
        }
    }

    /// Appends the ids of `text`, which begins a text or follows a special token.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        let text = self.normalise(text);
        self.words.split(&text, |stretch| self.encode_stretch(vocab, stretch, merger, ids));
    }

    fn normalise<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text =
            if text.contains('\u{2581}') { Cow::Owned(text.replace('\u{2581}', " ")) } else { Cow::Borrowed(text) };
        if self.space_prefix && !text.is_empty() { Cow::Owned(format!(" {text}")) } else { text }
    }

    fn encode_stretch(&self, vocab: &Vocab, stretch: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        let whole = vocab.find(stretch.as_bytes());
        if let Some(id) = whole
            && self.known.is_atomic(id, || {
                self.merge(vocab, stretch, merger);
                merger.symbols.len() == 1
            })
        {
            return ids.push(id);
        }
        self.merge(vocab, stretch, merger);
        for symbol in &merger.symbols {
            if symbol.id == NO_TOKEN {
                let text = stretch.as_bytes().get(symbol.start as usize..symbol.end as usize).unwrap_or_default();
                self.bytes.push(text, ids);
            } else {
                ids.push(symbol.id);
            }
        }
    }

    fn merge(&self, vocab: &Vocab, stretch: &str, merger: &mut Merger) {
        merger.symbols.clear();
        merger.symbols.extend(stretch.char_indices().map(|(start, c)| {
            let end = start + c.len_utf8();
            let id = stretch.as_bytes().get(start..end).and_then(|text| vocab.find(text));
            Symbol { start: start as u32, end: end as u32, id: id.unwrap_or(NO_TOKEN) }
        }));
        merger.run(stretch.as_bytes(), &ByScore { vocab, priorities: &self.priorities });
    }
}

struct ByScore<'a> {
    vocab: &'a Vocab,
    priorities: &'a [u32],
}

impl Rules for ByScore<'_> {
    fn merge(&self, piece: &[u8], left: Symbol, right: Symbol) -> Merge {
        let joined = piece.get(left.start as usize..right.end as usize).unwrap_or_default();
        match self.vocab.find(joined) {
            Some(id) => Merge { priority: self.priorities.get(id as usize).copied().unwrap_or(0), id },
            None => Merge::NONE,
        }
    }
}

/// Maps scores to priorities: higher scores to lower numbers, equal ones to equal numbers, NaN to the end.
fn priority(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX - 1;
    }
    let bits = (score + 0.0).to_bits();
    let ascending = if score < 0.0 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_reverse_the_order_of_scores() {
        let descending = [f32::INFINITY, 3.5, 1e-40, 0.0, -1e-40, -1.0, -32000.0, f32::NEG_INFINITY, f32::NAN];
        assert!(descending.windows(2).all(|pair| priority(pair[0]) < priority(pair[1])));
        assert_eq!(priority(0.0), priority(-0.0));
        assert!(descending.iter().all(|score| priority(*score) != Merge::NONE.priority));
    }
}
