//! Tokens with a role: where the file names them, and where only their text tells.
//!
//! Ids come from the metadata. Files often name fewer than the model uses, so the texts that published models use for
//! the end of a turn, and for filling in the middle, are looked up too.

use woolly_gguf::Metadata;

use crate::error::Error;
use crate::vocab::{Form, TokenType, Vocab};

/// The roles a token can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Special {
    /// Begins a text.
    Bos,
    /// Ends a text.
    Eos,
    /// Ends a turn of a conversation.
    Eot,
    /// Ends a message after which the same speaker goes on, as with a tool call.
    Eom,
    /// Stands for text that the vocabulary cannot express.
    Unknown,
    /// Separates two texts.
    Separator,
    /// Fills up sequences of a batch.
    Padding,
    /// Begins a text to be classified.
    Classification,
    /// Stands for a token to be guessed.
    Mask,
    /// Fill in the middle: comes before the text in front of the gap.
    FimPrefix,
    /// Fill in the middle: comes before the text behind the gap.
    FimSuffix,
    /// Fill in the middle: comes before the text of the gap.
    FimMiddle,
    /// Fill in the middle: fills up.
    FimPadding,
    /// Fill in the middle: comes before the name of a repository.
    FimRepository,
    /// Fill in the middle: comes before the name of a file.
    FimSeparator,
}

/// How a role is found.
struct Role {
    special: Special,
    key: &'static str,
    /// Whether encoding depends on it: a bad id is then an error, else it is reported and ignored.
    essential: bool,
    /// Texts that tell the role when the file does not, the most specific first.
    texts: &'static [&'static str],
}

#[rustfmt::skip]
const ROLES: &[Role] = &[
    Role { special: Special::Bos, key: "tokenizer.ggml.bos_token_id", essential: true, texts: &[] },
    Role { special: Special::Eos, key: "tokenizer.ggml.eos_token_id", essential: true, texts: &[] },
    Role { special: Special::Eot, key: "tokenizer.ggml.eot_token_id", essential: true, texts: &[
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<turn|>",
        "<|endoftext|>", "<|end_of_text|>", "<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>",
    ] },
    Role { special: Special::Eom, key: "tokenizer.ggml.eom_token_id", essential: true, texts: &["<|eom_id|>"] },
    Role { special: Special::Unknown, key: "tokenizer.ggml.unknown_token_id", essential: true, texts: &[] },
    Role { special: Special::Separator, key: "tokenizer.ggml.seperator_token_id", essential: true, texts: &[] },
    Role { special: Special::Padding, key: "tokenizer.ggml.padding_token_id", essential: false, texts: &[] },
    Role { special: Special::Classification, key: "tokenizer.ggml.cls_token_id", essential: true, texts: &[] },
    Role { special: Special::Mask, key: "tokenizer.ggml.mask_token_id", essential: false, texts: &[] },
    Role { special: Special::FimPrefix, key: "tokenizer.ggml.fim_pre_token_id", essential: false, texts: &[
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>",
    ] },
    Role { special: Special::FimSuffix, key: "tokenizer.ggml.fim_suf_token_id", essential: false, texts: &[
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>",
    ] },
    Role { special: Special::FimMiddle, key: "tokenizer.ggml.fim_mid_token_id", essential: false, texts: &[
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>",
    ] },
    Role { special: Special::FimPadding, key: "tokenizer.ggml.fim_pad_token_id", essential: false, texts: &[
        "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>",
    ] },
    Role { special: Special::FimRepository, key: "tokenizer.ggml.fim_rep_token_id", essential: false, texts: &[
        "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>",
    ] },
    Role { special: Special::FimSeparator, key: "tokenizer.ggml.fim_sep_token_id", essential: false, texts: &["<|file_sep|>"] },
];

/// Texts at which generation ends whatever the keys say.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<turn|>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<eos>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
];

/// The special tokens of one vocabulary.
#[derive(Debug)]
pub(crate) struct SpecialTokens {
    ids: Vec<(Special, u32)>,
    /// In ascending order.
    ends: Vec<u32>,
}

impl SpecialTokens {
    /// Reads the keys of `metadata`; `defaults` apply where a key is absent and the id exists. Tokens found by their
    /// text become control tokens in `vocab`.
    ///
    /// # Errors
    /// [`Error::SpecialTokenOutOfRange`] for a role that encoding depends on.
    pub(crate) fn from_metadata(
        metadata: &Metadata,
        vocab: &mut Vocab,
        form: Form,
        defaults: &[(Special, u32)],
    ) -> Result<Self, Error> {
        let mut ids = Vec::new();
        for role in ROLES {
            let default =
                defaults.iter().find(|(special, id)| *special == role.special && (*id as usize) < vocab.len());
            let named = read_id(metadata, vocab, role)?.or(default.map(|(_, id)| *id));
            let id = named.or_else(|| role.texts.iter().find_map(|text| vocab.find_stored(text, form)));
            ids.extend(id.map(|id| (role.special, id)));
        }
        let mut special = Self { ids, ends: Vec::new() };
        special.ends = special.find_ends(vocab, form);
        Ok(special)
    }

    /// The token with a role.
    pub(crate) fn get(&self, special: Special) -> Option<u32> {
        self.ids.iter().find(|(role, _)| *role == special).map(|(_, id)| *id)
    }

    /// The tokens that end generation, in ascending order.
    pub(crate) fn ends(&self) -> &[u32] {
        &self.ends
    }

    fn find_ends(&self, vocab: &mut Vocab, form: Form) -> Vec<u32> {
        use Special::{Eom, Eos, Eot, FimPadding, FimRepository, FimSeparator};
        let roles = [Eos, Eot, Eom, FimPadding, FimRepository, FimSeparator];
        let by_text: Vec<(&str, u32)> =
            END_TEXTS.iter().filter_map(|text| vocab.find_stored(text, form).map(|id| (*text, id))).collect();
        for (_, id) in &by_text {
            if vocab.token_type(*id) != Some(TokenType::Control) {
                vocab.set_control(*id);
            }
        }
        let mut ends: Vec<u32> = roles.iter().filter_map(|role| self.get(*role)).collect();
        ends.extend(by_text.iter().map(|(_, id)| *id));
        // In these vocabularies `<|end|>` only ends a message within a turn.
        let has = |text| by_text.iter().any(|(found, _)| *found == text);
        if (has("<|return|>") && has("<|call|>")) || (has("<|calls|>") && has("<|flush|>")) {
            let inner = by_text.iter().find(|(text, _)| *text == "<|end|>").map(|(_, id)| *id);
            ends.retain(|id| Some(*id) != inner);
        }
        ends.sort_unstable();
        ends.dedup();
        ends
    }
}

fn read_id(metadata: &Metadata, vocab: &Vocab, role: &Role) -> Result<Option<u32>, Error> {
    let Some(found) = metadata.i64(role.key)? else { return Ok(None) };
    // Converters write -1, also as an unsigned number, for "none".
    if found == -1 || found == i64::from(u32::MAX) {
        return Ok(None);
    }
    match u32::try_from(found) {
        Ok(id) if (id as usize) < vocab.len() => Ok(Some(id)),
        _ if role.essential => Err(Error::SpecialTokenOutOfRange { key: role.key, id: found, tokens: vocab.len() }),
        _ => {
            tracing::warn!(
                key = role.key,
                id = found,
                tokens = vocab.len(),
                "token id outside the vocabulary is ignored"
            );
            Ok(None)
        }
    }
}
