//! The tokens of a request as they are drawn.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::desk::Desk;
use super::mailbox::{Inbox, Mail};
use crate::schedule::RequestId;
use crate::{Error, FinishReason, Timings};

/// An answer in progress: a blocking iterator of token ids, or with [`next_token`](Self::next_token) a source for tasks
/// of any executor. Dropping it cancels the request.
#[derive(Debug)]
pub struct TokenStream {
    id: RequestId,
    seed: u64,
    inbox: Inbox,
    desk: Arc<Desk>,
    finish: Option<FinishReason>,
    timings: Timings,
    drawn: Option<Instant>,
}

impl TokenStream {
    pub(super) fn new(id: RequestId, seed: u64, inbox: Inbox, desk: Arc<Desk>) -> Self {
        Self { id, seed, inbox, desk, finish: None, timings: Timings::default(), drawn: None }
    }

    /// Returns the request's number.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Returns the seed of the draws.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns why there is no further token, or `None` while there may be.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish
    }

    /// Returns counts and durations, complete once the stream has ended.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// Returns when the token returned last was drawn, which may be long before it was asked for.
    pub fn drawn_at(&self) -> Option<Instant> {
        self.drawn
    }

    /// Returns the next token, `None` at the end, or has the task woken when there is something.
    pub fn poll_token(&mut self, context: &Context<'_>) -> Poll<Option<Result<u32, Error>>> {
        if self.finish.is_some() {
            return Poll::Ready(None);
        }
        self.inbox.poll(context).map(|mail| self.open(mail))
    }

    /// Returns a future of the next token, `None` at the end.
    pub fn next_token(&mut self) -> Next<'_> {
        Next(self)
    }

    fn open(&mut self, mail: Mail) -> Option<Result<u32, Error>> {
        match mail {
            Mail::Token((id, drawn)) => {
                self.drawn = Some(drawn);
                Some(Ok(id))
            }
            Mail::Ending(ending) => {
                self.timings = ending.timings;
                self.finish = Some(*ending.outcome.as_ref().unwrap_or(&FinishReason::Failed));
                ending.outcome.err().map(Err)
            }
        }
    }
}

impl Iterator for TokenStream {
    type Item = Result<u32, Error>;

    /// Waits for the next token. An error is the last item.
    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() {
            return None;
        }
        let mail = self.inbox.wait();
        self.open(mail)
    }
}

impl Drop for TokenStream {
    fn drop(&mut self) {
        if self.finish.is_none() {
            self.desk.abandon(self.id);
        }
    }
}

/// The next token of a stream, as a future.
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Next<'a>(&'a mut TokenStream);

impl Future for Next<'_> {
    type Output = Option<Result<u32, Error>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_token(context)
    }
}
