//! The one error type of this crate: what happened, of which kind, and what to do.

use woolly_tensor::BackendError;

/// Anything that can go wrong between a path and an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be opened or is no valid GGUF file.
    #[error(transparent)]
    File(#[from] woolly_gguf::Error),
    /// A file cannot be written: the disk is full, or the folder is absent or closed to this user.
    #[error(transparent)]
    Output(woolly_gguf::Error),
    /// The file is valid, but the model in it cannot be run.
    #[error(transparent)]
    Model(#[from] woolly_model::Error),
    /// The tokenizer or the chat template cannot be built or used.
    #[error(transparent)]
    Text(#[from] woolly_text::Error),
    /// A request is out of range, or failed while it was served.
    #[error(transparent)]
    Engine(woolly_engine::Error),
    /// The processor backend could not be set up.
    #[error(transparent)]
    Cpu(#[from] woolly_cpu::CpuError),
    /// A model was not quantised.
    #[error(transparent)]
    Quantize(#[from] crate::quantize::QuantizeError),
    /// The memory for a session would not fit.
    #[error(
        "a context of {context} tokens needs {} for keys and values and {} for computing, but only {} are available",
        Bytes(*.cache_bytes), Bytes(*.compute_bytes), Bytes(*.available_bytes)
    )]
    OutOfMemory {
        /// The context asked for, in tokens.
        context: usize,
        /// Bytes of its keys and values.
        cache_bytes: u64,
        /// Bytes of the buffers of a step.
        compute_bytes: u64,
        /// Bytes that can be allocated.
        available_bytes: u64,
        /// The largest context that fits, in tokens; `None` when none does.
        largest_context: Option<usize>,
    },
    /// A context larger than the model was made for.
    #[error("a context of {asked} tokens is more than the {limit} the model was made for")]
    ContextTooLong {
        /// The context asked for, in tokens.
        asked: usize,
        /// The model's context, in tokens.
        limit: usize,
    },
    /// A text too short to be measured.
    #[error("the text has {found} tokens, but one window needs {needed}")]
    TextTooShort {
        /// Tokens of the text.
        found: usize,
        /// Tokens of a window.
        needed: usize,
    },
    /// Two models that were to be compared do not have the same tokens.
    #[error("the models cannot be compared: {why}")]
    Vocabulary {
        /// In what they differ.
        why: String,
    },
    /// A setting that cannot be met, or contradicts another.
    #[error("`{field}` cannot be as it is set: {why}")]
    Config {
        /// Name of the setting.
        field: &'static str,
        /// The reason, and what to do.
        why: String,
    },
    /// An inference engine was asked before it had a model.
    #[error("the engine has no model yet; load one first")]
    NoModel,
    /// Weights, cache and buffers are more than the configuration allows.
    #[error(
        "a memory limit of {} is too little for {} of weights, {} of buffers and {} of cache",
        Bytes(*.limit_bytes), Bytes(*.weight_bytes), Bytes(*.compute_bytes), Bytes(*.cache_bytes)
    )]
    MemoryLimit {
        /// Bytes allowed.
        limit_bytes: u64,
        /// Bytes of the model's weights.
        weight_bytes: u64,
        /// Bytes of the buffers of a step.
        compute_bytes: u64,
        /// Bytes of cache asked for, or of the least that would do.
        cache_bytes: u64,
    },
    /// The answer was stopped from outside before it was complete.
    #[error("cancelled")]
    Cancelled,
}

/// What a caller may want to distinguish, stable where the variants of [`Error`] are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The file is missing, unreadable, damaged or not a model.
    InvalidModel,
    /// The file is sound, but this version cannot run it.
    UnsupportedModel,
    /// Memory is short.
    OutOfMemory,
    /// A parameter of the request is wrong.
    InvalidRequest,
    /// The prompt does not fit the context.
    ContextExceeded,
    /// Too many requests wait already: the same request may succeed later.
    Busy,
    /// The chat template is missing, invalid or refused the conversation.
    Template,
    /// The model computed something that is not a number.
    NumericFault,
    /// The request was cancelled.
    Cancelled,
    /// The machine or its configuration failed.
    Device,
}

impl Error {
    /// Makes the refusal of a setting.
    pub(crate) fn config(field: &'static str, why: impl Into<String>) -> Self {
        Self::Config { field, why: why.into() }
    }

    /// Returns what kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File(_) => ErrorKind::InvalidModel,
            Self::Model(error) => model_kind(error),
            Self::Text(error) => text_kind(error),
            Self::Engine(error) => engine_kind(error),
            Self::Cpu(_) | Self::Output(_) => ErrorKind::Device,
            Self::Quantize(error) => error.kind(),
            Self::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Self::ContextTooLong { .. } | Self::TextTooShort { .. } | Self::Vocabulary { .. } => {
                ErrorKind::InvalidRequest
            }
            Self::Config { .. } | Self::NoModel => ErrorKind::InvalidRequest,
            Self::MemoryLimit { .. } => ErrorKind::OutOfMemory,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }

    /// Returns what to do about it, where there is advice beyond the message.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OutOfMemory { largest_context: Some(largest), .. } => {
                Some(format!("use a context of at most {largest} tokens"))
            }
            Self::OutOfMemory { .. } => Some("free memory, raise the limit, or use a smaller model".to_owned()),
            Self::ContextTooLong { limit, .. } => {
                Some(format!("use a context of at most {limit} tokens, or 0 for that"))
            }
            Self::Vocabulary { .. } => Some("name two quantisations of the same model".to_owned()),
            Self::TextTooShort { .. } => Some("give a longer text or a smaller window".to_owned()),
            Self::Engine(woolly_engine::Error::PromptTooLong { n_prompt, .. }) => {
                Some(format!("shorten the prompt, or load the model with a context above {n_prompt} tokens"))
            }
            Self::Quantize(error) => error.hint(),
            Self::Output(_) => Some("free space there, or name a file in a folder that you may write to".to_owned()),
            Self::Engine(woolly_engine::Error::EmptyPrompt) => Some("give some text to continue".to_owned()),
            _ => kind_hint(self.kind()),
        }
    }
}

impl From<woolly_engine::Error> for Error {
    /// A failure of the model stays one, whichever layer met it.
    fn from(error: woolly_engine::Error) -> Self {
        match error {
            woolly_engine::Error::Model(error) => Self::Model(error),
            error => Self::Engine(error),
        }
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Self {
        Self::Model(error.into())
    }
}

fn model_kind(error: &woolly_model::Error) -> ErrorKind {
    use woolly_model::Error as E;
    match error {
        E::UnknownArchitecture { .. } => ErrorKind::UnsupportedModel,
        E::Backend(BackendError::OutOfMemory { .. }) => ErrorKind::OutOfMemory,
        E::Backend(BackendError::UnsupportedType { .. } | BackendError::Unsupported { .. }) => {
            ErrorKind::UnsupportedModel
        }
        E::Backend(BackendError::Device { .. }) => ErrorKind::Device,
        E::TokenId { .. } | E::ContextOverflow { .. } | E::Step { .. } => ErrorKind::InvalidRequest,
        _ => ErrorKind::InvalidModel,
    }
}

fn text_kind(error: &woolly_text::Error) -> ErrorKind {
    use woolly_text::Error as E;
    match error {
        E::UnknownModel { .. } | E::UnknownPreTokenizer { .. } => ErrorKind::UnsupportedModel,
        E::TokenOutOfRange { .. } | E::EmptyStop { .. } => ErrorKind::InvalidRequest,
        E::NoTemplate | E::BadTemplate { .. } | E::Raised { .. } | E::TemplateLimit { .. } | E::Render { .. } => {
            ErrorKind::Template
        }
        _ => ErrorKind::InvalidModel,
    }
}

fn engine_kind(error: &woolly_engine::Error) -> ErrorKind {
    use woolly_engine::Error as E;
    match error {
        E::PromptTooLong { .. } => ErrorKind::ContextExceeded,
        E::NumericFault { .. } | E::NoCandidates => ErrorKind::NumericFault,
        E::Model(error) => model_kind(error),
        E::CacheTooSmall { .. } => ErrorKind::ContextExceeded,
        E::QueueFull { .. } => ErrorKind::Busy,
        E::Stopped | E::Thread(_) => ErrorKind::Device,
        _ => ErrorKind::InvalidRequest,
    }
}

fn kind_hint(kind: ErrorKind) -> Option<String> {
    let hint = match kind {
        ErrorKind::UnsupportedModel => "a newer version of woolly may support it",
        ErrorKind::NumericFault => "download the model again, or try another quantisation of it",
        ErrorKind::Template => "give the prompt as plain text, without the template",
        ErrorKind::OutOfMemory => "use a smaller context or a smaller model",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Bytes, written as MiB or GiB.
struct Bytes(u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const GIB: f64 = (1_u64 << 30) as f64;
        const MIB: f64 = (1_u64 << 20) as f64;
        let bytes = self.0 as f64;
        if bytes >= GIB { write!(f, "{:.2} GiB", bytes / GIB) } else { write!(f, "{:.1} MiB", bytes / MIB) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_errors_give_the_numbers_and_the_way_out() {
        let error = |largest_context| Error::OutOfMemory {
            context: 131_072,
            cache_bytes: 16 << 30,
            compute_bytes: 300 << 20,
            available_bytes: 8 << 30,
            largest_context,
        };
        let text = error(None).to_string();
        assert!(["131072", "16.00 GiB", "300.0 MiB", "8.00 GiB"].iter().all(|part| text.contains(part)), "{text}");
        assert!(error(Some(4096)).hint().is_some_and(|hint| hint.contains("4096")));
        assert_eq!(error(None).kind(), ErrorKind::OutOfMemory);
    }

    #[test]
    fn a_failure_of_the_model_keeps_its_kind_through_the_engine() {
        let memory = || BackendError::OutOfMemory { what: "cache", bytes: 1 };
        assert_eq!(Error::from(memory()).kind(), ErrorKind::OutOfMemory);
        let through_engine = woolly_engine::Error::from(woolly_model::Error::from(memory()));
        assert!(matches!(Error::from(through_engine), Error::Model(_)));
    }
}
