//! What can be wrong with a model file or with a step.

use woolly_tensor::BackendError;

/// A model that cannot be loaded, or a step that cannot be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file's `general.architecture` is none that this crate has code for.
    #[error(
        "architecture `{name}` is not supported; known are {}{}",
        .known.join(", "),
        .nearest.map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default()
    )]
    UnknownArchitecture {
        /// The name in the file.
        name: String,
        /// Every architecture that is known.
        known: &'static [&'static str],
        /// The known name most like it, where one is close.
        nearest: Option<&'static str>,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error("tensor `{name}` is missing; the file is incomplete, or its hyper-parameters promise more than it holds")]
    MissingTensor {
        /// Name of the tensor.
        name: String,
    },
    /// A tensor's dimensions contradict the hyper-parameters.
    #[error("tensor `{name}` has dimensions {found:?}, but the hyper-parameters call for {expected:?}")]
    TensorShape {
        /// Name of the tensor.
        name: String,
        /// Dimensions in the file, fastest-running first.
        found: Vec<u64>,
        /// Dimensions that the hyper-parameters imply, fastest-running first.
        expected: Vec<usize>,
    },
    /// A tensor whose contents or role cannot be used.
    #[error("tensor `{name}` {why}")]
    InvalidTensor {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A metadata value that is out of range, contradicts another, or asks for something not implemented.
    #[error("metadata key `{key}` is {value}: {why}")]
    InvalidKey {
        /// Full name of the key.
        key: String,
        /// The value found.
        value: String,
        /// What would be acceptable, or what it contradicts.
        why: String,
    },
    /// A token id that the model has no embedding for.
    #[error("token id {id} in row {row} is outside the vocabulary of {vocab_size}")]
    TokenId {
        /// The id passed.
        id: u32,
        /// Row of the step that holds it.
        row: usize,
        /// Number of ids the model knows.
        vocab_size: usize,
    },
    /// A sequence that would grow beyond the context the model was trained for.
    #[error("a sequence of {length} tokens does not fit the model's context of {context_length}")]
    ContextOverflow {
        /// Tokens of the sequence after the step.
        length: usize,
        /// The model's context.
        context_length: usize,
    },
    /// A step or option whose parts do not fit each other or the buffers made for them.
    #[error("{what}: {found} (limit {limit})")]
    Step {
        /// What is wrong.
        what: &'static str,
        /// The number passed.
        found: usize,
        /// The number it must equal or stay within.
        limit: usize,
    },
    /// The file's metadata lacks a key or holds it in another type.
    #[error(transparent)]
    Gguf(#[from] woolly_gguf::Error),
    /// The backend refused a weight, an allocation or an operation.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

impl Error {
    /// Returns `Ok` when `condition` holds, and otherwise the [`Error::Step`] made of the rest.
    pub(crate) fn check_step(condition: bool, what: &'static str, found: usize, limit: usize) -> Result<(), Self> {
        if condition { Ok(()) } else { Err(Self::Step { what, found, limit }) }
    }
}
