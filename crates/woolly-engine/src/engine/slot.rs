//! A request on the engine thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Submission;
use super::mailbox::{Ending, Outbox};
use super::store::Store;
use crate::kv::SeqId;
use crate::schedule::{Active, RequestId, Waiting};
use crate::{CancelToken, Error, FinishReason, Request, Rng, SamplerChain, SamplingParams, Timings};

/// A request from when it is handed in to its end. While it waits it holds little more than its prompt.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: RequestId,
    pub(crate) flow: Arc<str>,
    pub(crate) weight: f64,
    pub(crate) salt: u64,
    priority: i32,
    /// Tokens known: the prompt and what was generated.
    pub(crate) tokens: Vec<u32>,
    pub(crate) computed: usize,
    limit: usize,
    sampling: SamplingParams,
    end_ids: Arc<[u32]>,
    cancel: CancelToken,
    /// Made when it first starts, kept over preemptions.
    pub(crate) chain: Option<SamplerChain>,
    /// Its place in the cache, from its first start on.
    pub(crate) seq: Option<SeqId>,
    pub(crate) runs: bool,
    outbox: Outbox,
    arrived: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
    pub(crate) timings: Timings,
}

impl Slot {
    /// Takes a checked request over.
    pub(crate) fn new(id: RequestId, submission: Submission<'_>, seed: u64, outbox: Outbox) -> Self {
        let Submission { request, flow, weight, priority, salt } = submission;
        let Request { prompt, max_tokens, sampling, end_ids, cancel } = request;
        Self {
            id,
            flow,
            weight,
            salt,
            priority,
            tokens: prompt.to_vec(),
            computed: 0,
            limit: max_tokens.unwrap_or(usize::MAX),
            sampling: SamplingParams { seed: Some(seed), ..sampling },
            end_ids,
            cancel,
            chain: None,
            seq: None,
            runs: false,
            outbox,
            arrived: Instant::now(),
            started: None,
            first_token: None,
            timings: Timings { prompt_tokens: prompt.len(), ..Timings::default() },
        }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Returns the request as the queue sees it.
    pub(crate) fn waiting(&self, since: Instant) -> Waiting {
        Waiting {
            id: self.id,
            flow: self.flow.clone(),
            priority: self.priority,
            arrived: self.arrived.saturating_duration_since(since),
            known: self.tokens.len(),
            charged: self.started.is_some(),
        }
    }

    /// Returns the request as the planner sees it, if it runs.
    pub(crate) fn active(&self, store: &Store) -> Option<Active> {
        let seq = self.seq.as_ref().filter(|_| self.runs)?;
        let (needed, owned) = store.demand(seq, self.tokens.len() - self.computed);
        Some(Active {
            id: self.id,
            flow: self.flow.clone(),
            priority: self.priority,
            known: self.tokens.len(),
            computed: self.computed,
            needed,
            owned,
        })
    }

    /// Notes that it starts, or goes on, with its first `computed` tokens.
    pub(crate) fn start(&mut self, computed: usize, vocab: usize, context: usize) -> Result<(), Error> {
        (self.runs, self.computed) = (true, computed);
        if self.chain.is_none() {
            let chain = self.chain.insert(SamplerChain::new(&self.sampling, vocab, context)?);
            self.tokens.iter().for_each(|&id| chain.accept(id));
        }
        if self.started.is_none() {
            let now = Instant::now();
            self.started = Some(now);
            self.timings.queue_time = now - self.arrived;
            self.timings.cached_tokens = computed;
        }
        Ok(())
    }

    /// Adds a drawn token, or returns why the answer ends.
    pub(crate) fn draw(&mut self, id: u32, context: usize) -> Option<FinishReason> {
        if self.timings.generated_tokens >= self.limit {
            return Some(FinishReason::Length);
        }
        if self.end_ids.contains(&id) {
            return Some(FinishReason::EndOfGeneration(id));
        }
        let now = Instant::now();
        self.first_token.get_or_insert(now);
        self.timings.generated_tokens += 1;
        self.tokens.push(id);
        if let Some(chain) = &mut self.chain {
            chain.accept(id);
        }
        self.outbox.token((id, now));
        if self.timings.generated_tokens == self.limit {
            return Some(FinishReason::Length);
        }
        (self.tokens.len() > context).then_some(FinishReason::ContextFull)
    }

    /// Tells the asker how it ended.
    pub(crate) fn end(mut self, outcome: Result<FinishReason, Error>) {
        let now = Instant::now();
        let started = self.started.unwrap_or(now);
        let first = self.first_token.unwrap_or(now);
        self.timings.prompt_time = if self.started.is_some() { first - started } else { Duration::ZERO };
        self.timings.decode_time = now - first;
        self.timings.decode_steps = self.timings.generated_tokens.saturating_sub(1);
        self.outbox.end(Ending { outcome, timings: self.timings });
    }
}

/// Returns the seed of a request: its own, or one from the operating system.
pub(crate) fn seed(sampling: &SamplingParams) -> u64 {
    sampling.seed.unwrap_or_else(Rng::random_seed)
}
