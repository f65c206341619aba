//! What a run is asked for, and how it ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, SamplingParams};

/// A prompt to continue, in token ids.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The prompt, with whatever token begins a sequence already in front.
    pub prompt: &'a [u32],
    /// Most tokens to generate; `None` goes on to the end of the context.
    pub max_tokens: Option<usize>,
    /// How tokens are drawn.
    pub sampling: SamplingParams,
    /// Tokens that end the answer.
    pub end_ids: Arc<[u32]>,
    /// Stops the run from outside.
    pub cancel: CancelToken,
}

/// Refuses a prompt that is empty, longer than `context`, or has an id outside a vocabulary of `vocab_size`.
pub(crate) fn check_prompt(prompt: &[u32], context: usize, vocab_size: usize) -> Result<(), Error> {
    let (n_prompt, n_ctx) = (prompt.len(), context);
    if prompt.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if n_prompt > n_ctx {
        return Err(Error::PromptTooLong { n_prompt, n_ctx });
    }
    match prompt.iter().position(|&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(index) => Err(Error::UnknownToken { index, id: prompt[index], vocab_size }),
    }
}

/// Why a run produced no further token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model chose this token of [`Request::end_ids`], which is not part of the output.
    EndOfGeneration(u32),
    /// [`Request::max_tokens`] was reached.
    Length,
    /// The context has no room for another token.
    ContextFull,
    /// [`CancelToken::cancel`] was called.
    Cancelled,
    /// An error, returned as the last item, ended it.
    Failed,
}

/// A switch that stops a run before its next token or prefill chunk; clones share the switch.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Makes a switch that is off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops every run that holds a clone; may be called from any thread and from a signal handler.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
