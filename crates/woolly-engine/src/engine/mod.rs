//! Many requests on one decoder.
//!
//! One thread owns decoder, cache and scheduler. Callers hand requests in with [`Engine::submit`] and read a
//! [`TokenStream`], blocking or as a task of any executor. Requests join and leave at every step; dropping a stream
//! cancels its request, and a request that fails takes no other with it.

mod core;
mod desk;
mod mailbox;
mod slot;
mod stats;
mod store;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use woolly_model::Decoder;
use woolly_tensor::BLOCK_TOKENS;

use self::core::Core;
use self::desk::{Closing, Desk, Errand};
use self::slot::Slot;
pub use self::stats::Stats;
pub use self::store::CacheOptions;
use self::store::Store;
pub use self::stream::{Next, TokenStream};
use crate::kv::{Fingerprint, Restored, SessionError};
use crate::schedule::{Order, Policy, Queue};
use crate::{Error, Request, check_prompt};

/// How an [`Engine`] works.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// The rules of scheduling.
    pub policy: Policy,
    /// In which order waiting requests are served.
    pub order: Order,
    /// Most requests that may wait; more are refused at once.
    pub max_queued: usize,
    /// How keys and values are kept.
    pub cache: CacheOptions,
    /// Whether answers are the same, token for token, in any company, order and state of the cache: steps are then so
    /// small that every token goes through the same kernels. Prompts take several times as long.
    pub deterministic: bool,
    /// Most tokens of a sequence; the model's own limit and the size of the cache bound it further.
    pub context: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            order: Order::default(),
            max_queued: 16_384,
            cache: CacheOptions::default(),
            deterministic: false,
            context: usize::MAX,
        }
    }
}

/// A request with its place among others.
#[derive(Clone, Debug)]
pub struct Submission<'a> {
    /// The request itself.
    pub request: Request<'a>,
    /// Whom its tokens are counted for: an API key, a user. The empty name is a flow like any other.
    pub flow: Arc<str>,
    /// The flow's share relative to others, from now on; above 0.
    pub weight: f64,
    /// Larger is served first and preempted last.
    pub priority: i32,
    /// Only requests with equal salts share cached beginnings of their prompts.
    pub salt: u64,
}

impl<'a> From<Request<'a>> for Submission<'a> {
    /// In the flow without name, of weight 1 and priority 0, sharing with all others that say nothing.
    fn from(request: Request<'a>) -> Self {
        Self { request, flow: Arc::from(""), weight: 1.0, priority: 0, salt: 0 }
    }
}

/// A decoder that serves any number of callers.
pub struct Engine {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
    context: usize,
    vocab_size: usize,
}

impl Engine {
    /// Starts the engine's thread, which owns the decoder from now on.
    ///
    /// # Errors
    /// [`Error::NoCache`] when the limit of memory leaves room for no block; [`Error::Thread`] when the operating system
    /// gives no thread.
    pub fn start(decoder: Box<dyn Decoder>, options: EngineOptions) -> Result<Self, Error> {
        let EngineOptions { policy, order, max_queued, cache, deterministic, context } = options;
        let max_rows = if deterministic { decoder.uniform_rows() } else { usize::MAX };
        let grid = if deterministic { 1 << policy.max_rows.min(max_rows).max(1).ilog2() } else { usize::MAX };
        let policy = policy.within(max_rows.min(decoder.max_rows()), decoder.max_outputs());
        let context = context.min(decoder.config().context_length);
        let store = Store::new(&*decoder, cache, policy.max_sequences, context)?;
        let context = context.min(store.total() * BLOCK_TOKENS);
        let vocab_size = decoder.config().vocab_size;
        let desk = Arc::new(Desk::new(max_queued));
        let core = Core::new(desk.clone(), decoder, store, policy, Queue::new(order), context, grid);
        // The size of the cache is known from the start, whenever the thread first runs.
        core.report();
        let guard = CloseOnExit(desk.clone());
        let work = move || {
            let _guard = guard;
            core.run();
        };
        let thread = thread::Builder::new().name("woolly-engine".to_owned()).spawn(work).map_err(Error::Thread)?;
        Ok(Self { desk, thread: Some(thread), context, vocab_size })
    }

    /// Returns the most tokens a sequence can have.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Hands a request in; its tokens come through the stream. Does not wait.
    ///
    /// # Errors
    /// [`Error::EmptyPrompt`], [`Error::PromptTooLong`], [`Error::UnknownToken`], [`Error::Parameter`] for what can
    /// never be served; [`Error::QueueFull`] when too many wait; [`Error::Stopped`] after a shutdown.
    pub fn submit<'a>(&self, submission: impl Into<Submission<'a>>) -> Result<TokenStream, Error> {
        let submission = submission.into();
        check_prompt(submission.request.prompt, self.context, self.vocab_size)?;
        submission.request.sampling.validate()?;
        if !(submission.weight.is_finite() && submission.weight > 0.0) {
            let value = submission.weight.to_string();
            return Err(Error::Parameter { name: "weight", value, allowed: "a number above 0" });
        }
        let seed = slot::seed(&submission.request.sampling);
        let (outbox, inbox) = mailbox::mailbox();
        let id = self.desk.submit(|id| Slot::new(id, submission, seed, outbox))?;
        Ok(TokenStream::new(id, seed, inbox, self.desk.clone()))
    }

    /// Changes the limit of memory for the cache, from the next step on. Requests that no longer fit wait; a limit below
    /// one block changes nothing.
    pub fn resize_cache(&self, max_bytes: usize) {
        self.desk.resize(max_bytes);
    }

    /// Writes what the cache has of these tokens, and returns how many that are; the rest would have to be computed again.
    /// Waits for the step in progress; the engine computes nothing meanwhile.
    ///
    /// # Errors
    /// [`Error::Session`] when writing fails or running requests leave no room to bring blocks back; [`Error::Stopped`].
    pub fn save_session(
        &self,
        tokens: &[u32],
        salt: u64,
        fingerprint: Fingerprint,
        mut out: impl Write + Send + 'static,
    ) -> Result<usize, Error> {
        let tokens = tokens.to_vec();
        self.between_steps(move |store, decoder| store.save(decoder, tokens, salt, fingerprint, &mut out))
    }

    /// Reads what [`save_session`](Self::save_session) wrote into the cache, for requests with this salt. Waits as that does.
    ///
    /// # Errors
    /// [`Error::Session`] when the file is damaged, belongs to another model or does not fit; [`Error::Stopped`].
    pub fn restore_session(
        &self,
        salt: u64,
        fingerprint: Fingerprint,
        mut input: impl Read + Send + 'static,
    ) -> Result<Restored, Error> {
        self.between_steps(move |store, decoder| store.restore(decoder, salt, fingerprint, &mut input))
    }

    fn between_steps<T: Send + 'static>(
        &self,
        errand: impl FnOnce(&mut Store, &mut dyn Decoder) -> Result<T, SessionError> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = mpsc::channel();
        let errand = move |store: &mut Store, decoder: &mut dyn Decoder| {
            // Whoever does not wait any more does not want to know.
            let _ = sender.send(errand(store, decoder));
        };
        self.desk.send(Errand(Box::new(errand)))?;
        Ok(receiver.recv().map_err(|_| Error::Stopped)??)
    }

    /// Returns what the engine has done and is doing; never waits for a step.
    pub fn stats(&self) -> Stats {
        self.desk.counters.read()
    }

    /// Takes no further requests, answers those handed in, and ends.
    pub fn shutdown(mut self) {
        self.join(Closing::Drain);
    }

    /// Returns a reader of the same numbers that does not keep the engine running.
    pub fn stats_reader(&self) -> StatsReader {
        StatsReader(self.desk.clone())
    }

    fn join(&mut self, how: Closing) {
        self.desk.close(how);
        // A waker that drops the last engine runs on the engine's own thread, which cannot wait for itself.
        let thread = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id());
        if let Some(thread) = thread {
            // A panic there has been reported by the panic hook, and every stream says that the engine stopped.
            drop(thread.join());
        }
    }
}

impl Drop for Engine {
    /// Stops at once: unfinished streams end with [`Error::Stopped`].
    fn drop(&mut self) {
        self.join(Closing::Now);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("context", &self.context).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Reads an engine's numbers, also after it ended.
#[derive(Clone, Debug)]
pub struct StatsReader(Arc<Desk>);

impl StatsReader {
    /// Returns what the engine has done and is doing; never waits for a step.
    pub fn read(&self) -> Stats {
        self.0.counters.read()
    }

    /// Returns whether the engine takes no further requests.
    pub fn has_ended(&self) -> bool {
        self.0.is_closed()
    }
}

/// Refuses and drops what is at the desk when the engine's thread ends, however it does.
struct CloseOnExit(Arc<Desk>);

impl Drop for CloseOnExit {
    fn drop(&mut self) {
        self.0.close(Closing::Now);
        drop(self.0.news(0));
    }
}
