//! Every field of every configuration of the engine does what it says, or is refused with a reason.
//!
//! The lists below take each structure apart without `..`: a field that nobody checks does not compile.

mod fixture;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use fixture::{Fixture, successors};
use woolly::prelude::*;
use woolly::{Device, ErrorKind, QuantType, Stats};

/// Calls the check of each field.
macro_rules! each_field {
    ($type:ident { $($field:ident: $check:expr),+ $(,)? }) => {{
        let $type { $($field: _,)+ } = $type::default();
        $({
            let check: fn() = $check;
            println!("{}.{}", stringify!($type), stringify!($field));
            check();
        })+
    }};
}

#[test]
fn engine_config() {
    each_field!(EngineConfig {
        num_threads: threads_are_as_many_as_asked_for,
        thread_affinity: threads_are_bound,
        numa_aware: one_node_is_accepted_where_threads_can_be_bound,
        memory: memory_config,
        device: device_config,
        thread_pool: thread_pool_config,
        batching: batching_modes,
        cache: cache_config,
        context: the_context_is_as_long_as_asked_for,
        step_ms: short_steps_cut_prompts,
        max_queued: a_full_queue_refuses,
        max_queue_ms: who_waited_too_long_goes_first,
        deterministic: steps_are_small_where_answers_must_be_equal,
        spill_mb: what_gives_way_is_written_to_a_file,
        spill_dir: the_file_is_in_its_folder,
        quantization: models_are_quantised_while_they_are_loaded,
        mmap: files_are_mapped_or_read,
        memory_limit_mb: memory_has_a_limit,
    });
}

fn memory_config() {
    each_field!(MemoryConfig {
        use_memory_pool: the_pool_is_used,
        pool_size_mb: the_pool_has_a_size,
        pool_alignment: buffers_are_aligned,
        reuse_buffers: buffers_are_used_again,
    });
}

fn device_config() {
    each_field!(DeviceConfig { device: the_device_is_the_one_asked_for, cpu_features: features_are_obeyed });
}

fn thread_pool_config() {
    each_field!(ThreadPoolConfig {
        num_threads: the_pool_has_as_many_threads,
        stealing_enabled: work_is_stolen_or_not_and_answers_are_the_same,
        chunk_size: units_have_any_size_but_none,
        local_queue_capacity: queues_have_any_size_but_none,
    });
}

fn cache_config() {
    each_field!(CacheConfig {
        max_cache_mb: the_cache_stays_within_its_limit,
        eviction_policy: the_policy_decides_what_is_forgotten,
        compression: compression_is_of_nothing_of_what_gives_way_or_of_everything,
        shared_cache: sessions_share_or_do_not,
    });
}

#[test]
fn session_config() {
    each_field!(SessionConfig {
        cache_config: a_session_brings_its_own_cache,
        batching: a_session_brings_its_own_batching,
        generation: answers_are_generated_as_the_session_says,
        flow: flows_take_turns,
        weight: weights_count,
        priority: priorities_count,
    });
}

fn batching_modes() {
    each_field!(BatchConfig {
        max_batch_size: no_more_than_a_batch_runs,
        max_wait_ms: a_batch_waits_no_longer,
        min_batch_size: a_batch_waits_for_company,
        padding_strategy: padding_is_refused,
    });
    // The third mode's fields, taken apart as well.
    if let BatchingMode::Continuous { max_sequences: _, scheduling: _ } = BatchingMode::default() {
        let batching =
            |max_sequences| BatchingMode::Continuous { max_sequences, scheduling: SchedulingPolicy::default() };
        let (_, stats) = crowd(EngineConfig { batching: batching(1), ..Default::default() }, 4, 50);
        assert!(stats.decode_rows <= stats.steps, "{stats:?}");
        refused(load(EngineConfig { batching: batching(0), ..Default::default() }), "batching");
        first_come_ignores_flows();
    }
    static_batches_let_nobody_join();
}

/// The fixture, written once.
fn path() -> &'static Path {
    static PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = PATH.get_or_init(|| {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = Fixture::chat().write(dir.path());
        (dir, path)
    });
    path
}

fn loaded(config: EngineConfig) -> Result<InferenceEngine, Error> {
    let engine = InferenceEngine::new(config);
    engine.load(path())?;
    Ok(engine)
}

/// An engine of one thread, and a session.
fn load(config: EngineConfig) -> Result<InferenceSession, Error> {
    let on_cpu = config.device.device == Device::Cpu && config.thread_pool.num_threads == 0;
    let threads = if on_cpu && config.num_threads == 0 { 1 } else { config.num_threads };
    loaded(EngineConfig { num_threads: threads, ..config })?.session()
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

fn greedy(count: usize) -> GenerateOptions {
    GenerateOptions::new().greedy().max_tokens(count).ignore_end()
}

fn answer(session: &InferenceSession, prompt: &str, count: usize) -> String {
    session.infer_with(&session.encode(prompt), greedy(count)).wait().expect("an answer").text
}

/// Letters, different for each `number`.
fn prompt(number: usize, length: usize) -> String {
    (0..length).map(|i| char::from(b'a' + ((number * 7 + i * (1 + number % 11)) % 26) as u8)).collect()
}

/// Answers `count` prompts of 100 tokens at once with `output` tokens each, and checks them.
fn crowd(config: EngineConfig, count: usize, output: usize) -> (InferenceSession, Stats) {
    let session = load(config).expect("a session");
    let prompts: Vec<String> = (0..count).map(|n| prompt(n, 100)).collect();
    let ask = |prompt: &String| session.infer_with(&session.encode(prompt), greedy(output));
    let answers: Vec<_> = prompts.iter().map(ask).collect();
    for (prompt, answer) in prompts.iter().zip(answers) {
        assert_eq!(answer.wait().expect("an answer").text, successors(prompt, output));
    }
    let stats = session.stats();
    (session, stats)
}

/// Eight sequences that need eight blocks each, on a cache of 1 MiB, which has fewer than 32 of them.
fn squeezed(config: EngineConfig) -> Stats {
    let cache = CacheConfig { max_cache_mb: 1, ..config.cache };
    let stats = crowd(EngineConfig { cache, ..config }, 8, 140).1;
    assert!(stats.preemptions > 0, "{stats:?}");
    assert!(stats.cache_bytes <= 1 << 20, "{stats:?}");
    stats
}

/// Has an engine that runs one request at a time answer `requests` in its own order, all handed in while another one runs;
/// returns the numbers in the order of their answers.
fn order(batching: BatchingMode, max_queue_ms: u64, requests: &[SessionConfig]) -> Vec<usize> {
    for _ in 0..100 {
        let config = EngineConfig { num_threads: 1, max_queue_ms, batching: batching.clone(), ..Default::default() };
        let engine = loaded(config).expect("loaded");
        let holder = engine.session().expect("a session");
        let held = holder.stream_ids(&holder.encode("a"), greedy(200)).expect("accepted");
        while engine.stats().running == 0 {
            thread::yield_now();
        }
        let sessions: Vec<_> = requests
            .iter()
            .map(|request| SessionConfig { batching: batching.clone(), ..request.clone() })
            .map(|request| engine.session_with(request).expect("a session"))
            .collect();
        let ask = |(n, session): (usize, &InferenceSession)| {
            session.infer_with(&session.encode(&prompt(n + 1, 40)), greedy(1))
        };
        let answers: Vec<_> = sessions.iter().enumerate().map(ask).collect();
        // Whoever is not yet in the queue when the place becomes free is not in the order.
        while engine.stats().waiting < requests.len() as u64 && engine.stats().finished == 0 {
            thread::yield_now();
        }
        if max_queue_ms > 0 {
            thread::sleep(Duration::from_millis(max_queue_ms + 1));
        }
        if engine.stats().finished > 0 {
            // The one that runs was too quick: once more.
            continue;
        }
        drop(held);
        let times: Vec<_> = answers.into_iter().map(|a| a.wait().expect("an answer").timings.queue_time).collect();
        let mut numbers: Vec<usize> = (0..requests.len()).collect();
        numbers.sort_by_key(|&n| times[n]);
        return numbers;
    }
    panic!("the first request never ran long enough");
}

fn one_at_a_time() -> BatchingMode {
    BatchingMode::Continuous { max_sequences: 1, scheduling: SchedulingPolicy::Fairness }
}

fn of_flow(flow: &str) -> SessionConfig {
    SessionConfig { flow: flow.to_owned(), ..SessionConfig::default() }
}

fn threads_are_as_many_as_asked_for() {
    let threads = load(EngineConfig::default().with_threads(2)).expect("loaded");
    assert!(threads.model().device().contains("2 threads"), "{}", threads.model().device());
    let thread_pool = ThreadPoolConfig { num_threads: 3, ..Default::default() };
    let both = EngineConfig { thread_pool, ..Default::default() }.with_threads(2);
    refused(load(both), "thread_pool.num_threads");
    refused(load(EngineConfig { device: reference(), ..EngineConfig::default() }.with_threads(2)), "num_threads");
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

fn threads_are_bound() {
    let config = EngineConfig { thread_affinity: true, ..EngineConfig::default() }.with_threads(2);
    if !cfg!(target_os = "linux") {
        return refused(load(config), "thread_affinity");
    }
    if CpuInfo::new().is_ok_and(|info| info.logical_processors() > 1) {
        let before = bound_threads();
        let bound = load(config).expect("loaded");
        // A thread binds itself when it first runs; the engine's own is one of the two.
        let both = |_| {
            thread::sleep(Duration::from_millis(1));
            bound_threads() >= before + 2
        };
        assert!((0..5000).any(both), "threads stay on one processor");
        drop(bound);
    }
}

fn one_node_is_accepted_where_threads_can_be_bound() {
    let config = EngineConfig { numa_aware: true, ..EngineConfig::default() };
    if cfg!(target_os = "linux") {
        assert_eq!(answer(&load(config).expect("loaded"), "a", 3), "bcd");
    } else {
        refused(load(config), "numa_aware");
    }
}

fn reference() -> DeviceConfig {
    DeviceConfig { device: Device::Reference, ..DeviceConfig::default() }
}

fn the_device_is_the_one_asked_for() {
    let reference = load(EngineConfig { device: reference(), ..EngineConfig::default() }).expect("loaded");
    assert!(reference.model().device().starts_with("reference"));
}

fn features_are_obeyed() {
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
    let cpu_features = CpuFeatures { force_scalar: true, ..detected };
    let device = DeviceConfig { cpu_features, ..reference() };
    refused(load(EngineConfig { device, ..EngineConfig::default() }), "cpu_features");
}

fn pool(change: fn(&mut ThreadPoolConfig)) -> Result<InferenceSession, Error> {
    let mut config = EngineConfig::default();
    change(&mut config.thread_pool);
    config.thread_pool.num_threads = 3;
    load(config)
}

fn the_pool_has_as_many_threads() {
    let threads = pool(|_| ()).expect("loaded");
    assert!(threads.model().device().contains("3 threads"), "{}", threads.model().device());
}

/// What a pool does with these settings is tested where the pool is; here, that they reach it and change no answer.
fn answers_with_three_threads(change: fn(&mut ThreadPoolConfig)) {
    let session = pool(change).expect("loaded");
    let text = prompt(3, 120);
    assert_eq!(answer(&session, &text, 20), successors(&text, 20));
    let mut thread_pool = ThreadPoolConfig::default();
    change(&mut thread_pool);
    let elsewhere = load(EngineConfig { thread_pool, device: reference(), ..EngineConfig::default() });
    refused(elsewhere, "thread_pool");
}

fn work_is_stolen_or_not_and_answers_are_the_same() {
    answers_with_three_threads(|pool| pool.stealing_enabled = false);
}

fn units_have_any_size_but_none() {
    answers_with_three_threads(|pool| pool.chunk_size = 1);
    answers_with_three_threads(|pool| pool.chunk_size = 100_000);
    refused(pool(|pool| pool.chunk_size = 0), "chunk_size");
}

fn queues_have_any_size_but_none() {
    answers_with_three_threads(|pool| pool.local_queue_capacity = 1);
    refused(pool(|pool| pool.local_queue_capacity = 0), "local_queue_capacity");
}

fn with_pool(memory: MemoryConfig) -> Result<InferenceSession, Error> {
    load(EngineConfig { memory, ..EngineConfig::default() })
}

fn pooled() -> MemoryConfig {
    MemoryConfig { use_memory_pool: true, ..MemoryConfig::default() }
}

fn the_pool_is_used() {
    assert_eq!(with_pool(MemoryConfig::default()).expect("loaded").model().memory_pool(), None);
    let session = with_pool(pooled()).expect("loaded");
    let pool = || session.model().memory_pool().expect("a pool");
    let before = pool();
    assert!(before.used_bytes > 0);
    answer(&session, "a", 4);
    assert_eq!(pool(), before, "nothing is taken during inference");
}

fn the_pool_has_a_size() {
    let small = MemoryConfig { pool_size_mb: 0, ..pooled() };
    let error = with_pool(small).map(drop).expect_err("no room for anything").to_string();
    assert!(error.contains("memory pool"), "{error}");
    refused(with_pool(MemoryConfig { pool_size_mb: 7, ..MemoryConfig::default() }), "memory");
}

fn buffers_are_aligned() {
    refused(with_pool(MemoryConfig { pool_alignment: 48, ..pooled() }), "pool_alignment");
    let bytes = |pool_alignment| {
        let session = with_pool(MemoryConfig { pool_alignment, ..pooled() }).expect("loaded");
        session.model().memory_pool().expect("a pool").used_bytes
    };
    assert!(bytes(4096) > bytes(64), "the room before an aligned address counts");
}

fn buffers_are_used_again() {
    for reuse_buffers in [true, false] {
        let model = Model::builder(path()).memory(MemoryConfig { reuse_buffers, ..pooled() }).load().expect("loaded");
        let pool = || model.memory_pool().expect("a pool");
        drop(model.session().expect("room"));
        assert_eq!((pool().used_bytes, pool().idle_bytes > 0), (0, reuse_buffers));
        let open = model.session().expect("room");
        assert_eq!((pool().used_bytes > 0, pool().reused > 0), (true, reuse_buffers));
        drop(open);
    }
}

fn the_context_is_as_long_as_asked_for() {
    let context = load(EngineConfig { context: Some(64), ..EngineConfig::default() }).expect("loaded");
    assert_eq!(context.model().context(), 64);
    let small = load(EngineConfig { context: Some(64), ..EngineConfig::default().with_batch_size(3) });
    assert_eq!(small.expect("a session").stats().blocks_total, 6, "three sequences of two blocks");
}

/// Steps that a prompt of 200 tokens and one further token take.
fn steps(config: EngineConfig) -> u64 {
    let session = load(config).expect("a session");
    answer(&session, &prompt(0, 200), 1);
    session.stats().steps
}

fn short_steps_cut_prompts() {
    assert_eq!(steps(EngineConfig::default()), 1);
    // Without any time, a step still gets on by one tile of 16.
    assert_eq!(steps(EngineConfig { step_ms: 0, ..EngineConfig::default() }), 201_u64.div_ceil(16));
}

fn steps_are_small_where_answers_must_be_equal() {
    assert!(steps(EngineConfig { deterministic: true, ..EngineConfig::default() }) > 20);
    let cache = CacheConfig { compression: CacheCompression::Preempted, ..CacheConfig::default() };
    refused(load(EngineConfig { deterministic: true, cache, ..EngineConfig::default() }), "compression");
}

fn a_full_queue_refuses() {
    let queue = load(EngineConfig { max_queued: 0, ..EngineConfig::default() }).expect("a session");
    assert_eq!(queue.infer(&[5]).wait().map(drop).expect_err("no place").kind(), ErrorKind::Busy);
}

fn who_waited_too_long_goes_first() {
    let requests = [0, 5].map(|priority| SessionConfig { priority, ..SessionConfig::default() });
    assert_eq!(order(one_at_a_time(), 0, &requests), [1, 0], "by priority, however long");
    assert_eq!(order(one_at_a_time(), 1, &requests), [0, 1], "both are overdue: by arrival");
}

fn what_gives_way_is_written_to_a_file() {
    assert_eq!(squeezed(EngineConfig::default()).blocks_spilled, 0);
    let stats = squeezed(EngineConfig { spill_mb: 4, ..EngineConfig::default() });
    assert!(stats.blocks_spilled > 0 && stats.lost_steps == 0, "{stats:?}");
}

fn the_file_is_in_its_folder() {
    let spill_dir = PathBuf::from("/nonexistent");
    let stats = squeezed(EngineConfig { spill_mb: 4, spill_dir, ..EngineConfig::default() });
    assert!(stats.lost_steps > 0, "a file in no folder: {stats:?}");
}

fn models_are_quantised_while_they_are_loaded() {
    let quantised = load(EngineConfig::default().with_quantization(QuantType::Q8_0)).expect("quantised");
    assert!(quantised.model().summary().types.iter().any(|share| share.ty == woolly::TensorType::Q8_0));
}

fn files_are_mapped_or_read() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let own = Fixture::chat().write(dir.path());
    let is_mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        maps.contains(&*own.to_string_lossy())
    };
    for mmap in [true, false] {
        let engine = InferenceEngine::new(EngineConfig { mmap, num_threads: 1, ..EngineConfig::default() });
        engine.load(&own).expect("loaded");
        assert_eq!(is_mapped(), mmap && cfg!(target_os = "linux"));
        assert_eq!(answer(&engine.session().expect("a session"), "a", 2), "bc");
    }
}

fn memory_has_a_limit() {
    let tight = load(EngineConfig::memory_constrained(1)).map(drop);
    assert_eq!(tight.expect_err("the weights alone have more").kind(), ErrorKind::OutOfMemory);
    let config = |mb| EngineConfig::memory_constrained(mb).with_batch_size(32);
    let least = (1..64).find(|&mb| load(config(mb)).is_ok()).expect("some limit does");
    let blocks = |config: EngineConfig| {
        let stats = crowd(config, 4, 100).1;
        assert!(stats.cache_bytes <= 2 << 20, "one MiB more leaves less than two: {stats:?}");
        stats.blocks_total
    };
    let exact = blocks(config(least + 1));
    let compressed = blocks(config(least + 1).with_cache_compression());
    assert!(compressed > exact, "{compressed} blocks compressed, {exact} exact");
}

fn the_cache_stays_within_its_limit() {
    let stats = squeezed(EngineConfig::default());
    assert!((16..32).contains(&stats.blocks_total), "blocks of 32 KiB and tables within 1 MiB: {stats:?}");
    let large = load(EngineConfig::default().with_cache_size_mb(2)).expect("a session");
    assert!((48..64).contains(&large.stats().blocks_total), "{:?}", large.stats());
}

fn the_policy_decides_what_is_forgotten() {
    let survives = |eviction_policy| {
        let cache = CacheConfig { max_cache_mb: 1, eviction_policy, ..CacheConfig::default() };
        let session = load(EngineConfig { cache, ..EngineConfig::default() }).expect("a session");
        // Without the token that begins every text: whoever has it uses the block of the others that begins with it.
        let tokens = |n: usize, length: usize| session.encode(&prompt(n, length)).split_off(1);
        let popular = tokens(0, 40);
        let ask = |tokens: &[u32]| session.infer_with(tokens, greedy(1)).wait().expect("an answer").usage.cached_tokens;
        for _ in 0..5 {
            ask(&popular);
        }
        for n in 1..8 {
            ask(&tokens(n, 200));
        }
        assert!(session.stats().blocks_evicted > 0);
        ask(&popular)
    };
    let (frequent, recent) = (survives(EvictionPolicy::LFU), survives(EvictionPolicy::LRU));
    assert!(frequent >= 32 && recent < 32, "{frequent} and {recent} tokens of what was asked most are left");
}

fn compressed(compression: CacheCompression) -> EngineConfig {
    EngineConfig { cache: CacheConfig { compression, ..CacheConfig::default() }, ..EngineConfig::default() }
}

fn compression_is_of_nothing_of_what_gives_way_or_of_everything() {
    let [none, preempted, all] =
        [CacheCompression::Disabled, CacheCompression::Preempted, CacheCompression::Enabled].map(compressed);
    assert_eq!(squeezed(none.clone()).blocks_compressed, 0);
    assert!(squeezed(preempted).blocks_compressed > 0);
    let blocks = |config: EngineConfig| load(config.with_cache_size_mb(16)).expect("a session").stats().blocks_total;
    // Blocks of 13 KiB are rounded up to pages of 4 here; larger models save two and a half times.
    let (exact, compressed) = (blocks(none), blocks(all.clone()));
    assert!(compressed as f64 >= 1.9 * exact as f64, "{compressed} blocks instead of {exact}");
    assert_eq!(crowd(all.clone(), 4, 30).1.blocks_compressed, 0, "there is nothing left to compress");
    let stored = |ty, config: EngineConfig| {
        let model = Model::builder(path()).cache_type(ty).load().expect("loaded");
        let engine = InferenceEngine::new(config);
        engine.load_model(&model)?;
        engine.session()
    };
    refused(stored(woolly::CacheType::F32, all.clone()), "compression");
    assert!(stored(woolly::CacheType::Q8Q4, all).is_ok());
    refused(stored(woolly::CacheType::Q8, compressed_when_preempted()), "compression");
    assert!(stored(woolly::CacheType::F32, compressed_when_preempted()).is_ok());
}

fn compressed_when_preempted() -> EngineConfig {
    compressed(CacheCompression::Preempted)
}

fn sessions_share_or_do_not() {
    for shared_cache in [true, false] {
        let engine = loaded(EngineConfig { num_threads: 1, ..EngineConfig::default() }).expect("loaded");
        let cache_config = CacheConfig { shared_cache, ..CacheConfig::default() };
        let config = SessionConfig { cache_config, generation: greedy(1), ..SessionConfig::default() };
        let cached = [0, 1].map(|_| {
            let session = engine.session_with(config.clone()).expect("a session");
            let tokens = session.encode(&prompt(0, 100));
            session.infer(&tokens).wait().expect("an answer").usage.cached_tokens
        });
        assert_eq!((cached[0], cached[1] > 0), (0, shared_cache));
    }
}

fn own(change: fn(&mut SessionConfig)) -> Stats {
    let engine = loaded(EngineConfig { num_threads: 1, ..EngineConfig::default() }).expect("loaded");
    let mut config = SessionConfig { generation: greedy(20), ..SessionConfig::default() };
    change(&mut config);
    let session = engine.session_with(config).expect("a session");
    let answers: Vec<_> = (0..3).map(|n| session.infer(&session.encode(&prompt(n, 10)))).collect();
    answers.into_iter().for_each(|answer| assert_eq!(answer.wait().expect("an answer").tokens.len(), 20));
    session.stats()
}

fn a_session_brings_its_own_cache() {
    assert!(own(|config| config.cache_config.max_cache_mb = 1).blocks_total < 32);
    assert!(own(|_| ()).blocks_total > 32);
}

fn a_session_brings_its_own_batching() {
    let stats = own(|config| config.batching = one_at_a_time());
    assert!(stats.decode_rows <= stats.steps, "{stats:?}");
}

fn answers_are_generated_as_the_session_says() {
    let engine = loaded(EngineConfig { num_threads: 1, ..EngineConfig::default() }).expect("loaded");
    let config = SessionConfig { generation: greedy(7), ..SessionConfig::default() };
    let session = engine.session_with(config).expect("a session");
    assert_eq!(session.infer(&session.encode("a")).wait().expect("an answer").text, successors("a", 7));
}

fn flows_take_turns() {
    let requests = ["a", "a", "a", "b"].map(of_flow);
    assert_eq!(order(one_at_a_time(), 0, &requests), [0, 3, 1, 2]);
}

fn first_come_ignores_flows() {
    let requests = ["a", "a", "a", "b"].map(of_flow);
    let batching = BatchingMode::Continuous { max_sequences: 1, scheduling: SchedulingPolicy::FirstCome };
    assert_eq!(order(batching, 0, &requests), [0, 1, 2, 3]);
}

fn weights_count() {
    let requests = ["a", "a", "b", "b", "b"].map(|flow| {
        let weight = if flow == "b" { 4.0 } else { 1.0 };
        SessionConfig { weight, ..of_flow(flow) }
    });
    assert_eq!(order(one_at_a_time(), 0, &requests), [0, 2, 3, 4, 1]);
    let weightless = SessionConfig { weight: 0.0, ..of_flow("c") };
    let engine = loaded(EngineConfig { num_threads: 1, ..EngineConfig::default() }).expect("loaded");
    let session = engine.session_with(weightless).expect("a session");
    assert_eq!(session.infer(&[5]).wait().map(drop).expect_err("no share").kind(), ErrorKind::InvalidRequest);
}

fn priorities_count() {
    let requests = [0, 1, 2].map(|priority| SessionConfig { priority, ..SessionConfig::default() });
    assert_eq!(order(one_at_a_time(), 0, &requests), [2, 1, 0]);
}

/// A batch that is complete with `size` requests and waits an hour for them.
fn patient(size: usize) -> BatchConfig {
    BatchConfig { max_batch_size: size, min_batch_size: size, max_wait_ms: 3_600_000, ..BatchConfig::default() }
}

fn no_more_than_a_batch_runs() {
    for size in [2, 4] {
        let batching = BatchingMode::Dynamic(patient(size));
        let (_, stats) = crowd(EngineConfig { batching, ..EngineConfig::default() }, 4, 50);
        let most = size as f64;
        assert!((most / 2.0..=most).contains(&stats.occupancy()), "{size}: {stats:?}");
    }
    let none = BatchConfig { max_batch_size: 0, min_batch_size: 0, ..BatchConfig::default() };
    both_kinds_are_refused(&none, "batching");
}

fn a_batch_waits_no_longer() {
    let batching = BatchingMode::Dynamic(BatchConfig { max_wait_ms: 1, ..patient(4) });
    let session = load(EngineConfig { batching, ..EngineConfig::default() }).expect("a session");
    assert_eq!(answer(&session, "a", 2), "bc");
}

fn a_batch_waits_for_company() {
    let batching = BatchingMode::Dynamic(patient(3));
    let session = load(EngineConfig { batching, ..EngineConfig::default() }).expect("a session");
    let ask = |text: &str| session.infer_with(&session.encode(text), greedy(3));
    let mut waiting = vec![ask("a"), ask("b")];
    thread::sleep(Duration::from_millis(30));
    assert_eq!(session.stats().steps, 0, "two are no batch");
    waiting.push(ask("c"));
    let answers: Vec<_> = waiting.into_iter().map(|answer| answer.wait().expect("an answer").text).collect();
    assert_eq!(answers, ["bcd", "cde", "def"]);
    both_kinds_are_refused(&BatchConfig { min_batch_size: 5, ..patient(4) }, "min_batch_size");
}

fn padding_is_refused() {
    for padding_strategy in [PaddingStrategy::Longest, PaddingStrategy::Fixed(64)] {
        both_kinds_are_refused(&BatchConfig { padding_strategy, ..BatchConfig::default() }, "padding_strategy");
    }
}

fn both_kinds_are_refused(config: &BatchConfig, field: &str) {
    for batching in [BatchingMode::Static(config.clone()), BatchingMode::Dynamic(config.clone())] {
        refused(load(EngineConfig { batching, ..EngineConfig::default() }), field);
    }
}

fn static_batches_let_nobody_join() {
    let batching = BatchingMode::Static(BatchConfig { max_batch_size: 3, ..patient(2) });
    let session = load(EngineConfig { batching, ..EngineConfig::default() }).expect("a session");
    let ask = |count| session.stream_ids(&session.encode("a"), greedy(count)).expect("accepted");
    let (short, long) = (ask(2), ask(200));
    while session.stats().running < 2 && session.stats().finished == 0 {
        thread::yield_now();
    }
    // Both are for the next batch, though there is a third place in this one.
    let late = [ask(2), ask(2)];
    [short, long].into_iter().for_each(|stream| assert!(stream.into_iter().all(|chunk| chunk.is_ok())));
    late.into_iter().for_each(|stream| assert!(stream.into_iter().all(|chunk| chunk.is_ok())));
    let stats = session.stats();
    assert_eq!((stats.finished, stats.steps), (4, 200 + 2), "one batch after the other");
}

#[test]
fn sessions_that_contradict_each_other_are_refused() {
    let engine = loaded(EngineConfig::default()).expect("loaded");
    let open = engine.session().expect("a session");
    let cache = |change: fn(&mut CacheConfig)| {
        let mut config = SessionConfig::default();
        change(&mut config.cache_config);
        engine.session_with(config)
    };
    refused(cache(|cache| cache.max_cache_mb = 7), "max_cache_mb");
    refused(cache(|cache| cache.eviction_policy = EvictionPolicy::LFU), "eviction_policy");
    refused(cache(|cache| cache.compression = CacheCompression::Enabled), "compression");
    let other = BatchingMode::Continuous { max_sequences: 3, scheduling: SchedulingPolicy::Fairness };
    refused(engine.session_with(SessionConfig { batching: other.clone(), ..SessionConfig::default() }), "batching");
    assert!(cache(|cache| cache.shared_cache = false).is_ok(), "each session decides for itself what it shares");
    drop(open);
    assert!(engine.session_with(SessionConfig { batching: other, ..SessionConfig::default() }).is_ok());
}

#[test]
fn a_loaded_model_refuses_settings_that_come_too_late() {
    let model = Model::load(path()).expect("a valid model");
    let default = EngineConfig::default;
    let cases = [
        ("num_threads", default().with_threads(2)),
        ("thread_affinity", EngineConfig { thread_affinity: true, ..default() }),
        ("numa_aware", EngineConfig { numa_aware: true, ..default() }),
        ("memory", EngineConfig { memory: pooled(), ..default() }),
        ("device", EngineConfig { device: reference(), ..default() }),
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
