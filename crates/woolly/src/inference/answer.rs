//! Answers in progress: a future of the whole, or a stream of its pieces.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use woolly_engine::{Timings, TokenStream};

use super::service::Service;
use crate::Error;
use crate::completion::{Chunk, Completion, FinishReason, Usage};
use crate::session::TextOut;

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct InferenceResult {
    /// The tokens generated.
    pub tokens: Vec<u32>,
    /// Their text, without a stop string.
    pub text: String,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// How many tokens it took.
    pub usage: Usage,
    /// How long it took, the wait for its turn included.
    pub timings: Timings,
    /// The seed of the draws.
    pub seed: u64,
}

/// Tokens on their way, and what they have become so far.
pub(super) struct Answer {
    source: TokenStream,
    out: TextOut,
    tokens: Vec<u32>,
    text: String,
    finish: Option<FinishReason>,
    /// The engine runs at least as long as its answers do.
    _service: Arc<Service>,
}

impl Answer {
    pub(super) fn new(source: TokenStream, out: TextOut, service: Arc<Service>) -> Self {
        Self { source, out, tokens: Vec::new(), text: String::new(), finish: None, _service: service }
    }

    /// Takes in what the engine sent; returns the text that became certain.
    fn take(&mut self, token: Option<Result<u32, woolly_engine::Error>>) -> Result<String, Error> {
        let (text, stop) = match token.transpose() {
            Ok(Some(id)) => {
                self.tokens.push(id);
                self.out.push(id)
            }
            Ok(None) => {
                self.finish = Some(FinishReason::from_engine(self.source.finish_reason()));
                Ok(self.out.finish())
            }
            Err(error) => Err(error.into()),
        }
        .inspect_err(|_| self.finish = Some(FinishReason::Failed))?;
        if let Some(stop) = stop {
            self.finish = Some(FinishReason::StopString(stop));
        }
        self.text.push_str(&text);
        Ok(text)
    }

    /// Waits for the next piece of text that is not empty.
    fn wait(&mut self) -> Option<Result<String, Error>> {
        while self.finish.is_none() {
            let token = self.source.next();
            match self.take(token) {
                Ok(text) if text.is_empty() => {}
                other => return Some(other),
            }
        }
        None
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Result<String, Error>>> {
        while self.finish.is_none() {
            let Poll::Ready(token) = self.source.poll_token(context) else { return Poll::Pending };
            match self.take(token) {
                Ok(text) if text.is_empty() => {}
                other => return Poll::Ready(Some(other)),
            }
        }
        Poll::Ready(None)
    }

    fn usage(&self) -> Usage {
        let timings = self.source.timings();
        Usage {
            prompt_tokens: timings.prompt_tokens,
            cached_tokens: timings.cached_tokens,
            completion_tokens: self.tokens.len(),
        }
    }

    fn finish_reason(&self) -> FinishReason {
        self.finish.clone().unwrap_or(FinishReason::Cancelled)
    }

    fn result(&mut self) -> InferenceResult {
        let usage = self.usage();
        InferenceResult {
            tokens: std::mem::take(&mut self.tokens),
            text: std::mem::take(&mut self.text),
            finish_reason: self.finish_reason(),
            usage,
            timings: self.source.timings(),
            seed: self.source.seed(),
        }
    }
}

/// A future of a whole answer, which needs no particular executor. Dropping it cancels the request.
#[must_use = "dropping it cancels the request; await it or call `wait`"]
pub struct Inference(State);

enum State {
    Running(Box<Answer>),
    Failed(Error),
    Done,
}

impl Inference {
    pub(super) fn new(answer: Result<Answer, Error>) -> Self {
        Self(answer.map_or_else(State::Failed, |answer| State::Running(Box::new(answer))))
    }

    /// Blocks until the answer is complete.
    ///
    /// # Errors
    /// Why the request was refused, or what ended the answer early.
    pub fn wait(self) -> Result<InferenceResult, Error> {
        match self.0 {
            State::Running(mut answer) => {
                while let Some(text) = answer.wait() {
                    text?;
                }
                Ok(answer.result())
            }
            State::Failed(error) => Err(error),
            State::Done => Err(Error::Cancelled),
        }
    }
}

impl Future for Inference {
    type Output = Result<InferenceResult, Error>;

    /// Polled again after the result was returned, it says that it was cancelled.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let output = match &mut self.0 {
            State::Running(answer) => loop {
                match answer.poll(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(error))) => break Err(error),
                    Poll::Ready(None) => break Ok(answer.result()),
                }
            },
            State::Failed(_) | State::Done => match std::mem::replace(&mut self.0, State::Done) {
                State::Failed(error) => Err(error),
                _ => Err(Error::Cancelled),
            },
        };
        self.0 = State::Done;
        Poll::Ready(output)
    }
}

impl fmt::Debug for Inference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inference(..)")
    }
}

/// An answer in progress: a blocking iterator over pieces of text, or with [`next_chunk`](Self::next_chunk) a source for
/// tasks of any executor. Dropping it cancels the request.
pub struct AnswerStream(Answer);

impl AnswerStream {
    pub(super) fn new(answer: Answer) -> Self {
        Self(answer)
    }

    /// Returns a future of the next piece, `None` at the end.
    pub fn next_chunk(&mut self) -> NextChunk<'_> {
        NextChunk(self)
    }

    /// Returns the tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.0.tokens
    }

    /// Ends the answer here and returns it with counts and timings; complete if the stream was read to its end.
    pub fn finish(self) -> Completion {
        Completion {
            text: self.0.text.clone(),
            finish_reason: self.0.finish_reason(),
            usage: self.0.usage(),
            timings: self.0.source.timings(),
            seed: self.0.source.seed(),
        }
    }
}

impl Iterator for AnswerStream {
    type Item = Result<Chunk, Error>;

    /// Waits for the next piece that is complete: whole characters, and no part of a stop string.
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.wait()?.map(|text| Chunk { text }))
    }
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("tokens", &self.0.tokens.len()).finish_non_exhaustive()
    }
}

/// The next piece of an answer, as a future.
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct NextChunk<'a>(&'a mut AnswerStream);

impl Future for NextChunk<'_> {
    type Output = Option<Result<Chunk, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.0.poll(context).map(|text| Some(text?.map(|text| Chunk { text })))
    }
}
