//! The way of a request's tokens from the engine thread to whoever asked: readable by a blocking thread and by a task
//! of any executor. Neither side ever waits for the other: what is not read yet is at most one answer.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::{Error, FinishReason, Timings};

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Result<FinishReason, Error>,
    pub(crate) timings: Timings,
}

/// A token, and when it was drawn.
pub(crate) type Timed = (u32, Instant);

#[derive(Debug)]
pub(crate) enum Mail {
    Token(Timed),
    Ending(Ending),
}

#[derive(Debug, Default)]
struct State {
    tokens: VecDeque<Timed>,
    ending: Option<Ending>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Mailbox {
    /// A panic elsewhere leaves nothing half-done here: every change is a single assignment.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take();
        // Woken outside the lock, as the waker is foreign code.
        drop(state);
        self.changed.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Mail> {
        self.tokens.pop_front().map(Mail::Token).or_else(|| self.ending.take().map(Mail::Ending))
    }
}

/// Makes the two ends.
pub(crate) fn mailbox() -> (Outbox, Inbox) {
    let shared = Arc::new(Mailbox::default());
    (Outbox { shared: shared.clone(), ended: false }, Inbox { shared })
}

/// The engine's end. Dropped without an ending, it says that the engine stopped.
#[derive(Debug)]
pub(crate) struct Outbox {
    shared: Arc<Mailbox>,
    ended: bool,
}

impl Outbox {
    pub(crate) fn token(&self, token: Timed) {
        self.shared.change(|state| state.tokens.push_back(token));
    }

    pub(crate) fn end(mut self, ending: Ending) {
        self.ended = true;
        self.shared.change(|state| state.ending = Some(ending));
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        if !self.ended {
            let ending = Ending { outcome: Err(Error::Stopped), timings: Timings::default() };
            self.shared.change(|state| state.ending = Some(ending));
        }
    }
}

/// The asker's end. After the [`Mail::Ending`] nothing comes; asking again would wait for ever.
#[derive(Debug)]
pub(crate) struct Inbox {
    shared: Arc<Mailbox>,
}

impl Inbox {
    /// Waits for the next piece of mail.
    pub(crate) fn wait(&self) -> Mail {
        let mut state = self.shared.lock();
        loop {
            if let Some(mail) = state.take() {
                return mail;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the next piece of mail, or has the task woken when there is one.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<Mail> {
        let mut state = self.shared.lock();
        match state.take() {
            Some(mail) => Poll::Ready(mail),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
