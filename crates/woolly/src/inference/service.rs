//! The part of an engine that its sessions share: thread, cache and model.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use woolly_engine::kv::Fingerprint;
use woolly_engine::schedule::Policy;
use woolly_engine::{Engine, EngineOptions};
use woolly_model::RunnerOptions;
use woolly_tensor::BLOCK_TOKENS;

use super::{EngineConfig, SessionConfig, monitor};
use crate::{Error, Model};

/// A running engine.
pub(super) struct Service {
    engine: Engine,
    model: Model,
    settings: SessionConfig,
    /// Salts of sessions that share nothing; 0 is that of all others.
    next_salt: AtomicU64,
}

impl Service {
    pub(super) fn start(model: &Model, config: &EngineConfig, session: &SessionConfig) -> Result<Self, Error> {
        config.check_compression(model, &session.cache_config)?;
        let (policy, order) = session.batching.policy()?;
        let step = Duration::from_millis(config.step_ms);
        let policy = Policy { step, prefill_step: step * 5 / 2, max_queue: config.max_queue(), ..policy };
        let blocks = config.cache_blocks(model, session)?;
        let runner = RunnerOptions {
            context: blocks * BLOCK_TOKENS,
            max_rows: policy.max_rows.max(policy.max_sequences * 2),
            max_outputs: policy.max_sequences,
            storage: session.cache_config.storage(model),
        };
        let decoder = model.decoder(runner)?;
        let cache = config.cache_options(model, session);
        let (max_queued, deterministic, context) = (config.max_queued, config.deterministic, model.context());
        let options = EngineOptions { policy, order, max_queued, cache, deterministic, context };
        let engine = Engine::start(decoder, options)?;
        monitor::register(engine.stats_reader());
        Ok(Self { engine, model: model.clone(), settings: session.clone(), next_salt: AtomicU64::new(1) })
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    /// Returns what keys and values depend on beside the tokens.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let storage = self.settings.cache_config.storage(&self.model);
        let cache = format!("{:?}", self.model.cache_spec(storage));
        self.model.fingerprint().with(cache.as_bytes())
    }

    /// Returns the name space of a session's cached prompts.
    pub(super) fn salt(&self, shared: bool) -> u64 {
        if shared { 0 } else { self.next_salt.fetch_add(1, Ordering::Relaxed) }
    }

    /// Refuses a session that wants the shared parts to be different.
    pub(super) fn check_agrees(&self, config: &SessionConfig) -> Result<(), Error> {
        let (ours, theirs) = (&self.settings.cache_config, &config.cache_config);
        let why = "an open session of this engine has another setting; close it first, or use an engine of its own";
        let fields = [
            ("batching", self.settings.batching == config.batching),
            ("max_cache_mb", ours.max_cache_mb == theirs.max_cache_mb),
            ("eviction_policy", ours.eviction_policy == theirs.eviction_policy),
            ("compression", ours.compression == theirs.compression),
        ];
        match fields.into_iter().find(|(_, agrees)| !agrees) {
            Some((field, _)) => Err(Error::config(field, why)),
            None => Ok(()),
        }
    }
}
