//! The tokens of a model: their stored text, their bytes, their type, and the way back from bytes to ids.
//!
//! Built from the metadata of a file and checked against itself, so that every later lookup is in range. What the
//! special tokens mean is in [`crate::special`].

use woolly_gguf::{Metadata, StringArray};

use crate::alphabet;
use crate::error::Error;
use crate::index::TokenIndex;

/// What a token is for, by `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenType {
    /// A piece of text (1).
    Normal,
    /// Stands for text that the vocabulary cannot express (2).
    Unknown,
    /// Controls the model, such as the end of a turn; not part of the text (3).
    Control,
    /// Added to the vocabulary by hand; always recognised in text (4).
    UserDefined,
    /// Reserved and without use (5, and 0 for undefined).
    Unused,
    /// One byte, for text that no other token covers (6).
    Byte,
}

impl TokenType {
    fn from_id(id: i64) -> Option<Self> {
        Some(match id {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            0 | 5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// Whether tokens of this type are left out of readable text.
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Control | Self::Unknown)
    }
}

/// How token texts are written in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// UTF-8 with U+2581 in place of the space (SentencePiece and its relatives).
    SpaceSymbol,
    /// The printable alphabet of byte-level BPE.
    ByteAlphabet,
}

impl Form {
    /// Appends the bytes that `text` stands for, or the text itself when it is not written in this form.
    pub(crate) fn append(self, text: &[u8], out: &mut Vec<u8>) {
        let written = match self {
            Self::SpaceSymbol => append_spaces(text, out),
            Self::ByteAlphabet => alphabet::append_bytes(text, out),
        };
        if !written {
            out.extend_from_slice(text);
        }
    }
}

pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";

/// The space symbol U+2581 in UTF-8.
pub(crate) const SPACE_SYMBOL: &[u8] = "\u{2581}".as_bytes();

/// Tokens by id and ids by bytes.
#[derive(Debug)]
pub(crate) struct Vocab {
    /// As stored in the file.
    texts: StringArray,
    types: Vec<TokenType>,
    /// The tokens that are not normal, of which there are few.
    marked: Vec<u32>,
    /// The bytes of all tokens, one after the other; token `i` ends at `ends[i]`.
    arena: Vec<u8>,
    ends: Vec<u32>,
    index: TokenIndex,
    /// Every normal token is findable by its bytes, and no two have the same.
    regular: bool,
}

impl Vocab {
    /// Reads tokens and types.
    ///
    /// # Errors
    /// When the tokens are missing or none, the types do not match them, or offsets exceed 32 bits.
    pub(crate) fn from_metadata(metadata: &Metadata, form: Form) -> Result<Self, Error> {
        let texts = metadata.require_strings(TOKENS)?.clone();
        let bytes = texts.iter().map(<[u8]>::len).sum();
        if texts.is_empty() {
            return Err(Error::EmptyVocabulary);
        }
        if u32::try_from(texts.len()).is_err() || u32::try_from(bytes).is_err() {
            return Err(Error::VocabularyTooLarge { tokens: texts.len(), bytes });
        }
        let types = read_types(metadata, &texts, form)?;
        let is_marked = |id: &u32| types.get(*id as usize) != Some(&TokenType::Normal);
        let mut vocab = Self {
            marked: (0..types.len() as u32).filter(is_marked).collect(),
            types,
            arena: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(texts.len()),
            index: TokenIndex::with_capacity(texts.len()),
            regular: true,
            texts: texts.clone(),
        };
        for (id, text) in (0..).zip(texts.iter()) {
            vocab.add(id, text, form);
        }
        Ok(vocab)
    }

    fn add(&mut self, id: u32, text: &[u8], form: Form) {
        let start = self.arena.len();
        let found_in_text = match form {
            Form::SpaceSymbol => append_spaces(text, &mut self.arena) && !text.contains(&b' '),
            Form::ByteAlphabet => self.append_alphabet(id, text),
        };
        self.ends.push(self.arena.len() as u32);
        let (arena, ends) = (&self.arena, &self.ends);
        let bytes = arena.get(start..).unwrap_or_default();
        let added = found_in_text && !bytes.is_empty() && self.index.insert(bytes, id, |id| slice(arena, ends, id));
        self.regular &= added || self.token_type(id) != Some(TokenType::Normal);
    }

    /// Tokens that are not normal are stored as plain text; they are findable where that is the same as the alphabet.
    fn append_alphabet(&mut self, id: u32, text: &[u8]) -> bool {
        let literal = !matches!(self.token_type(id), Some(TokenType::Normal | TokenType::Unused));
        if !literal && alphabet::append_bytes(text, &mut self.arena) {
            return true;
        }
        self.arena.extend_from_slice(text);
        literal && text.iter().all(u8::is_ascii_graphic)
    }

    /// The number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.types.len()
    }

    /// The type of a token.
    pub(crate) fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// Makes a token a control token.
    pub(crate) fn set_control(&mut self, id: u32) {
        if let Some(token_type) = self.types.get_mut(id as usize) {
            *token_type = TokenType::Control;
        }
        if let Err(place) = self.marked.binary_search(&id) {
            self.marked.insert(place, id);
        }
    }

    /// The text of a token as stored in the file.
    pub(crate) fn text(&self, id: u32) -> Option<&[u8]> {
        self.texts.get(id as usize)
    }

    /// The bytes a token stands for; for a byte token, that byte.
    pub(crate) fn bytes(&self, id: u32) -> Option<&[u8]> {
        let token_type = self.token_type(id)?;
        let bytes = slice(&self.arena, &self.ends, id);
        match (token_type, byte_token(bytes)) {
            (TokenType::Byte, Some(byte)) => BYTES.get(usize::from(byte)..=usize::from(byte)),
            _ => Some(bytes),
        }
    }

    /// The token whose text in running text is `bytes`.
    #[inline]
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<u32> {
        self.index.get(bytes, |id| slice(&self.arena, &self.ends, id))
    }

    /// Whether [`Self::find`] certainly finds `id` under `bytes`. Much faster than finding it, if the answer is yes.
    #[inline]
    pub(crate) fn is_found_as(&self, id: u32, bytes: &[u8]) -> bool {
        self.regular && slice(&self.arena, &self.ends, id) == bytes && self.token_type(id) == Some(TokenType::Normal)
    }

    /// The token stored in the file as `text`, whatever its type.
    pub(crate) fn find_stored(&self, text: &str, form: Form) -> Option<u32> {
        let mut bytes = Vec::with_capacity(text.len());
        match form {
            Form::SpaceSymbol => _ = append_spaces(text.as_bytes(), &mut bytes),
            Form::ByteAlphabet => bytes.extend_from_slice(text.as_bytes()),
        }
        self.find(&bytes).or_else(|| self.marked.iter().copied().find(|id| self.text(*id) == Some(text.as_bytes())))
    }

    /// The tokens that are not normal, in ascending order.
    pub(crate) fn marked(&self) -> &[u32] {
        &self.marked
    }

    /// The bytes of all tokens that [`Self::find`] can find.
    pub(crate) fn iter_findable(&self) -> impl Iterator<Item = &[u8]> {
        self.index.ids().map(|id| slice(&self.arena, &self.ends, id))
    }
}

#[inline]
fn slice<'a>(arena: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let start = (id as usize).checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(id as usize).copied().unwrap_or(start);
    arena.get(start as usize..end as usize).unwrap_or_default()
}

fn read_types(metadata: &Metadata, texts: &StringArray, form: Form) -> Result<Vec<TokenType>, Error> {
    let Some(stored) = metadata.i64s(TOKEN_TYPE)? else {
        return Ok(texts.iter().map(|text| assumed_type(text, form)).collect());
    };
    if stored.len() != texts.len() {
        return Err(Error::LengthMismatch { key: TOKEN_TYPE, found: stored.len(), tokens: texts.len() });
    }
    let typed = |(token, found)| TokenType::from_id(found).ok_or(Error::UnknownTokenType { token, found });
    stored.into_iter().enumerate().map(typed).collect()
}

/// The type of a token in a file without types: byte tokens are recognised by their text.
fn assumed_type(text: &[u8], form: Form) -> TokenType {
    if form == Form::SpaceSymbol && byte_token(text).is_some() { TokenType::Byte } else { TokenType::Normal }
}

/// The byte in a text of the form `<0xHH>`.
fn byte_token(text: &[u8]) -> Option<u8> {
    let [b'<', b'0', b'x', high, low, b'>'] = *text else { return None };
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

/// The stored text of the token for one byte.
pub(crate) fn byte_token_text(byte: u8) -> [u8; 6] {
    let digit = |value: u8| b"0123456789ABCDEF".get(usize::from(value)).copied().unwrap_or(b'0');
    [b'<', b'0', b'x', digit(byte >> 4), digit(byte & 15), b'>']
}

/// Appends `text` with U+2581 turned into spaces. Always returns true, as the counterpart of the alphabet's function.
fn append_spaces(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(SPACE_SYMBOL) {
            out.push(b' ');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    true
}

static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut i = 0;
    while i < 256 {
        bytes[i] = i as u8;
        i += 1;
    }
    bytes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_recognised_strictly() {
        let cases: [(&[u8], Option<u8>); 7] = [
            (b"<0x41>", Some(0x41)),
            (b"<0xfF>", Some(0xFF)),
            (b"<0xZZ>", None),
            (b"<0x-1>", None),
            (b"<0x041>", None),
            (b"<0x4>", None),
            (b"A", None),
        ];
        for (text, expected) in cases {
            assert_eq!(byte_token(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
        assert!((0..=255).all(|byte| byte_token(&byte_token_text(byte)) == Some(byte)));
    }

    #[test]
    fn space_symbols_become_spaces() {
        let mut out = Vec::new();
        append_spaces("▁▁a▁\u{2582}".as_bytes(), &mut out);
        assert_eq!(out, "  a \u{2582}".as_bytes());
    }
}
