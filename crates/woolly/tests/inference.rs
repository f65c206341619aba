//! The inference engine on a model whose every answer is known: many sessions at once, awaited and waited for.

mod fixture;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use fixture::{Fixture, successors};
use woolly::Device;
use woolly::prelude::*;
use woolly::{ErrorKind, InferenceResult, QuantType};

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

fn refused(result: Result<InferenceSession, Error>, field: &str) {
    match result {
        Err(Error::Config { field: found, why }) => {
            assert_eq!(found, field);
            assert!(why.len() > 20, "{field}: no reason: {why}");
        }
        other => panic!("{field} was not refused: {other:?}"),
    }
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

/// Threads of this process that one processor only may run.
fn bound_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux").filter_map(Result::ok);
    let allowed = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
    };
    tasks.filter_map(allowed).filter(|list| list.parse::<usize>().is_ok()).count()
}

/// What each configuration field changes, or why it is refused; a field without a case here does not compile.
#[test]
fn every_field_of_the_configuration_does_something_or_is_refused() {
    let EngineConfig {
        num_threads: _,
        thread_affinity: _,
        numa_aware: _,
        memory: MemoryConfig { use_memory_pool: _, pool_size_mb: _, pool_alignment: _, reuse_buffers: _ },
        device: DeviceConfig { device: _, cpu_features: _ },
        thread_pool: ThreadPoolConfig { num_threads: _, stealing_enabled: _, chunk_size: _, local_queue_capacity: _ },
        batching: _,
        cache: CacheConfig { max_cache_mb: _, eviction_policy: _, compression: _, shared_cache: _ },
        context: _,
        step_ms: _,
        max_queued: _,
        max_queue_ms: _,
        deterministic: _,
        spill_mb: _,
        spill_dir: _,
        quantization: _,
        mmap: _,
        memory_limit_mb: _,
    } = EngineConfig::default();
    let model = |config: EngineConfig| engine(config).session().map(|session| session.model().clone());
    let dir = tempfile::tempdir().expect("temporary folder");
    let path = Fixture::chat().write(dir.path());
    let load = |config: EngineConfig| {
        let engine = InferenceEngine::new(config);
        engine.load(&path)?;
        engine.session()
    };

    let threads = load(EngineConfig::default().with_threads(2)).expect("loaded");
    assert!(threads.model().device().contains("2 threads"), "{}", threads.model().device());
    let pool = |change: fn(&mut ThreadPoolConfig)| {
        let mut config = EngineConfig::default();
        change(&mut config.thread_pool);
        load(config)
    };
    let threads = pool(|pool| pool.num_threads = 3).expect("loaded");
    assert!(threads.model().device().contains("3 threads"), "{}", threads.model().device());
    refused(pool(|pool| pool.stealing_enabled = false), "stealing_enabled");
    refused(pool(|pool| pool.chunk_size = 1), "chunk_size");
    refused(pool(|pool| pool.local_queue_capacity = 1), "local_queue_capacity");
    let both =
        EngineConfig { thread_pool: ThreadPoolConfig { num_threads: 3, ..Default::default() }, ..Default::default() };
    refused(load(both.with_threads(2)), "thread_pool.num_threads");
    every_field_of_the_memory_pool_does_something(&path);
    let features = |cpu_features| {
        let device = DeviceConfig { cpu_features, ..DeviceConfig::default() };
        load(EngineConfig { device, ..EngineConfig::default() })
    };
    let detected = CpuFeatures::detect();
    let scalar = features(CpuFeatures { force_scalar: true, ..detected }).expect("every processor can");
    assert!(scalar.model().device().contains("scalar"), "{}", scalar.model().device());
    let plain = features(CpuFeatures { has_avx2: false, has_avx512: false, ..detected }).expect("every processor can");
    assert!(plain.model().device().contains("scalar"), "{}", plain.model().device());
    refused(features(CpuFeatures { force_scalar: true, force_avx2: true, ..detected }), "cpu_features");
    let reference = DeviceConfig { device: Device::Reference, ..DeviceConfig::default() };
    let reference = load(EngineConfig { device: reference, ..EngineConfig::default() }).expect("loaded");
    assert!(reference.model().device().starts_with("reference"));
    if cfg!(target_os = "linux") && CpuInfo::new().is_ok_and(|info| info.logical_processors() > 1) {
        let affinity = EngineConfig { thread_affinity: true, ..EngineConfig::default() }.with_threads(2);
        let before = bound_threads();
        let bound = load(affinity).expect("loaded");
        // A thread binds itself when it first runs.
        let is_bound = |_| {
            thread::sleep(Duration::from_millis(1));
            bound_threads() > before
        };
        assert!((0..5000).any(is_bound), "a thread stays on one processor");
        drop(bound);
    }
    let context = model(EngineConfig { context: Some(64), ..EngineConfig::default() }).expect("loaded");
    assert_eq!(context.context(), 64);
    let small = engine(EngineConfig { context: Some(64), ..EngineConfig::default().with_batch_size(3) });
    drop(small.session().expect("a session"));
    assert_eq!(small.stats().blocks_total, 6, "three sequences of two blocks");
    let quantised = load(EngineConfig::default().with_quantization(QuantType::Q8_0)).expect("quantised");
    assert!(quantised.model().summary().types.iter().any(|share| share.ty == woolly::TensorType::Q8_0));
    let read = load(EngineConfig { mmap: false, ..EngineConfig::default() }).expect("read");
    assert_eq!(
        read.infer_with(&read.encode("a"), GenerateOptions::new().greedy().max_tokens(2)).wait().expect("ok").text,
        "bc"
    );
    let tight = load(EngineConfig::memory_constrained(1)).map(drop);
    assert_eq!(tight.expect_err("the weights alone have more").kind(), ErrorKind::OutOfMemory);
    let queue = load(EngineConfig { max_queued: 0, ..EngineConfig::default() }).expect("a session");
    assert_eq!(queue.infer(&[5]).wait().map(drop).expect_err("no place").kind(), ErrorKind::Busy);
}

fn every_field_of_the_memory_pool_does_something(path: &std::path::Path) {
    let pooled = MemoryConfig { use_memory_pool: true, ..MemoryConfig::default() };
    let load = |memory| {
        let engine = InferenceEngine::new(EngineConfig { memory, ..EngineConfig::default() });
        engine.load(path)?;
        engine.session()
    };
    assert_eq!(load(MemoryConfig::default()).expect("loaded").model().memory_pool(), None);
    let small = MemoryConfig { pool_size_mb: 0, ..pooled };
    let error = load(small).map(drop).expect_err("no room for anything").to_string();
    assert!(error.contains("memory pool"), "{error}");
    refused(load(MemoryConfig { pool_alignment: 48, ..pooled }), "pool_alignment");
    refused(load(MemoryConfig { pool_size_mb: 7, ..MemoryConfig::default() }), "memory");
    for reuse_buffers in [true, false] {
        let model = Model::builder(path).memory(MemoryConfig { reuse_buffers, ..pooled }).load().expect("loaded");
        let pool = || model.memory_pool().expect("a pool");
        drop(model.session().expect("room"));
        assert_eq!((pool().used_bytes, pool().idle_bytes > 0), (0, reuse_buffers));
        let open = model.session().expect("room");
        assert_eq!((pool().used_bytes > 0, pool().reused > 0), (true, reuse_buffers));
        drop(open);
    }
    let session = load(pooled).expect("loaded");
    let pool = || session.model().memory_pool().expect("a pool");
    let before = pool();
    let few = GenerateOptions::new().greedy().max_tokens(4);
    session.infer_with(&session.encode("a"), few).wait().expect("an answer");
    assert_eq!(pool(), before, "nothing is taken during inference");
    let bytes = |pool_alignment| {
        let session = load(MemoryConfig { pool_alignment, ..pooled }).expect("loaded");
        session.model().memory_pool().expect("a pool").used_bytes
    };
    assert!(bytes(4096) > bytes(64), "the room before an aligned address counts");
}

#[test]
fn sessions_that_contradict_each_other_are_refused() {
    let engine = engine(EngineConfig::default());
    let open = engine.session().expect("a session");
    let cache = |change: fn(&mut CacheConfig)| {
        let mut config = SessionConfig::default();
        change(&mut config.cache_config);
        engine.session_with(config)
    };
    refused(cache(|cache| cache.max_cache_mb = 7), "max_cache_mb");
    refused(cache(|cache| cache.compression = CacheCompression::Enabled), "compression");
    let other = BatchingMode::Continuous { max_sequences: 3, scheduling: SchedulingPolicy::Fairness };
    refused(engine.session_with(SessionConfig { batching: other.clone(), ..SessionConfig::default() }), "batching");
    assert!(cache(|cache| cache.shared_cache = false).is_ok(), "each session decides for itself what it shares");
    drop(open);
    assert!(engine.session_with(SessionConfig { batching: other, ..SessionConfig::default() }).is_ok());
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let cases = [
        ("min_batch_size", BatchConfig { min_batch_size: 5, max_batch_size: 4, ..BatchConfig::default() }),
        ("padding_strategy", BatchConfig { padding_strategy: PaddingStrategy::Longest, ..BatchConfig::default() }),
        ("padding_strategy", BatchConfig { padding_strategy: PaddingStrategy::Fixed(64), ..BatchConfig::default() }),
        ("batching", BatchConfig { max_batch_size: 0, min_batch_size: 0, ..BatchConfig::default() }),
    ];
    for (field, config) in cases {
        for batching in [BatchingMode::Static(config.clone()), BatchingMode::Dynamic(config.clone())] {
            refused(engine(EngineConfig { batching, ..EngineConfig::default() }).session(), field);
        }
    }
}

#[test]
fn a_loaded_model_refuses_settings_that_come_too_late() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let model = Model::load(Fixture::chat().write(dir.path())).expect("a valid model");
    let default = EngineConfig::default;
    let cases = [
        ("num_threads", default().with_threads(2)),
        ("thread_affinity", EngineConfig { thread_affinity: true, ..default() }),
        ("numa_aware", EngineConfig { numa_aware: true, ..default() }),
        (
            "device",
            EngineConfig { device: DeviceConfig { device: Device::Reference, ..Default::default() }, ..default() },
        ),
        (
            "thread_pool",
            EngineConfig { thread_pool: ThreadPoolConfig { num_threads: 2, ..Default::default() }, ..default() },
        ),
        ("context", EngineConfig { context: Some(64), ..default() }),
        ("quantization", default().with_quantization(QuantType::Q4_0)),
        ("mmap", EngineConfig { mmap: false, ..default() }),
    ];
    for (field, config) in cases {
        let result = InferenceEngine::new(config).load_model(&model);
        assert!(matches!(result, Err(Error::Config { field: found, .. }) if found == field), "{field}");
    }
    assert!(InferenceEngine::new(default()).load_model(&model).is_ok());
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
    assert_eq!(found.timings.cached_tokens, 32, "whole blocks only");

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
