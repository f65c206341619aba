//! What an answer consists of.

use std::fmt;
use std::ops::Deref;

use woolly_engine::Timings;

/// A piece of an answer: whole characters, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Chunk {
    pub(crate) text: String,
}

impl Chunk {
    /// Returns the text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes the text out.
    pub fn into_text(self) -> String {
        self.text
    }
}

impl fmt::Display for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Deref for Chunk {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// An answer with its counts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Completion {
    /// The text.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How many tokens it took.
    pub usage: Usage,
    /// How long it took.
    pub timings: Timings,
    /// The seed of the draws: the same options with it give the same text.
    pub seed: u64,
}

/// Tokens of a prompt and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that the session had computed before.
    pub cached_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
}

impl Usage {
    /// Returns the tokens of prompt and answer together.
    pub fn total_tokens(&self) -> usize {
        self.prompt_tokens + self.completion_tokens
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it.
    EndOfText,
    /// This stop string was found.
    StopString(String),
    /// The most tokens asked for were generated.
    MaxTokens,
    /// The context has no room for another token.
    ContextFull,
    /// It was stopped from outside.
    Cancelled,
    /// An error ended it.
    Failed,
}

impl FinishReason {
    /// Returns a stable name: `stop`, `stop_string`, `length`, `context_full`, `cancelled`, `error`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EndOfText => "stop",
            Self::StopString(_) => "stop_string",
            Self::MaxTokens => "length",
            Self::ContextFull => "context_full",
            Self::Cancelled => "cancelled",
            Self::Failed => "error",
        }
    }

    pub(crate) fn from_engine(reason: Option<woolly_engine::FinishReason>) -> Self {
        use woolly_engine::FinishReason as Engine;
        match reason {
            Some(Engine::EndOfGeneration(_)) => Self::EndOfText,
            Some(Engine::Length) => Self::MaxTokens,
            Some(Engine::ContextFull) => Self::ContextFull,
            Some(Engine::Failed) => Self::Failed,
            _ => Self::Cancelled,
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
