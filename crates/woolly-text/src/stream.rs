//! Incremental decoding: ids arrive one at a time, and text leaves as soon as it is complete.
//!
//! The bytes of a character may be spread over several tokens. Bytes that could still become a character are held back;
//! bytes that cannot are replaced by U+FFFD. The text is the same however the ids arrive.

use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// Turns a sequence of ids into text, piece by piece.
#[derive(Clone, Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    /// Bytes of an incomplete character: at most three.
    held: Vec<u8>,
    /// What the last call returned.
    text: String,
    with_special: bool,
    /// The next byte is the first of the text, before which encoding puts a space.
    at_start: bool,
}

impl StreamDecoder {
    /// A decoder for ids that begin a text.
    pub fn new(tokenizer: Tokenizer) -> Self {
        let at_start = tokenizer.space_prefix();
        Self { tokenizer, held: Vec::new(), text: String::new(), with_special: false, at_start }
    }

    /// Also gives the names of control tokens, such as `<|im_end|>`, instead of leaving them out.
    pub fn with_special(mut self, with_special: bool) -> Self {
        self.with_special = with_special;
        self
    }

    /// Treats the ids as the continuation of a text, so that a space in front is kept. Generated tokens continue the
    /// prompt unless the prompt ends a turn.
    pub fn continuing(mut self) -> Self {
        self.at_start = false;
        self
    }

    /// Takes the next id and returns the text that is now complete, possibly none.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`]; the decoder can still be used.
    pub fn push(&mut self, id: u32) -> Result<&str, Error> {
        let Self { tokenizer, held, text, .. } = self;
        let out_of_range = || Error::TokenOutOfRange { id, tokens: tokenizer.vocab_size() };
        let token_type = tokenizer.token_type(id).ok_or_else(out_of_range)?;
        let mut bytes = tokenizer.token_bytes(id).ok_or_else(out_of_range)?;
        text.clear();
        if token_type.is_hidden() && !self.with_special {
            return Ok(text);
        }
        if self.at_start && !bytes.is_empty() && !token_type.is_hidden() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.at_start = false;
        }
        held.extend_from_slice(bytes);
        take_complete(held, text);
        Ok(text)
    }

    /// Ends the text: returns what was held back, with U+FFFD for bytes that never became a character. Afterwards the
    /// decoder continues as if new, but keeps a space in front.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.held.is_empty() {
            self.text.push(char::REPLACEMENT_CHARACTER);
            self.held.clear();
        }
        &self.text
    }
}

/// Moves everything that is decided from `held` to `text`.
fn take_complete(held: &mut Vec<u8>, text: &mut String) {
    let mut taken = 0;
    loop {
        let rest = held.get(taken..).unwrap_or_default();
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                taken = held.len();
                break;
            }
            Err(error) => {
                let valid = rest.get(..error.valid_up_to()).unwrap_or_default();
                text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                taken += error.valid_up_to();
                let Some(invalid) = error.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                taken += invalid;
            }
        }
    }
    held.drain(..taken);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_in_parts(bytes: &[u8], cuts: &[usize]) -> String {
        let (mut held, mut all) = (Vec::new(), String::new());
        let mut start = 0;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        for cut in cuts {
            held.extend_from_slice(&bytes[start..cut]);
            take_complete(&mut held, &mut all);
            start = cut;
        }
        if !held.is_empty() {
            all.push(char::REPLACEMENT_CHARACTER);
        }
        all
    }

    proptest! {
        #[test]
        fn any_split_of_a_text_gives_the_text(text: String, cuts: Vec<usize>) {
            prop_assert_eq!(decode_in_parts(text.as_bytes(), &cuts), text);
        }

        #[test]
        fn any_split_of_any_bytes_gives_the_lossy_text(bytes: Vec<u8>, cuts: Vec<usize>) {
            prop_assert_eq!(decode_in_parts(&bytes, &cuts), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}
