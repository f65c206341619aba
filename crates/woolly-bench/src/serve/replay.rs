//! Hands a trace's requests to an engine when they are due.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use woolly_engine::schedule::{Gather, Joining, Order, Policy};
use woolly_engine::{CacheOptions, CancelToken, EngineOptions, Request, Rng, SamplingParams, Submission, TokenStream};
use woolly_model::RunnerOptions;
use woolly_tensor::{BLOCK_TOKENS, CacheType};

use super::report::{Answered, ServeReport};
use super::{Arrival, Trace};
use crate::Error;
use crate::speed::Engine;

/// How requests are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Batching {
    /// One after another.
    None,
    /// A batch is computed to its end before the next begins.
    Static,
    /// Requests join and leave at every step.
    Continuous,
}

impl Batching {
    /// Every way, in order of sophistication.
    pub const ALL: [Self; 3] = [Self::None, Self::Static, Self::Continuous];

    /// Returns the name: `none`, `static`, `continuous`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Static => "static",
            Self::Continuous => "continuous",
        }
    }
}

/// How a trace is replayed.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeOptions {
    /// How requests are put together.
    pub batching: Batching,
    /// Most requests that run at once.
    pub max_sequences: usize,
    /// Duration of a step that is aimed at while answers are written.
    pub step: Duration,
    /// Tokens that the cache holds; `None` for as many as the sequences that run at once can need.
    pub cache_tokens: Option<usize>,
    /// How keys and values are stored.
    pub cache_type: CacheType,
}

impl Default for ServeOptions {
    fn default() -> Self {
        let step = Duration::from_millis(200);
        Self { batching: Batching::Continuous, max_sequences: 16, step, cache_tokens: None, cache_type: CacheType::F16 }
    }
}

impl ServeOptions {
    /// Replays a trace and returns what was measured.
    ///
    /// # Errors
    /// When the trace does not fit the model's context, memory is short, or the engine fails.
    pub fn run(&self, engine: &Engine, trace: &Trace) -> Result<ServeReport, Error> {
        let sequences = if self.batching == Batching::None { 1 } else { self.max_sequences.max(1) };
        let context = trace.context() + 1;
        let tokens = self.cache_tokens.unwrap_or(sequences * context.next_multiple_of(BLOCK_TOKENS));
        let policy = Policy {
            joining: if self.batching == Batching::Static { Joining::WhenIdle } else { Joining::AnyStep },
            max_sequences: sequences,
            gather: Gather::default(),
            step: self.step,
            prefill_step: self.step * 5 / 2,
            ..Policy::default()
        };
        let (context, storage) = (tokens, self.cache_type);
        let runner = RunnerOptions { context, max_rows: policy.max_rows, max_outputs: sequences, storage };
        let cache = CacheOptions { storage, ..CacheOptions::default() };
        let order = if self.batching == Batching::Continuous { Order::Fairness } else { Order::FirstCome };
        let options = EngineOptions { policy, order, cache, ..EngineOptions::default() };
        let vocab_size = engine.vocab_size();
        let engine = woolly_engine::Engine::start(engine.decoder(runner)?, options)?;
        let begin = Instant::now();
        let mut waiting = Vec::with_capacity(trace.arrivals.len());
        for (number, arrival) in trace.arrivals.iter().enumerate() {
            thread::sleep(arrival.at.saturating_sub(begin.elapsed()));
            waiting.push((Instant::now(), submit(&engine, arrival, number as u64, vocab_size)?));
        }
        let answered = waiting.into_iter().map(|(due, stream)| read(due, stream)).collect::<Result<Vec<_>, _>>()?;
        Ok(ServeReport::new(self.batching, &answered, begin.elapsed(), &engine.stats()))
    }
}

fn submit(
    engine: &woolly_engine::Engine,
    arrival: &Arrival,
    number: u64,
    vocab_size: usize,
) -> Result<TokenStream, Error> {
    let prompt = prompt(arrival, number, vocab_size);
    let request = Request {
        prompt: &prompt,
        max_tokens: Some(arrival.output),
        sampling: SamplingParams::greedy(),
        // The trace says how long answers are.
        end_ids: Arc::from([]),
        cancel: CancelToken::new(),
    };
    let flow = arrival.flow.as_str().into();
    Ok(engine.submit(Submission { flow, priority: arrival.priority, ..request.into() })?)
}

/// Random ids: those of the group first, then the request's own.
fn prompt(arrival: &Arrival, number: u64, vocab_size: usize) -> Vec<u32> {
    let shared = arrival.shared.as_ref().map_or(0, |(_, tokens)| (*tokens).min(arrival.prompt));
    let hash = |group: &String| group.bytes().fold(7_u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
    let group = arrival.shared.as_ref().map_or(0, |(group, _)| hash(group));
    let ids = |seed: u64| {
        let mut rng = Rng::new(seed);
        std::iter::repeat_with(move || (rng.unit() * vocab_size as f64) as u32)
    };
    ids(group).take(shared).chain(ids(!number).take(arrival.prompt - shared)).collect()
}

/// Reads an answer; its tokens say themselves when they were drawn.
fn read(due: Instant, mut stream: TokenStream) -> Result<Answered, Error> {
    let mut drawn = Vec::new();
    while let Some(token) = stream.next() {
        token?;
        drawn.extend(stream.drawn_at());
    }
    Ok(Answered { due, drawn, queued: stream.timings().queue_time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Shape, Source, Synthetic};
    use woolly_model::mix::Mix;

    #[test]
    fn every_way_of_batching_answers_the_whole_trace() {
        let synthetic = Synthetic { shape: Shape::tiny(), mix: Mix::Q4_0 };
        let loader = Source::Synthetic(synthetic).open(0).expect("fits");
        let engine = Engine::load(&loader, 1).expect("loads");
        let text = "0 33 4 shared=a:32\n5 34 6 shared=a:32\n5 20 3\n6 35 5 shared=a:32 flow=x\n";
        let trace: Trace = text.parse().expect("valid");
        for batching in Batching::ALL {
            let options = ServeOptions { batching, max_sequences: 4, ..ServeOptions::default() };
            let report = options.run(&engine, &trace).expect("answers");
            assert_eq!((report.requests, report.prompt_tokens, report.output_tokens), (4, 122, 18), "{batching:?}");
            assert!(report.occupancy > 0.0 && report.ttft_ms.p99 >= report.ttft_ms.p50, "{report:?}");
        }
    }

    #[test]
    fn groups_share_the_beginning_of_their_prompts_and_no_more() {
        let trace: Trace = "0 20 1 shared=a:12\n1 20 1 shared=a:12\n2 20 1 shared=b:12".parse().expect("valid");
        let prompts: Vec<Vec<u32>> = (0..3).map(|n| prompt(&trace.arrivals[n], n as u64, 1000)).collect();
        assert_eq!(prompts[0][..12], prompts[1][..12]);
        assert_ne!(prompts[0][12..], prompts[1][12..]);
        assert_ne!(prompts[0][..12], prompts[2][..12]);
    }
}
