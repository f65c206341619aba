//! The engine on a decoder whose every answer is known.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::fake::VOCAB;
use crate::fake::recalling::{BROKEN, POISON, Recalling, continuation};
use crate::{CancelToken, FinishReason, Rng, SamplingParams};

fn request(prompt: &[u32], max_tokens: usize) -> Request<'_> {
    let (sampling, end_ids, cancel) = (SamplingParams::greedy(), Arc::from([]), CancelToken::new());
    Request { prompt, max_tokens: Some(max_tokens), sampling, end_ids, cancel }
}

fn engine(blocks: usize, options: EngineOptions) -> Engine {
    Engine::start(Box::new(Recalling::new(blocks, 64, 8)), options).expect("a thread")
}

/// An engine that takes a step for each message.
fn stepped(blocks: usize, options: EngineOptions) -> (Engine, Sender<()>) {
    let (sender, permits) = channel();
    let mut decoder = Recalling::new(blocks, 64, 8);
    decoder.permits = Some(permits);
    (Engine::start(Box::new(decoder), options).expect("a thread"), sender)
}

fn ids(stream: TokenStream) -> Vec<u32> {
    stream.map(|id| id.expect("no failure")).collect()
}

/// Waits for what another thread is about to do; fails after ten seconds.
fn eventually(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(10), "never came true: {what}");
        thread::yield_now();
    }
}

fn below(rng: &mut Rng, n: usize) -> usize {
    (rng.unit() * n as f64) as usize
}

#[test]
fn answers_are_the_same_in_any_company_order_chunking_and_memory() {
    let mut preemptions = 0;
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let blocks = 5 + below(&mut rng, 12);
        let policy = Policy {
            max_sequences: 1 + below(&mut rng, 8),
            max_rows: 2 + below(&mut rng, 62),
            max_chunk: 1 + below(&mut rng, 64),
            ..Policy::default()
        };
        let order = if seed % 4 == 0 { Order::FirstCome } else { Order::Fairness };
        let engine = engine(blocks, EngineOptions { policy, order, ..EngineOptions::default() });
        let shared: Vec<u32> = (0..60).map(|i| i * 7 % 40).collect();
        let cases: Vec<(Vec<u32>, usize)> = (0..25)
            .map(|_| {
                let common = below(&mut rng, 60);
                let own = (0..1 + below(&mut rng, 60)).map(|_| below(&mut rng, 48) as u32).collect::<Vec<_>>();
                ([&shared[..common], &own].concat(), 1 + below(&mut rng, 40))
            })
            .collect();
        let streams: Vec<TokenStream> = cases
            .iter()
            .map(|(prompt, count)| {
                let flow = Arc::from(["a", "b", "c"][below(&mut rng, 3)]);
                let priority = below(&mut rng, 2) as i32;
                let submission = Submission { flow, priority, ..request(prompt, *count).into() };
                engine.submit(submission).expect("accepted")
            })
            .collect();
        for ((prompt, count), stream) in cases.iter().zip(streams) {
            assert_eq!(ids(stream), continuation(prompt, *count), "seed {seed}, prompt of {}", prompt.len());
        }
        preemptions += engine.stats().preemptions;
        let stats = engine.stats();
        assert_eq!((stats.finished, stats.failed, stats.blocks_used), (25, 0, 0), "seed {seed}: {stats:?}");
    }
    assert!(preemptions > 50, "only {preemptions} preemptions");
}

#[test]
fn each_way_to_end_is_named_and_counted() {
    let engine = engine(4, EngineOptions::default());
    let prompt = [1, 2, 3];
    let answer = continuation(&prompt, 6);
    let last = answer[4];
    let first_of_last = answer.iter().position(|&id| id == last).expect("it is in there");
    let run = |request: Request<'_>| {
        let mut stream = engine.submit(request).expect("accepted");
        let ids: Vec<u32> = stream.by_ref().map(|id| id.expect("no failure")).collect();
        (ids, stream.finish_reason(), stream.timings())
    };
    let ends = Request { end_ids: Arc::from([last]), ..request(&prompt, 50) };
    let (found, reason, _) = run(ends);
    assert_eq!((&found[..], reason), (&answer[..first_of_last], Some(FinishReason::EndOfGeneration(last))));
    let (found, reason, timings) = run(request(&prompt, 6));
    assert_eq!((found, reason), (answer, Some(FinishReason::Length)));
    assert_eq!((timings.prompt_tokens, timings.generated_tokens, timings.decode_steps), (3, 6, 5));
    assert_eq!(run(request(&prompt, 0)).1, Some(FinishReason::Length));
    let (found, reason, _) = run(Request { max_tokens: None, ..request(&prompt, 0) });
    // One more than the 128 tokens of the cache: the last is known and never computed.
    assert_eq!((found.len() + prompt.len(), reason), (129, Some(FinishReason::ContextFull)));
    let cancel = CancelToken::new();
    cancel.cancel();
    assert_eq!(run(Request { cancel, ..request(&prompt, 5) }).1, Some(FinishReason::Cancelled));
}

#[test]
fn what_can_never_be_served_is_refused_with_its_numbers() {
    let engine = engine(2, EngineOptions::default());
    let long = vec![1; 65];
    assert!(matches!(engine.submit(request(&long, 1)), Err(Error::PromptTooLong { n_prompt: 65, n_ctx: 64 })));
    assert!(matches!(engine.submit(request(&[], 1)), Err(Error::EmptyPrompt)));
    let unknown = engine.submit(request(&[1, VOCAB as u32], 1));
    assert!(matches!(unknown, Err(Error::UnknownToken { index: 1, vocab_size: VOCAB, .. })));
    let sampling = SamplingParams { top_p: 7.0, ..SamplingParams::default() };
    let wrong = engine.submit(Request { sampling, ..request(&[1], 1) });
    assert!(matches!(wrong, Err(Error::Parameter { name: "top_p", .. })));
    let weightless = Submission { weight: 0.0, ..request(&[1], 1).into() };
    assert!(matches!(engine.submit(weightless), Err(Error::Parameter { name: "weight", .. })));
    let full = vec![2; 64];
    assert_eq!(ids(engine.submit(request(&full, 9)).expect("it just fits")), continuation(&full, 1));
}

#[test]
fn a_dropped_stream_frees_its_blocks_within_two_steps() {
    let (engine, step) = stepped(16, EngineOptions::default());
    let kept = engine.submit(request(&[1, 2], 40)).expect("accepted");
    let dropped = engine.submit(request(&[3; 100], 40)).expect("accepted");
    (0..4).for_each(|_| step.send(()).expect("it runs"));
    eventually("four steps", || engine.stats().steps == 4);
    assert!(engine.stats().blocks_used >= 5);
    drop(dropped);
    (0..2).for_each(|_| step.send(()).expect("it runs"));
    eventually("two more steps", || engine.stats().steps == 6);
    eventually("one block left", || engine.stats().blocks_used == 1);
    assert_eq!(engine.stats().cancelled, 1);
    drop(step);
    assert_eq!(ids(kept), continuation(&[1, 2], 40), "the other one never notices");
}

#[test]
fn cancelling_one_that_waits_leaves_those_that_run_alone() {
    let policy = Policy { max_sequences: 1, ..Policy::default() };
    let (engine, step) = stepped(16, EngineOptions { policy, ..EngineOptions::default() });
    let active = engine.submit(request(&[1, 2], 20)).expect("accepted");
    let waiting: Vec<TokenStream> = (3..6).map(|id| engine.submit(request(&[id], 5)).expect("accepted")).collect();
    step.send(()).expect("it runs");
    eventually("a step", || engine.stats().steps == 1);
    drop(waiting);
    drop(step);
    assert_eq!(ids(active), continuation(&[1, 2], 20));
    eventually("all gone", || engine.stats().finished == 4);
    assert_eq!((engine.stats().cancelled, engine.stats().waiting), (3, 0));
}

#[test]
fn a_poisoned_request_fails_alone() {
    let engine = engine(64, EngineOptions::default());
    let bad = |id| [vec![5; 40], vec![id], vec![6; 3]].concat();
    let good: Vec<Vec<u32>> = (0..5).map(|i| vec![i + 10; 40 + i as usize]).collect();
    let (poisoned, broken) = (bad(POISON), bad(BROKEN));
    let mut streams: Vec<TokenStream> = Vec::new();
    for prompt in [&good[0], &poisoned, &good[1], &broken, &good[2], &good[3], &good[4]] {
        streams.push(engine.submit(request(prompt, 30)).expect("accepted"));
    }
    let mut broken = streams.remove(3);
    let mut poisoned = streams.remove(1);
    for (prompt, stream) in good.iter().zip(streams) {
        assert_eq!(ids(stream), continuation(prompt, 30));
    }
    assert!(matches!(poisoned.next(), Some(Err(Error::NumericFault { .. }))));
    assert!(matches!(broken.next(), Some(Err(Error::Model(_)))));
    assert_eq!((poisoned.next().is_none(), poisoned.finish_reason()), (true, Some(FinishReason::Failed)));
    assert_eq!((engine.stats().failed, engine.stats().blocks_used), (2, 0));
    let again = [vec![5; 40], vec![7]].concat();
    let after = engine.submit(request(&again, 5)).expect("accepted");
    assert_eq!(ids(after), continuation(&again, 5), "what the failed ones left behind is not used");
}

#[test]
fn the_queue_has_a_bound() {
    let (engine, step) = stepped(8, EngineOptions { max_queued: 3, ..EngineOptions::default() });
    let mut streams = Vec::new();
    let refused = loop {
        match engine.submit(request(&[1], 1)) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::QueueFull { waiting: 3, limit: 3 }), "{refused:?}");
    drop(step);
    streams.into_iter().for_each(|stream| assert_eq!(ids(stream).len(), 1));
    assert_eq!(ids(engine.submit(request(&[1], 2)).expect("there is room again")).len(), 2);
}

#[test]
fn a_shutdown_answers_what_was_handed_in_and_a_drop_does_not() {
    let gather = crate::schedule::Gather { max_wait: Duration::from_secs(3600), min_requests: 8 };
    let policy = Policy { gather, max_sequences: 8, ..Policy::default() };
    let waiting = engine(16, EngineOptions { policy, ..EngineOptions::default() });
    let streams: Vec<TokenStream> = (1..6).map(|id| waiting.submit(request(&[id], 10)).expect("accepted")).collect();
    waiting.shutdown();
    for (id, stream) in (1..6).zip(streams) {
        assert_eq!(ids(stream), continuation(&[id], 10), "the gather window does not hold up the end");
    }
    let (engine, step) = stepped(16, EngineOptions::default());
    let mut stream = engine.submit(request(&[1], 1000)).expect("accepted");
    step.send(()).expect("it runs");
    assert!(stream.next().is_some_and(|id| id.is_ok()));
    drop(step);
    drop(engine);
    let last = stream.by_ref().last();
    assert!(matches!(last, Some(Err(Error::Stopped)) | Some(Ok(_))), "{last:?}");
    assert!(stream.finish_reason().is_some(), "no stream is left hanging");
}

/// The smallest executor: parks its thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn any_executor_can_await_tokens() {
    let engine = engine(16, EngineOptions::default());
    let found = block_on(async {
        let mut stream = engine.submit(request(&[4, 5], 12)).expect("accepted");
        let mut found = Vec::new();
        while let Some(id) = stream.next_token().await {
            found.push(id.expect("no failure"));
        }
        assert!(stream.next_token().await.is_none(), "the end is final");
        found
    });
    assert_eq!(found, continuation(&[4, 5], 12));
}

#[test]
fn priorities_and_flows_decide_who_starts() {
    let policy = Policy { max_sequences: 1, ..Policy::default() };
    let (engine, step) = stepped(16, EngineOptions { policy, ..EngineOptions::default() });
    let first = engine.submit(request(&[1], 1)).expect("accepted");
    eventually("the first runs", || engine.stats().running == 1);
    let submit = |flow: &str, priority| {
        let submission = Submission { flow: flow.into(), priority, ..request(&[2; 20], 1).into() };
        engine.submit(submission).expect("accepted")
    };
    let mut streams = [submit("a", 0), submit("a", 0), submit("b", 0), submit("b", 5)];
    drop(step);
    drop(ids(first));
    let drawn = |stream: &mut TokenStream| {
        stream.by_ref().for_each(drop);
        stream.drawn_at().expect("one token")
    };
    let times: Vec<Instant> = streams.iter_mut().map(drawn).collect();
    // The urgent one of `b` first, then `a`, which was served less, then by arrival as both are even.
    assert!(times[3] < times[0] && times[0] < times[1] && times[0] < times[2], "{times:?}");
}

#[test]
fn what_was_computed_for_one_is_used_for_another_but_not_across_salts() {
    let engine = engine(64, EngineOptions::default());
    let prompt: Vec<u32> = (0..150).map(|i| i * 13 % 47).collect();
    let run = |salt, prompt: &[u32]| {
        let mut stream = engine.submit(Submission { salt, ..request(prompt, 5).into() }).expect("accepted");
        let found: Vec<u32> = stream.by_ref().map(|id| id.expect("no failure")).collect();
        assert_eq!(found, continuation(prompt, 5));
        stream.timings().cached_tokens
    };
    assert_eq!(run(0, &prompt), 0);
    assert_eq!(run(0, &prompt), 149, "all but the last, whose logits are wanted");
    let other = [&prompt[..100], &[1, 2, 3]].concat();
    assert_eq!(run(0, &other), 100, "shared to the token, not to the block");
    assert_eq!(run(7, &prompt), 0, "another salt shares nothing");
    let turn = [&prompt[..], &continuation(&prompt, 5), &[9, 9]].concat();
    assert_eq!(run(0, &turn), 154, "the answer's tokens but its last, which was never computed");
    assert_eq!(engine.stats().cached_tokens, 149 + 100 + 154);
}

#[test]
fn answers_survive_spilling_and_a_cache_that_shrinks_and_grows() {
    let dir = std::env::temp_dir();
    let mut preemptions = 0;
    for spill_bytes in [0, 1 << 20] {
        let cache = CacheOptions { spill_bytes, spill_dir: dir.clone(), ..CacheOptions::default() };
        let engine = engine(24, EngineOptions { cache, ..EngineOptions::default() });
        let prompts: Vec<Vec<u32>> = (0..12).map(|n| (0..60).map(|i| (n * 5 + i * 3) % 46).collect()).collect();
        let streams: Vec<TokenStream> =
            prompts.iter().map(|prompt| engine.submit(request(prompt, 60)).expect("accepted")).collect();
        // The file's slots have entries in the tables as well.
        let small = bytes_for(24, 9) + if spill_bytes > 0 { 48 * 640 } else { 0 };
        for (n, (prompt, stream)) in prompts.iter().zip(streams).enumerate() {
            engine.resize_cache(if n % 2 == 0 { small } else { usize::MAX });
            assert_eq!(ids(stream), continuation(prompt, 60), "spill {spill_bytes}");
        }
        preemptions += engine.stats().preemptions;
        assert_eq!(engine.stats().blocks_used, 0);
    }
    assert!(preemptions > 0, "nothing was ever preempted");
}

#[test]
fn a_beginning_that_many_share_is_computed_once_even_if_they_come_together() {
    let (engine, step) = stepped(64, EngineOptions::default());
    let shared: Vec<u32> = (0..192).map(|i| i * 11 % 45).collect();
    let prompts: Vec<Vec<u32>> = (0..8).map(|n| [&shared[..], &[n, n + 1, n + 2]].concat()).collect();
    let streams: Vec<TokenStream> =
        prompts.iter().map(|prompt| engine.submit(request(prompt, 4)).expect("accepted")).collect();
    drop(step);
    for (prompt, stream) in prompts.iter().zip(streams) {
        assert_eq!(ids(stream), continuation(prompt, 4));
    }
    let computed = engine.stats().computed_prompt_tokens;
    assert!(computed < 192 + 8 * 35, "{computed} tokens computed");
}

#[test]
fn a_cache_that_became_too_small_for_a_request_refuses_it_and_serves_the_others() {
    let (engine, step) = stepped(16, EngineOptions::default());
    let mut long = engine.submit(request(&[7; 300], 100)).expect("it fits so far");
    step.send(()).expect("it runs");
    eventually("a step", || engine.stats().steps == 1);
    engine.resize_cache(bytes_for(16, 4));
    let short = engine.submit(request(&[8; 20], 10)).expect("accepted");
    drop(step);
    assert!(matches!(long.next(), Some(Err(Error::CacheTooSmall { n_prompt: 300, cache_tokens: 128 }))));
    assert_eq!(ids(short), continuation(&[8; 20], 10));
    assert_eq!(engine.stats().blocks_total, 4);
}

/// Returns the limit of memory that allows `wanted` of so many blocks.
fn bytes_for(blocks: usize, wanted: usize) -> usize {
    let decoder = Recalling::new(blocks, 64, 8);
    let total = |max_bytes| {
        let options = CacheOptions { max_bytes: Some(max_bytes), ..CacheOptions::default() };
        Store::new(&decoder, options, 8, 4096).map_or(0, |store| store.total())
    };
    (0..1 << 20).step_by(64).find(|&bytes| total(bytes) == wanted).expect("some limit does")
}

#[test]
fn a_session_goes_on_in_another_engine() {
    let fingerprint = Fingerprint::new().with(b"recalling");
    let prompt: Vec<u32> = (0..70).map(|i| i % 40).collect();
    let first = engine(16, EngineOptions::default());
    let answer = ids(first.submit(request(&prompt, 40)).expect("accepted"));
    let known = [&prompt[..], &answer].concat();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let out = file.reopen().expect("the same file");
    let saved = first.save_session(&known, 0, fingerprint, out).expect("room on the disk");
    // The last token was drawn, but never computed.
    assert_eq!(saved, known.len() - 1);
    first.shutdown();

    let second = engine(16, EngineOptions::default());
    let input = || file.reopen().expect("the same file");
    let other = second.restore_session(0, fingerprint.with(b"another"), input());
    assert!(matches!(other, Err(Error::Session(SessionError::OtherModel { .. }))), "{other:?}");
    let restored = second.restore_session(0, fingerprint, input()).expect("the same model");
    assert_eq!((restored.ids, restored.cached_tokens), (known[..saved].to_vec(), saved));
    let stream = second.submit(request(&known, 20)).expect("accepted");
    assert_eq!(ids(stream), continuation(&known, 20));
    assert_eq!(second.stats().computed_prompt_tokens, 0, "the only token left counts as one of an answer");
}
