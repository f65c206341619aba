//! The tokenizer of a model: text to ids and back.
//!
//! It is built from the metadata of a model file alone. Encoding cuts the text at special tokens, hands the rest to the
//! method of the vocabulary and puts BOS and EOS around it. Text is taken as it is: nothing is normalised.

use std::fmt;
use std::sync::{Arc, OnceLock};

use woolly_gguf::Metadata;

use crate::error::Error;
use crate::model::bpe::Bpe;
use crate::model::gemma4::Gemma4;
use crate::model::merge::Merger;
use crate::model::spm::Spm;
use crate::partition::{Fragment, Partitioner, Pattern};
use crate::pretokenize::PreTokenizer;
use crate::special::{Special, SpecialTokens};
use crate::stream::StreamDecoder;
use crate::vocab::{Form, TokenType, Vocab};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// The values of `tokenizer.ggml.model` that are implemented.
const KNOWN_MODELS: &str = "llama, gpt2, gemma4";

/// Turns text into token ids and ids into text. Cheap to clone; shared freely between threads.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    vocab: Vocab,
    special: SpecialTokens,
    method: Method,
    add_bos: bool,
    add_eos: bool,
    /// Whether encoding puts a space in front of a text, which decoding takes away again.
    space_prefix: bool,
    /// Whether control tokens take away white space that follows them.
    strips_right: bool,
    user_defined: OnceLock<Partitioner>,
    all_special: OnceLock<Partitioner>,
}

enum Method {
    Spm(Spm),
    Bpe(Box<Bpe>),
    Gemma4(Box<Gemma4>),
}

impl Tokenizer {
    /// Builds the tokenizer that `metadata` describes.
    ///
    /// # Errors
    /// When the kind of tokenizer or pre-tokenizer is unknown, or when tokens, types, scores, merges or special ids are
    /// missing, of the wrong type, or do not fit together.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let inner = match metadata.require_str(MODEL)? {
            "llama" => Inner::llama(metadata)?,
            "gpt2" => Inner::gpt2(metadata)?,
            "gemma4" => Inner::gemma4(metadata)?,
            other => return Err(Error::UnknownModel { found: other.to_owned(), known: KNOWN_MODELS.to_owned() }),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// The ids of `text`.
    ///
    /// With `add_special`, BOS and EOS are added as the model wants them. With `parse_special`, the texts of control
    /// tokens become those tokens; use it for templates, never for text of a user. User-defined tokens are recognised
    /// always. Text that the vocabulary cannot express becomes byte tokens or the unknown token.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
        let inner = &*self.0;
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        if add_special && inner.add_bos {
            ids.extend(self.bos());
        }
        inner.encode_fragments(text, &inner.partitioner(parse_special).split(text), None, &mut ids);
        if add_special && inner.add_eos {
            ids.extend(self.eos());
        }
        ids
    }

    /// The ids of a prompt that a chat template has rendered: control tokens are recognised, and BOS is put in front
    /// only if the model wants it and the template has not done so. EOS is not added, since the answer is to follow.
    ///
    /// Names of control tokens that a user wrote are recognised too; [`crate::ChatTemplate::encode`] prevents that.
    pub fn encode_prompt(&self, prompt: &str) -> Vec<u32> {
        self.encode_marked(prompt, None)
    }

    /// As [`Self::encode_prompt`]; after cutting at control tokens, `mark` is removed from the text.
    pub(crate) fn encode_marked(&self, prompt: &str, mark: Option<char>) -> Vec<u32> {
        let inner = &*self.0;
        let mut ids = Vec::with_capacity(prompt.len() / 4 + 2);
        let fragments = inner.partitioner(true).split(prompt);
        let first = fragments.first().and_then(|fragment| fragment.token);
        if inner.add_bos && first != self.bos() {
            ids.extend(self.bos());
        }
        inner.encode_fragments(prompt, &fragments, mark, &mut ids);
        ids
    }

    /// Finds the names of control tokens. A name of one character is left out: it cannot be broken up.
    pub(crate) fn control_names(&self) -> Partitioner {
        self.0.new_partitioner(|token_type, text| token_type.is_hidden() && text.chars().nth(1).is_some())
    }

    /// The text of `ids`, without the control tokens unless `with_special`. Bytes that are not UTF-8 are replaced by
    /// U+FFFD.
    ///
    /// Where encoding puts a space in front of a text, that space is not part of the result.
    ///
    /// # Errors
    /// [`Error::TokenOutOfRange`]
    pub fn decode(&self, ids: &[u32], with_special: bool) -> Result<String, Error> {
        let mut stream = self.stream().with_special(with_special);
        let mut text = String::new();
        for &id in ids {
            text.push_str(stream.push(id)?);
        }
        text.push_str(stream.finish());
        Ok(text)
    }

    /// A decoder for ids that arrive one at a time.
    pub fn stream(&self) -> StreamDecoder {
        StreamDecoder::new(self.clone())
    }

    /// The bytes that a token stands for, or `None` for an id outside the vocabulary. The bytes of one token need not be
    /// UTF-8. Special tokens give their name, such as `<|im_end|>`.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.0.vocab.bytes(id)
    }

    /// The text of a token as the model file has it.
    pub fn token_text(&self, id: u32) -> Option<&[u8]> {
        self.0.vocab.text(id)
    }

    /// What a token is for, or `None` for an id outside the vocabulary.
    pub fn token_type(&self, id: u32) -> Option<TokenType> {
        self.0.vocab.token_type(id)
    }

    /// The number of tokens; ids are below it.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab.len()
    }

    /// The token with a role.
    pub fn special(&self, special: Special) -> Option<u32> {
        self.0.special.get(special)
    }

    /// The token that begins a text.
    pub fn bos(&self) -> Option<u32> {
        self.special(Special::Bos)
    }

    /// The token that ends a text.
    pub fn eos(&self) -> Option<u32> {
        self.special(Special::Eos)
    }

    /// The token that ends a turn.
    pub fn eot(&self) -> Option<u32> {
        self.special(Special::Eot)
    }

    /// Whether `add_special` puts BOS in front.
    pub fn add_bos(&self) -> bool {
        self.0.add_bos
    }

    /// Whether `add_special` puts EOS at the end.
    pub fn add_eos(&self) -> bool {
        self.0.add_eos
    }

    /// Whether encoding puts a space in front of a text.
    pub fn space_prefix(&self) -> bool {
        self.0.space_prefix
    }

    /// Whether generation ends at this token.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.0.special.ends().binary_search(&id).is_ok()
    }

    /// The tokens at which generation ends, in ascending order.
    pub fn end_of_generation(&self) -> &[u32] {
        self.0.special.ends()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos())
            .field("eos", &self.eos())
            .field("add_bos", &self.add_bos())
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn llama(metadata: &Metadata) -> Result<Self, Error> {
        let mut vocab = Vocab::from_metadata(metadata, Form::SpaceSymbol)?;
        let scores = metadata.f32s(SCORES)?;
        if let Some(scores) = &scores
            && scores.len() != vocab.len()
        {
            return Err(Error::LengthMismatch { key: SCORES, found: scores.len(), tokens: vocab.len() });
        }
        let defaults = [(Special::Bos, 1), (Special::Eos, 2), (Special::Unknown, 0)];
        let special = SpecialTokens::from_metadata(metadata, &mut vocab, Form::SpaceSymbol, &defaults)?;
        let space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let spm = Spm::new(&vocab, scores.as_deref(), special.get(Special::Unknown), space_prefix);
        Self::new(metadata, vocab, special, Method::Spm(spm), true, space_prefix)
    }

    fn gpt2(metadata: &Metadata) -> Result<Self, Error> {
        let pre = read_pre_tokenizer(metadata)?;
        let mut vocab = Vocab::from_metadata(metadata, Form::ByteAlphabet)?;
        let special = SpecialTokens::from_metadata(metadata, &mut vocab, Form::ByteAlphabet, &[])?;
        let merges = metadata.require_strings(MERGES)?;
        let bpe = Bpe::new(&vocab, merges, special.get(Special::Unknown), pre)?;
        Self::new(metadata, vocab, special, Method::Bpe(Box::new(bpe)), pre.add_bos, false)
    }

    fn gemma4(metadata: &Metadata) -> Result<Self, Error> {
        let mut vocab = Vocab::from_metadata(metadata, Form::SpaceSymbol)?;
        let special = SpecialTokens::from_metadata(metadata, &mut vocab, Form::SpaceSymbol, &[])?;
        let merges = metadata.require_strings(MERGES)?;
        let space_prefix = metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false);
        let gemma4 = Gemma4::new(&vocab, merges, special.get(Special::Unknown), space_prefix)?;
        Self::new(metadata, vocab, special, Method::Gemma4(Box::new(gemma4)), true, space_prefix)
    }

    fn new(
        metadata: &Metadata,
        vocab: Vocab,
        special: SpecialTokens,
        method: Method,
        default_bos: bool,
        space_prefix: bool,
    ) -> Result<Self, Error> {
        Ok(Self {
            add_bos: metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(default_bos),
            add_eos: metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            strips_right: is_phi3(metadata),
            vocab,
            special,
            method,
            space_prefix,
            user_defined: OnceLock::new(),
            all_special: OnceLock::new(),
        })
    }

    fn encode_fragments(&self, text: &str, fragments: &[Fragment], mark: Option<char>, ids: &mut Vec<u32>) {
        let mut merger = Merger::default();
        for fragment in fragments {
            let part = text.get(fragment.range.clone()).unwrap_or_default();
            match (fragment.token, mark) {
                (Some(id), _) => ids.push(id),
                (None, Some(mark)) if part.contains(mark) => {
                    self.encode_text(&part.replace(mark, ""), &mut merger, ids);
                }
                (None, _) => self.encode_text(part, &mut merger, ids),
            }
        }
    }

    fn encode_text(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        match &self.method {
            Method::Spm(spm) => spm.encode(&self.vocab, text, merger, ids),
            Method::Bpe(bpe) => bpe.encode(&self.vocab, text, merger, ids),
            Method::Gemma4(gemma4) => gemma4.encode(&self.vocab, text, merger, ids),
        }
    }

    fn partitioner(&self, parse_special: bool) -> &Partitioner {
        if parse_special {
            self.all_special.get_or_init(|| self.new_partitioner(|t, _| t == TokenType::UserDefined || t.is_hidden()))
        } else {
            self.user_defined.get_or_init(|| self.new_partitioner(|t, _| t == TokenType::UserDefined))
        }
    }

    fn new_partitioner(&self, wanted: impl Fn(TokenType, &str) -> bool) -> Partitioner {
        let pattern = |id: u32| {
            let text = std::str::from_utf8(self.vocab.text(id)?).ok()?.to_owned();
            let strips_right = self.strips_right && !PHI3_KEEPS_SPACE.contains(&text.as_str());
            let wanted = self.vocab.token_type(id).is_some_and(|token_type| wanted(token_type, &text));
            wanted.then_some(Pattern { id, text, strips_right })
        };
        Partitioner::new(self.vocab.marked().iter().copied().filter_map(pattern).collect())
    }
}

fn read_pre_tokenizer(metadata: &Metadata) -> Result<PreTokenizer, Error> {
    let name = metadata.str(PRE)?.unwrap_or("default");
    PreTokenizer::from_name(name).ok_or_else(|| Error::UnknownPreTokenizer {
        found: name.to_owned(),
        known: PreTokenizer::names().collect::<Vec<_>>().join(", "),
    })
}

/// Phi-3's special tokens, except these, take away white space that follows; the files do not say so.
const PHI3_KEEPS_SPACE: [&str; 3] = ["<unk>", "<s>", "<|endoftext|>"];

fn is_phi3(metadata: &Metadata) -> bool {
    let name = metadata.str("general.name").ok().flatten().unwrap_or_default().to_lowercase();
    name.contains("phi-3") || name.contains("phi3")
}
