//! What can go wrong between a request and its tokens.

/// A request that cannot be served, or a failure while serving it; the generator stays usable after each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sampling parameter outside its range.
    #[error("{name} is {value}, but must be {allowed}")]
    Parameter {
        /// Name of the field.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The prompt has more tokens than the context has room for.
    #[error("the prompt has {n_prompt} tokens, but the context holds only {n_ctx}")]
    PromptTooLong {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens the context holds.
        n_ctx: usize,
    },
    /// The prompt has more tokens than the whole cache has room for.
    #[error("the prompt has {n_prompt} tokens, but the cache holds only {cache_tokens} in all")]
    CacheTooSmall {
        /// Tokens of the prompt, and of the answer so far.
        n_prompt: usize,
        /// Tokens that the cache holds.
        cache_tokens: usize,
    },
    /// The limit of memory leaves room for no cache block at all.
    #[error("the cache's limit of memory is too small: {0}")]
    NoCache(#[from] crate::kv::NoSpace),
    /// Too many requests wait already.
    #[error("{waiting} requests wait already, and no more than {limit} may; try again later")]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// Most that may.
        limit: usize,
    },
    /// The engine was shut down, or its thread died, before the answer was complete.
    #[error("the engine has stopped")]
    Stopped,
    /// The operating system gave no thread for the engine.
    #[error("the engine's thread could not be started: {0}")]
    Thread(#[source] std::io::Error),
    /// A prompt token that the model does not know.
    #[error("prompt token {index} has id {id}, but the vocabulary has only {vocab_size} tokens")]
    UnknownToken {
        /// Its place in the prompt.
        index: usize,
        /// Its id.
        id: u32,
        /// Number of tokens of the vocabulary.
        vocab_size: usize,
    },
    /// The model computed a logit that is NaN or infinite: damaged weights, or an overflow.
    #[error("the model computed {value} as the logit of token {id}; its weights may be damaged")]
    NumericFault {
        /// The first token concerned.
        id: u32,
        /// The value.
        value: f32,
    },
    /// The samplers left nothing to choose from.
    #[error("no token is left to choose from")]
    NoCandidates,
    /// A session could not be saved or restored.
    #[error(transparent)]
    Session(#[from] crate::kv::SessionError),
    /// The decoder failed.
    #[error(transparent)]
    Model(#[from] woolly_model::Error),
}
