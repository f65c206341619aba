//! The calls of the performance guide's section on benchmarking, as written there.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use woolly::{InferenceEngine, InferenceSession, Model};
use woolly_bench::{Benchmark, Report, Reporter, get_memory_usage};

#[test]
fn built_in_benchmarking() {
    let model = Model::from_gguf(&woolly::lamb::open().expect("built in")).expect("loads");
    let engine = InferenceEngine::new(woolly::EngineConfig::default());
    engine.load_model(&model).expect("fits");
    let session = engine.session().expect("opens");
    let tokens = session.encode("Once upon a time");

    let report = block_on(inference_bench(&session, &tokens)).expect("answers");
    let metrics: Vec<_> = report.benchmarks()[0].metrics().map(|(name, values)| (name, values.len())).collect();
    assert_eq!(metrics, [("tokens_per_second", 2), ("memory_usage_mb", 2), ("first_token_ms", 0)]);
    assert!(report.benchmarks()[0].statistics("tokens_per_second").expect("recorded").min > 0.0);
    assert!(report.to_string().contains("| memory_usage_mb |"), "{report}");
}

async fn inference_bench(session: &InferenceSession, tokens: &[u32]) -> Result<Report, woolly::Error> {
    // Create benchmark
    let mut bench = Benchmark::new("inference_bench");

    // Add metrics
    bench.add_metric("tokens_per_second");
    bench.add_metric("memory_usage_mb");
    bench.add_metric("first_token_ms");

    // Run benchmark
    for _ in 0..2 {
        let start = Instant::now();
        let result = session.infer(tokens).await?;

        bench.record("tokens_per_second", result.tokens.len() as f64 / start.elapsed().as_secs_f64());
        bench.record("memory_usage_mb", get_memory_usage() as f64 / 1024.0 / 1024.0);
    }

    // Generate report
    let report = Reporter::new().add_benchmark(bench).generate();
    Ok(report)
}

#[cfg(feature = "profile")]
#[test]
fn profile_guided_optimization() {
    use woolly_bench::Profiler;

    // Enable profiling
    let profiler = Profiler::new();
    profiler.start();

    // Run workload
    let start = Instant::now();
    let mut sum = 0.0_f64;
    while start.elapsed().as_millis() < 400 {
        sum += std::hint::black_box(f64::from(start.elapsed().subsec_nanos())).sqrt();
    }

    // Analyze results
    let profile = profiler.stop();
    assert!(sum > 0.0 && profile.error().is_none(), "{:?}", profile.error());
    let hottest: Vec<_> =
        profile.top_functions(10).into_iter().map(|(func, percent)| format!("{func}: {percent:.1}%")).collect();
    assert!(!hottest.is_empty() && hottest.len() <= 10, "{hottest:?}");
    assert!(profile.top_functions(1)[0].1 > 0.0);
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
