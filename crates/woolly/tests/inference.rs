//! The inference engine on a model whose every answer is known: many sessions at once, awaited and waited for.

mod fixture;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use fixture::{Fixture, successors};
use woolly::prelude::*;
use woolly::{ErrorKind, InferenceResult};

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

/// Greedy answers of ten tokens, none of which ends the text.
fn config(base: SessionConfig) -> SessionConfig {
    SessionConfig { generation: GenerateOptions::new().greedy().max_tokens(10), ..base }
}

fn engine(config: EngineConfig) -> InferenceEngine {
    let dir = tempfile::tempdir().expect("temporary folder");
    let engine = InferenceEngine::new(EngineConfig { num_threads: 1, ..config });
    engine.load(Fixture::chat().write(dir.path())).expect("a valid model");
    engine
}

#[test]
fn sessions_are_awaited_under_any_executor() {
    let engine = engine(EngineConfig::default());
    let session = engine.session_with(config(SessionConfig::default())).expect("a session");
    let tokens = session.encode("sheep");
    let result: InferenceResult = block_on(async { session.infer(&tokens).await }).expect("an answer");
    assert_eq!((result.text, result.tokens.len()), (successors("sheep", 10), 10));
    assert_eq!(result.finish_reason, FinishReason::MaxTokens);
    assert_eq!((result.usage.prompt_tokens, result.usage.completion_tokens), (tokens.len(), 10));
    let text = block_on(async {
        let options = GenerateOptions::new().greedy().max_tokens(30).stop("xyz");
        let mut stream = session.stream("lamb", options).expect("accepted");
        let mut text = String::new();
        while let Some(chunk) = stream.next_chunk().await {
            text.push_str(chunk.expect("no failure").text());
        }
        assert_eq!(stream.finish().finish_reason, FinishReason::StopString("xyz".to_owned()));
        text
    });
    assert_eq!(text, "cdefghijklmnopqrstuvw");
}

#[test]
fn many_requests_at_once_answer_as_alone() {
    let batch = BatchConfig { max_batch_size: 8, ..BatchConfig::default() };
    let modes = [
        BatchingMode::Static(batch.clone()),
        BatchingMode::Dynamic(batch),
        BatchingMode::Continuous { max_sequences: 8, scheduling: SchedulingPolicy::Fairness },
        BatchingMode::Continuous { max_sequences: 3, scheduling: SchedulingPolicy::FirstCome },
    ];
    for batching in modes {
        let engine = engine(EngineConfig::default());
        let session = |flow: usize| {
            let base = SessionConfig { batching: batching.clone(), flow: flow.to_string(), ..SessionConfig::default() };
            engine.session_with(config(base)).expect("a session")
        };
        let sessions: Vec<InferenceSession> = (0..3).map(session).collect();
        let prompt = |n: usize| format!("{}{}", "once upon a time ".repeat(n % 7), char::from(b'a' + n as u8));
        let answers: Vec<_> = (0..24)
            .map(|n| {
                let session = &sessions[n % 3];
                session.infer(&session.encode(&prompt(n)))
            })
            .collect();
        for (n, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.wait().expect("an answer").text, successors(&prompt(n), 10), "{batching:?}, request {n}");
        }
        assert_eq!(engine.stats().finished, 24);
    }
}

#[test]
fn refusals_name_what_is_wrong() {
    let unloaded = InferenceEngine::new(EngineConfig::default());
    assert!(matches!(unloaded.session(), Err(Error::NoModel)));
    let engine = engine(EngineConfig::default());
    let session = engine.session().expect("a session");
    let empty = block_on(session.infer(&[])).map(|result| result.tokens);
    assert_eq!(empty.expect_err("nothing to continue").kind(), ErrorKind::InvalidRequest);
    let long = session.infer(&vec![5; 300]).wait().map(|result| result.tokens);
    assert_eq!(long.expect_err("longer than the context of 256").kind(), ErrorKind::ContextExceeded);
    let missing = engine.load("no-such-file.gguf");
    assert_eq!(missing.expect_err("no file").kind(), ErrorKind::InvalidModel);
}

#[test]
fn dropped_answers_are_cancelled() {
    let engine = engine(EngineConfig::default());
    let session = engine.session().expect("a session");
    let endless = GenerateOptions::new().greedy();
    drop(session.infer_with(&session.encode("a"), endless.clone()));
    let mut stream = session.stream("b", endless).expect("accepted");
    assert!(stream.next().is_some_and(|chunk| chunk.is_ok()));
    drop(stream);
    while engine.stats().finished < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(engine.stats().blocks_used, 0);
}

#[test]
fn a_session_is_saved_and_goes_on_elsewhere() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = dir.path().join("session.kv");
    let few = |count| GenerateOptions::new().greedy().max_tokens(count).ignore_end();
    let first = engine(EngineConfig::default());
    let session = first.session().expect("a session");
    let prompt = session.encode("a");
    let answer = session.infer_with(&prompt, few(60)).wait().expect("an answer");
    let known = [prompt, answer.tokens].concat();
    assert_eq!(session.save(&known, &path).expect("written"), known.len() - 1);
    assert!(!dir.path().join("session.kv.partial").exists());

    let second = engine(EngineConfig::default());
    let other = second.session().expect("a session");
    let tokens = other.restore(&path).expect("the same model");
    assert_eq!(tokens, known[..known.len() - 1]);
    let expected = session.infer_with(&known, few(5)).wait().expect("an answer");
    let found = other.infer_with(&known, few(5)).wait().expect("an answer");
    assert_eq!(found.tokens, expected.tokens);
    assert_eq!(found.timings.cached_tokens, known.len() - 1, "all but the last, whose logits are wanted");

    let single = Model::builder(Fixture::chat().write(dir.path())).cache_type(woolly::CacheType::F32).load();
    let third = InferenceEngine::new(EngineConfig::default());
    third.load_model(&single.expect("loaded")).expect("taken");
    let error = third.session().expect("a session").restore(&path).expect_err("another cache").to_string();
    assert!(error.contains("another model or another type of cache"), "{error}");
    assert!(session.restore(dir.path().join("none")).is_err());
    std::fs::write(&path, "something else").expect("written");
    let error = session.restore(&path).expect_err("no session").to_string();
    assert!(error.contains("no saved session"), "{error}");
}
