//! The `gpt2` method: byte-level byte-pair encoding with ranked merges (Sennrich et al., 2016; Radford et al., 2019).
//!
//! Each piece of the pre-tokenizer starts as its bytes; pairs merge in the order of `tokenizer.ggml.merges`. A merge may
//! go through symbols that are no tokens; what is left of those at the end falls apart into the tokens of their bytes.

use std::collections::HashMap;
use std::sync::OnceLock;

use woolly_gguf::StringArray;

use crate::error::Error;
use crate::index::{Merge, PairIndex};
use crate::model::Known;
use crate::model::merge::{Merger, Rules, Symbol};
use crate::pretokenize::PreTokenizer;
use crate::vocab::{Form, Vocab};

/// A longer piece is cut here so that 32-bit positions suffice.
const MAX_PIECE: usize = 1 << 30;

/// What the method needs besides the vocabulary.
#[derive(Debug)]
pub(crate) struct Bpe {
    pre: PreTokenizer,
    merges: LazyMerges,
    unknown: Option<u32>,
    known: Known,
}

impl Bpe {
    /// Prepares `vocab` with its merges.
    ///
    /// # Errors
    /// [`Error::BadMerge`] for an entry without two parts.
    pub(crate) fn new(
        vocab: &Vocab,
        merges: &StringArray,
        unknown: Option<u32>,
        pre: PreTokenizer,
    ) -> Result<Self, Error> {
        let merges = LazyMerges::new(merges, Form::ByteAlphabet)?;
        Ok(Self { pre, merges, unknown, known: Known::new(vocab.len()) })
    }

    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        self.pre.split(text, &mut |piece: &str| {
            for part in piece.as_bytes().chunks(MAX_PIECE) {
                self.encode_piece(vocab, part, merger, ids);
            }
        });
    }

    fn encode_piece(&self, vocab: &Vocab, piece: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        if let Some(id) = vocab.find(piece)
            && (self.pre.whole_word_first
                || self.known.is_atomic(id, || {
                    self.merges.get(vocab).run_on_bytes(piece, merger);
                    merger.symbols.len() == 1
                }))
        {
            return ids.push(id);
        }
        let merges = self.merges.get(vocab);
        merges.run_on_bytes(piece, merger);
        for symbol in &merger.symbols {
            if (symbol.id as usize) < vocab.len() {
                ids.push(symbol.id);
            } else {
                let text = piece.get(symbol.start as usize..symbol.end as usize).unwrap_or_default();
                self.push_bytes(vocab, merges, text, ids);
            }
        }
    }

    fn push_bytes(&self, vocab: &Vocab, merges: &Merges, text: &[u8], ids: &mut Vec<u32>) {
        for &byte in text {
            let token = Some(merges.symbol_of(byte)).filter(|id| (*id as usize) < vocab.len());
            match token.or(self.unknown) {
                Some(id) => ids.push(id),
                None => tracing::warn!(byte, "a byte of the text is not in the vocabulary, which has no unknown token"),
            }
        }
    }
}

/// Merges as they are in the file, checked, and prepared for use at the first use.
///
/// Preparing takes most of the time of building a tokenizer, and a program that only loads a model never needs it.
#[derive(Debug)]
pub(crate) struct LazyMerges {
    stored: StringArray,
    form: Form,
    prepared: OnceLock<Merges>,
}

impl LazyMerges {
    /// Checks `stored`, whose parts are written in `form`.
    ///
    /// # Errors
    /// [`Error::BadMerge`] for an entry without two parts.
    pub(crate) fn new(stored: &StringArray, form: Form) -> Result<Self, Error> {
        if let Some((index, text)) = stored.iter().enumerate().find(|(_, text)| parts(text).is_none()) {
            return Err(Error::BadMerge { index, found: String::from_utf8_lossy(text).into_owned() });
        }
        Ok(Self { stored: stored.clone(), form, prepared: OnceLock::new() })
    }

    /// The merges for the tokens of `vocab`, which must be the same at every call.
    pub(crate) fn get(&self, vocab: &Vocab) -> &Merges {
        self.prepared.get_or_init(|| Symbols::new(vocab, self.form).prepare(&self.stored))
    }
}

/// Merges in the order of their rank.
#[derive(Debug)]
pub(crate) struct Merges {
    pairs: PairIndex,
    /// The symbol of each byte; a number beyond the vocabulary when the byte is no token.
    bytes: [u32; 256],
}

impl Merges {
    /// Merges `piece`, beginning with its bytes.
    fn run_on_bytes(&self, piece: &[u8], merger: &mut Merger) {
        merger.symbols.clear();
        merger.symbols.extend((0..).zip(piece).map(|(start, byte)| {
            let id = self.symbol_of(*byte);
            Symbol { start, end: start + 1, id }
        }));
        merger.run(piece, self);
    }

    fn symbol_of(&self, byte: u8) -> u32 {
        self.bytes.get(usize::from(byte)).copied().unwrap_or(u32::MAX)
    }
}

impl Rules for Merges {
    fn merge(&self, _: &[u8], left: Symbol, right: Symbol) -> Merge {
        self.pairs.get(left.id, right.id)
    }
}

/// The two parts of a merge. The separator is the first space after the first character.
fn parts(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = 1 + text.get(1..)?.iter().position(|b| *b == b' ')?;
    Some((text.get(..space)?, text.get(space + 1..)?))
}

/// Numbers for the texts that occur in merges: token ids, and numbers beyond them for texts that are no tokens.
struct Symbols<'a> {
    vocab: &'a Vocab,
    form: Form,
    others: HashMap<Vec<u8>, u32>,
    /// The latest result of a merge.
    latest: u32,
}

impl<'a> Symbols<'a> {
    fn new(vocab: &'a Vocab, form: Form) -> Self {
        Self { vocab, form, others: HashMap::new(), latest: 0 }
    }

    fn prepare(mut self, merges: &StringArray) -> Merges {
        let bytes = std::array::from_fn(|byte| self.intern(&[byte as u8]));
        let mut pairs = PairIndex::with_capacity(merges.len());
        let mut joined = Vec::new();
        for (rank, (left, right)) in merges.iter().enumerate().filter_map(|(rank, text)| Some((rank, parts(text)?))) {
            let (left, right) = self.intern_parts(left, right, &mut joined);
            let id = self.intern_result(&joined);
            pairs.insert(left, right, Merge { priority: rank as u32, id });
        }
        Merges { pairs, bytes }
    }

    fn intern(&mut self, bytes: &[u8]) -> u32 {
        if let Some(id) = self.vocab.find(bytes) {
            return id;
        }
        let next = (self.vocab.len() + self.others.len()) as u32;
        *self.others.entry(bytes.to_vec()).or_insert(next)
    }

    /// As [`Self::intern`]. The results of merges mostly follow each other as the tokens do, so the token of the previous
    /// merge and its successor are tried before the index, which saves a third of the time.
    fn intern_result(&mut self, bytes: &[u8]) -> u32 {
        let guesses = [self.latest, self.latest.saturating_add(1)];
        let guessed = guesses.into_iter().find(|id| self.vocab.is_found_as(*id, bytes));
        self.latest = guessed.unwrap_or_else(|| self.intern(bytes));
        self.latest
    }

    /// The two symbols of a merge; their bytes together are left in `joined`.
    fn intern_parts(&mut self, left: &[u8], right: &[u8], joined: &mut Vec<u8>) -> (u32, u32) {
        joined.clear();
        self.form.append(left, joined);
        let middle = joined.len();
        self.form.append(right, joined);
        let (left, right) = joined.split_at(middle);
        (self.intern(left), self.intern(right))
    }
}
