//! Many requests on one model: the engine that people configure, and the sessions they ask.

mod answer;
mod batching;
mod config;
mod monitor;
mod service;
mod session;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::answer::{AnswerStream, Inference, InferenceResult, NextChunk};
pub use self::batching::{BatchConfig, BatchingMode, PaddingStrategy, SchedulingPolicy};
pub use self::config::{CacheConfig, EngineConfig};
pub use self::monitor::{PerformanceMetrics, PerformanceMonitor};
pub use self::session::{InferenceSession, SessionConfig};
pub use woolly_engine::Stats;
use woolly_engine::StatsReader;
pub use woolly_engine::kv::{CacheCompression, EvictionPolicy};

pub(crate) use self::monitor::record;
use self::service::Service;
use crate::{Error, Model};

/// Serves a model to any number of sessions, threads and tasks at once.
///
/// Requests of all sessions are computed together, share what their prompts have in common, and join and leave at every
/// step. The computing happens on a thread of the engine's own; callers block or await, as they like.
///
/// ```no_run
/// use woolly::prelude::*;
///
/// # async fn run() -> Result<(), woolly::Error> {
/// let engine = InferenceEngine::new(EngineConfig::high_throughput());
/// engine.load("model.gguf")?;
/// let session = engine.session()?;
/// let tokens = session.encode("Once upon a time");
/// let result = session.infer(&tokens).await?;
/// println!("{} tokens: {}", result.tokens.len(), result.text);
/// # Ok(())
/// # }
/// ```
pub struct InferenceEngine {
    config: EngineConfig,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    model: Option<Model>,
    service: Option<Arc<Service>>,
}

impl InferenceEngine {
    /// Makes an engine without a model; nothing is allocated or started yet.
    pub fn new(config: EngineConfig) -> Self {
        Self { config, state: Mutex::default() }
    }

    /// Makes an engine without a model that gathers requests into batches, with defaults for everything else.
    pub fn with_batch_config(config: BatchConfig) -> Self {
        Self::new(EngineConfig { batching: BatchingMode::Dynamic(config), ..EngineConfig::default() })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Loads the model at `path`, for the sessions opened from now on.
    ///
    /// # Errors
    /// As [`ModelBuilder::load`](crate::ModelBuilder::load); [`Error::Config`] for a setting that cannot be met;
    /// [`Error::MemoryLimit`] when weights, cache and buffers are more than the configuration allows.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let model = self.config.load(path.as_ref())?;
        self.take(model)
    }

    /// Takes a model that is loaded already, for the sessions opened from now on.
    ///
    /// # Errors
    /// [`Error::Config`] for settings that only matter while a model is loaded, as this one already is.
    pub fn load_model(&self, model: &Model) -> Result<(), Error> {
        self.config.check_loaded()?;
        self.take(model.clone())
    }

    fn take(&self, model: Model) -> Result<(), Error> {
        self.config.check_memory(&model)?;
        *self.lock() = State { model: Some(model), service: None };
        Ok(())
    }

    /// Returns the model that sessions opened now would ask.
    pub fn model(&self) -> Option<Model> {
        self.lock().model.clone()
    }

    /// Opens a session with the engine's configuration.
    ///
    /// # Errors
    /// As [`session_with`](Self::session_with).
    pub fn session(&self) -> Result<InferenceSession, Error> {
        self.session_with(self.config.session())
    }

    /// Opens a session. All sessions of an engine share its thread and its cache, so as long as one is open, others can
    /// only be opened with the same batching and the same cache size.
    ///
    /// # Errors
    /// [`Error::NoModel`] before a model is loaded; [`Error::Config`] for a setting that cannot be met or contradicts
    /// that of an open session; [`Error::OutOfMemory`] when the cache would not fit, before any of it is allocated.
    pub fn session_with(&self, config: SessionConfig) -> Result<InferenceSession, Error> {
        let mut state = self.lock();
        let model = state.model.clone().ok_or(Error::NoModel)?;
        let service = match state.service.take() {
            // Sessions are open: the engine itself holds only one.
            Some(service) if Arc::strong_count(&service) > 1 => {
                let agreed = service.check_agrees(&config);
                state.service = Some(service.clone());
                agreed?;
                service
            }
            Some(service) if service.check_agrees(&config).is_ok() => service,
            other => {
                // The old cache goes before the new one is allocated.
                drop(other);
                Arc::new(Service::start(&model, &self.config, &config)?)
            }
        };
        state.service = Some(service.clone());
        Ok(InferenceSession::new(service, config))
    }

    /// Changes the limit of memory for the cache to `mb` MiB, from the next step on; not above what it was opened with.
    /// Requests that no longer fit wait.
    ///
    /// # Errors
    /// [`Error::NoModel`] before the first session.
    pub fn resize_cache(&self, mb: usize) -> Result<(), Error> {
        let state = self.lock();
        let service = state.service.as_ref().ok_or(Error::NoModel)?;
        service.engine().resize_cache(mb.saturating_mul(1 << 20));
        Ok(())
    }

    /// Returns what the engine has done since its first session, and what it is doing; never waits for a step.
    pub fn stats(&self) -> Stats {
        self.lock().service.as_ref().map(|service| service.engine().stats()).unwrap_or_default()
    }

    fn stats_reader(&self) -> Option<StatsReader> {
        Some(self.lock().service.as_ref()?.engine().stats_reader())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InferenceEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = self.lock().model.clone();
        f.debug_struct("InferenceEngine").field("config", &self.config).field("model", &model).finish_non_exhaustive()
    }
}
