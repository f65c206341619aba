//! Ten thousand waiting requests: each costs little more than its prompt, and all of it is given back.

mod fake;
#[path = "fake/weighing.rs"]
mod weighing;

use std::sync::Arc;
use std::sync::mpsc::channel;

use fake::recalling::Recalling;
use woolly_engine::{CancelToken, Engine, EngineOptions, FinishReason, Request, SamplingParams, TokenStream};

const COUNT: usize = 10_000;
const PROMPT: usize = 40;

fn submit(engine: &Engine, number: usize) -> TokenStream {
    let prompt: Vec<u32> = (0..PROMPT).map(|i| ((number * 31 + i * 7) % 40) as u32).collect();
    // Penalties have tables of the vocabulary's size: a sampler that is built too early would show.
    let sampling = SamplingParams { repeat_penalty: 1.1, ..SamplingParams::greedy() };
    let (end_ids, cancel) = (Arc::from([]), CancelToken::new());
    engine.submit(Request { prompt: &prompt, max_tokens: Some(2), sampling, end_ids, cancel }).expect("accepted")
}

#[test]
fn ten_thousand_queued_requests_hold_memory_flat() {
    let (permit, permits) = channel();
    let mut decoder = Recalling::new(64, 256, 8);
    decoder.permits = Some(permits);
    let engine = Engine::start(Box::new(decoder), EngineOptions::default()).expect("a thread");
    let before = weighing::bytes();
    let mut streams = Vec::with_capacity(COUNT);
    streams.extend((0..COUNT).map(|number| submit(&engine, number)));
    let queued = (weighing::bytes() - before) / COUNT;
    // Everyone is answered, and half of them have left before.
    streams.truncate(COUNT / 2);
    drop(permit);
    // How many the engine has taken over by now is chance, and what it keeps them in doubles when it is full.
    assert!(queued < PROMPT * size_of::<u32>() + 1600, "{queued} bytes a request");
    for mut stream in streams {
        assert_eq!(stream.by_ref().filter(Result::is_ok).count(), 2);
        assert_eq!(stream.finish_reason(), Some(FinishReason::Length));
    }
    let stats = engine.stats();
    assert_eq!((stats.submitted, stats.failed), (COUNT as u64, 0));
    engine.shutdown();
    let after = weighing::bytes();
    assert!(after < before + 4096, "{before} bytes before, {after} after");
}
