//! The errors of this crate. Each names the thing at fault, its value and, where there is one, the remedy.

/// Why a tokenizer or a chat template could not be built or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A metadata key is missing or has the wrong type.
    #[error(transparent)]
    Metadata(#[from] woolly_gguf::Error),

    /// `tokenizer.ggml.model` names a kind of tokenizer that is not implemented.
    #[error("tokenizer.ggml.model is {found:?}, which is not supported; supported are {known}")]
    UnknownModel {
        /// The name in the file.
        found: String,
        /// The supported names, separated by commas.
        known: String,
    },

    /// `tokenizer.ggml.pre` names a pre-tokenizer that is not implemented.
    ///
    /// Guessing another one would change the tokens of some texts without notice.
    #[error("tokenizer.ggml.pre is {found:?}, which is not supported; supported are {known}")]
    UnknownPreTokenizer {
        /// The name in the file.
        found: String,
        /// The supported names, separated by commas.
        known: String,
    },

    /// The vocabulary has no tokens.
    #[error("tokenizer.ggml.tokens is empty; a tokenizer needs at least one token")]
    EmptyVocabulary,

    /// The vocabulary is larger than token ids or offsets of 32 bits can address.
    #[error(
        "the vocabulary has {tokens} tokens of {bytes} bytes together; at most {} of either are supported",
        u32::MAX
    )]
    VocabularyTooLarge {
        /// Number of tokens.
        tokens: usize,
        /// Bytes of all token texts.
        bytes: usize,
    },

    /// An array that runs parallel to the tokens has another length.
    #[error("{key} has {found} entries for {tokens} tokens")]
    LengthMismatch {
        /// The metadata key of the array.
        key: &'static str,
        /// Its length.
        found: usize,
        /// The number of tokens.
        tokens: usize,
    },

    /// An entry of `tokenizer.ggml.token_type` is not one of the known types 0 to 6.
    #[error("tokenizer.ggml.token_type[{token}] is {found}; known types are 0 to 6")]
    UnknownTokenType {
        /// The token.
        token: usize,
        /// The value in the file.
        found: i64,
    },

    /// An entry of `tokenizer.ggml.merges` does not consist of two parts.
    #[error("tokenizer.ggml.merges[{index}] is {found:?}; expected two parts separated by a space")]
    BadMerge {
        /// Position in the array, which is also the rank.
        index: usize,
        /// The entry, with bytes that are not UTF-8 replaced.
        found: String,
    },

    /// A key that holds a token id holds one outside the vocabulary.
    #[error("{key} is {id}, but the vocabulary has {tokens} tokens")]
    SpecialTokenOutOfRange {
        /// The metadata key.
        key: &'static str,
        /// The id in the file.
        id: i64,
        /// The number of tokens.
        tokens: usize,
    },

    /// A token id given by the caller is outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {tokens} tokens")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// The number of tokens.
        tokens: usize,
    },

    /// A stop string is empty: it would stop before anything is generated.
    #[error("stop string {index} is empty")]
    EmptyStop {
        /// Position in the caller's list.
        index: usize,
    },

    /// The model has no chat template.
    #[error("the model has no chat template (tokenizer.chat_template); give the prompt as text or set a template")]
    NoTemplate,

    /// The chat template cannot be used; the model itself can, with prompts given as text.
    #[error("the chat template is not valid: {reason}")]
    BadTemplate {
        /// What the template engine said, with the line.
        reason: String,
    },

    /// The chat template refused the conversation by calling `raise_exception`.
    #[error("the chat template refused the conversation: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },

    /// Rendering went over a limit on work, output or depth.
    #[error("the chat template exceeded a limit: {reason}")]
    TemplateLimit {
        /// Which limit.
        reason: String,
    },

    /// Rendering failed for another reason, such as an undefined value or a wrong type.
    #[error("the chat template failed: {reason}")]
    Render {
        /// What the template engine said, with the line.
        reason: String,
    },
}
