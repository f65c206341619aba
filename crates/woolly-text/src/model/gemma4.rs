//! The `gemma4` method: byte-pair encoding with ranked merges on characters instead of bytes.
//!
//! Spaces are U+2581 in the vocabulary. Runs of newlines are encoded apart from the rest. Characters that are no token
//! become byte tokens, or the unknown token.

use std::borrow::Cow;

use woolly_gguf::StringArray;

use crate::error::Error;
use crate::model::bpe::LazyMerges;
use crate::model::merge::{Merger, Symbol};
use crate::model::words::Words;
use crate::model::{ByteTokens, Known};
use crate::vocab::{Form, Vocab};

/// Marks a character that is no token; it takes part in no merge.
const NO_TOKEN: u32 = u32::MAX;

/// What the method needs besides the vocabulary.
#[derive(Debug)]
pub(crate) struct Gemma4 {
    merges: LazyMerges,
    bytes: ByteTokens,
    words: Words,
    space_prefix: bool,
    known: Known,
}

impl Gemma4 {
    /// Prepares `vocab` with its merges.
    ///
    /// # Errors
    /// [`Error::BadMerge`] for an entry without two parts.
    pub(crate) fn new(
        vocab: &Vocab,
        merges: &StringArray,
        unknown: Option<u32>,
        space_prefix: bool,
    ) -> Result<Self, Error> {
        Ok(Self {
            merges: LazyMerges::new(merges, Form::SpaceSymbol)?,
            bytes: ByteTokens::new(vocab, unknown),
            words: Words::new(vocab),
            space_prefix,
            known: Known::new(vocab.len()),
        })
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        let text =
            if text.contains('\u{2581}') { Cow::Owned(text.replace('\u{2581}', " ")) } else { Cow::Borrowed(text) };
        let text = if self.space_prefix { Cow::Owned(format!(" {text}")) } else { text };
        for (newlines, part) in runs_of_newlines(&text) {
            match vocab.find(part.as_bytes()).filter(|_| newlines) {
                Some(id) => ids.push(id),
                None => self.words.split(part, |stretch| self.encode_stretch(vocab, stretch, merger, ids)),
            }
        }
    }

    fn encode_stretch(&self, vocab: &Vocab, stretch: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        if let Some(id) = vocab.find(stretch.as_bytes())
            && self.known.is_atomic(id, || {
                self.merge(vocab, stretch, merger);
                merger.symbols.len() == 1
            })
        {
            return ids.push(id);
        }
        self.merge(vocab, stretch, merger);
        for symbol in &merger.symbols {
            if (symbol.id as usize) < vocab.len() {
                ids.push(symbol.id);
            } else {
                let text = stretch.as_bytes().get(symbol.start as usize..symbol.end as usize).unwrap_or_default();
                self.bytes.push(text, ids);
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
        merger.run(stretch.as_bytes(), self.merges.get(vocab));
    }
}

/// Runs of newlines (true) and the text between them (false).
fn runs_of_newlines(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let newlines = rest.starts_with('\n');
        let end = rest.bytes().position(|byte| (byte == b'\n') != newlines).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        (!run.is_empty()).then_some((newlines, run))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_are_apart() {
        let runs: Vec<_> = runs_of_newlines("a\n\nb c\n").collect();
        assert_eq!(runs, [(false, "a"), (true, "\n\n"), (false, "b c"), (true, "\n")]);
        assert_eq!(runs_of_newlines("").count(), 0);
    }
}
