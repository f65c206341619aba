//! Where requests are handed in: all that callers and the engine thread share.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use woolly_model::Decoder;

use super::slot::Slot;
use super::stats::{Counters, set};
use super::store::Store;
use crate::Error;
use crate::schedule::RequestId;

/// How the engine is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closing {
    /// Not at all.
    #[default]
    Open,
    /// When everything handed in is answered.
    Drain,
    /// At once.
    Now,
}

/// Something to do with the cache between two steps.
pub(crate) struct Errand(pub(crate) Box<Work>);

type Work = dyn FnOnce(&mut Store, &mut dyn Decoder) + Send;

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    arrivals: Vec<Slot>,
    errands: Vec<Errand>,
    abandoned: Vec<RequestId>,
    max_bytes: Option<usize>,
    next_id: u64,
    closing: Closing,
}

/// What came in since the engine thread looked last.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) arrivals: Vec<Slot>,
    pub(crate) errands: Vec<Errand>,
    pub(crate) abandoned: Vec<RequestId>,
    /// New limit of memory for the cache.
    pub(crate) max_bytes: Option<usize>,
    pub(crate) closing: Closing,
}

impl State {
    fn is_quiet(&self) -> bool {
        let nothing_came = self.arrivals.is_empty() && self.abandoned.is_empty() && self.max_bytes.is_none();
        nothing_came && self.errands.is_empty() && self.closing == Closing::Open
    }
}

/// The desk.
#[derive(Debug)]
pub(crate) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    pub(crate) counters: Counters,
    max_queued: usize,
}

impl Desk {
    pub(crate) fn new(max_queued: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), counters: Counters::default(), max_queued }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in a request, which gets its number here.
    pub(crate) fn submit(&self, make: impl FnOnce(RequestId) -> Slot) -> Result<RequestId, Error> {
        let mut state = self.lock();
        if state.closing != Closing::Open {
            return Err(Error::Stopped);
        }
        let waiting = self.counters.waiting.load(Relaxed) as usize + state.arrivals.len();
        if waiting >= self.max_queued {
            return Err(Error::QueueFull { waiting, limit: self.max_queued });
        }
        let id = RequestId(state.next_id);
        state.next_id += 1;
        state.arrivals.push(make(id));
        self.counters.submitted.fetch_add(1, Relaxed);
        drop(state);
        self.changed.notify_one();
        Ok(id)
    }

    /// Asks for something to be done with the cache.
    pub(crate) fn send(&self, errand: Errand) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closing != Closing::Open {
            return Err(Error::Stopped);
        }
        state.errands.push(errand);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Says that nobody waits for a request any more.
    pub(crate) fn abandon(&self, id: RequestId) {
        self.lock().abandoned.push(id);
        self.changed.notify_one();
    }

    /// Asks for another limit of memory for the cache.
    pub(crate) fn resize(&self, max_bytes: usize) {
        self.lock().max_bytes = Some(max_bytes);
        self.changed.notify_one();
    }

    /// Asks the engine to end; a request to end at once is not taken back.
    pub(crate) fn close(&self, how: Closing) {
        let mut state = self.lock();
        state.closing = state.closing.max(how);
        drop(state);
        self.changed.notify_one();
    }

    /// Returns whether the engine ends, or has ended, at once.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closing == Closing::Now
    }

    /// Takes what came in; `waiting` requests are with the engine thread now.
    pub(crate) fn news(&self, waiting: usize) -> News {
        let mut state = self.lock();
        let arrivals = std::mem::take(&mut state.arrivals);
        set(&self.counters.waiting, waiting + arrivals.len());
        let (abandoned, max_bytes) = (std::mem::take(&mut state.abandoned), state.max_bytes.take());
        let errands = std::mem::take(&mut state.errands);
        News { arrivals, errands, abandoned, max_bytes, closing: state.closing }
    }

    /// Waits until there is news, or until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let mut state = self.lock();
        while state.is_quiet() {
            state = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return,
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}
