//! The calls of the performance guide, spelled as there.

mod fixture;

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use fixture::Fixture;
use woolly::prelude::*;
use woolly::quantize::{QuantizeOptions, quantize_in_memory};
use woolly::{GGUFWriter, TensorType};

/// Stands for the crate of this name, which the guide uses.
mod num_cpus {
    pub(super) fn get() -> usize {
        std::thread::available_parallelism().map_or(2, std::num::NonZero::get).max(2)
    }
}

/// Polls until ready: enough for a test.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        std::thread::yield_now();
    }
}

/// Held while answers are computed: the monitor counts those of the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Loads a model, opens a session and has it answer; a machine without the memory asked for says so instead.
fn answers(config: EngineConfig, session: Option<SessionConfig>) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("temporary folder");
    let engine = InferenceEngine::new(config);
    engine.load(Fixture::chat().write(dir.path())).expect("a valid model");
    let session = session.map_or_else(|| engine.session(), |config| engine.session_with(config));
    match session {
        Ok(session) => {
            let few = GenerateOptions::new().greedy().max_tokens(5).ignore_end();
            let result = session.infer_with(&session.encode("once"), few).wait().expect("an answer");
            assert_eq!(result.tokens.len(), 5);
        }
        Err(error) => assert_eq!(error.kind(), woolly::ErrorKind::OutOfMemory, "{error}"),
    }
}

#[test]
fn batch_processing() {
    let config = BatchConfig {
        max_batch_size: 16,
        max_wait_ms: 50,   // Wait up to 50ms to form batch
        min_batch_size: 4, // Start processing at 4 requests
        padding_strategy: PaddingStrategy::Efficient,
    };
    let engine = InferenceEngine::with_batch_config(config.clone());
    assert_eq!(engine.config().batching, BatchingMode::Dynamic(config));
    answers(engine.config().clone(), None);

    let config = SessionConfig {
        batching: BatchingMode::Continuous { max_sequences: 32, scheduling: SchedulingPolicy::Fairness },
        ..Default::default()
    };
    assert_eq!(config.batching.max_sequences(), 32);
    answers(EngineConfig::default(), Some(config));
}

#[test]
#[expect(clippy::needless_update, reason = "spelled as in the guide")]
fn memory_pool_architecture() {
    // Configure memory pools
    let config = EngineConfig {
        memory: MemoryConfig {
            use_memory_pool: true,
            pool_size_mb: 4096,  // 4GB pool
            pool_alignment: 64,  // Cache line aligned
            reuse_buffers: true, // Recycle allocations
            ..Default::default()
        },
        ..Default::default()
    };
    let dir = tempfile::tempdir().expect("temporary folder");
    let engine = InferenceEngine::new(config);
    engine.load(Fixture::chat().write(dir.path())).expect("a valid model");
    let session = engine.session().expect("a session");
    assert!(session.model().memory_pool().is_some_and(|pool| pool.used_bytes > 0));
}

#[test]
fn intelligent_kv_cache_management() {
    let config = SessionConfig {
        cache_config: CacheConfig {
            max_cache_mb: 2048, // 2GB cache limit
            eviction_policy: EvictionPolicy::LRU,
            compression: CacheCompression::Enabled,
            shared_cache: true, // Share across sessions
        },
        ..Default::default()
    };
    assert_eq!(config.cache_config.max_cache_mb, 2048);
    answers(EngineConfig::default(), Some(config));
}

#[test]
fn configuration_templates() {
    let config = EngineConfig::low_latency().with_threads(4).with_batch_size(1).with_cache_size_mb(512);
    assert_eq!((config.num_threads, config.batching.max_sequences(), config.cache.max_cache_mb), (4, 1, 512));
    assert!(config.step_ms < EngineConfig::default().step_ms);
    answers(config, None);

    let config = EngineConfig::high_throughput()
        .with_threads(num_cpus::get())
        .with_batch_size(16)
        .with_continuous_batching()
        .with_cache_size_mb(4096);
    assert!(matches!(config.batching, BatchingMode::Continuous { max_sequences: 16, .. }));
    assert!(config.step_ms > EngineConfig::default().step_ms);
    answers(config, None);

    let config = EngineConfig::memory_constrained(2048) // 2GB limit
        .with_quantization(QuantType::Q4_0)
        .with_cache_compression()
        .with_mmap();
    assert_eq!((config.memory_limit_mb, config.quantization), (Some(2048), Some(QuantType::Q4_0)));
    assert_eq!(config.cache.compression, CacheCompression::Enabled);
    answers(config, None);
}

#[test]
fn simd_and_vectorization() {
    // Check available features
    let features = CpuFeatures::detect();
    println!("CPU Features:");
    println!("  AVX2: {}", features.has_avx2);
    println!("  AVX-512: {}", features.has_avx512);
    println!("  FMA: {}", features.has_fma);
    println!("  ARM NEON: {}", features.has_neon);

    // Manually configure if needed
    let config = EngineConfig {
        device: DeviceConfig {
            cpu_features: CpuFeatures {
                force_avx512: true, // Force AVX-512 usage
                ..features
            },
            ..Default::default()
        },
        ..Default::default()
    };
    let dir = tempfile::tempdir().expect("temporary folder");
    let engine = InferenceEngine::new(config);
    let loaded = engine.load(Fixture::chat().write(dir.path()));
    if features.has_avx512 && features.has_avx512_vnni {
        loaded.expect("a valid model");
        assert!(engine.model().expect("loaded").device().contains("avx512"));
    } else {
        let error = loaded.expect_err("this processor lacks it").to_string();
        assert!(error.contains("force_avx512"), "{error}");
    }
}

#[test]
fn optimized_matrix_operations() {
    let a = tensor::Tensor::new(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let b = a.clone();
    let mut c = tensor::Tensor::zeros(&[2, 2]);
    // Automatically uses best SIMD variant
    tensor::matmul(&a, &b, &mut c);
    assert_eq!(c.data(), [7.0, 10.0, 15.0, 22.0]);

    let input = tensor::Tensor::from_slice(&[-1.0, 0.0, 1.0, 2.0]);
    let (mut output, weights) = (input.clone(), tensor::Tensor::from_slice(&[1.0; 4]));
    // SIMD-optimized activations
    tensor::gelu(&input, &mut output); // GELU
    assert!((output.data()[2] - 0.841_192).abs() < 1e-4, "{output:?}");
    tensor::softmax(&input, &mut output); // Softmax
    assert!((output.data().iter().sum::<f32>() - 1.0).abs() < 1e-6, "{output:?}");
    tensor::layer_norm(&input, &mut output, &weights); // LayerNorm
    assert!(output.data().iter().sum::<f32>().abs() < 1e-5, "{output:?}");
}

#[test]
fn thread_management() {
    // Auto-detect optimal thread count
    let optimal_threads = match CpuInfo::new() {
        Ok(info) => {
            let physical_cores = info.physical_cores();
            #[expect(unused_variables, reason = "spelled as in the guide")]
            let cache_size_mb = info.l3_cache_mb();

            // Leave some cores for system
            if physical_cores > 8 { physical_cores - 2 } else { physical_cores }
        }
        Err(_) => num_cpus::get() - 1,
    };

    let config = EngineConfig {
        num_threads: optimal_threads,
        thread_affinity: true, // Pin threads to cores
        numa_aware: true,      // NUMA optimization
        ..Default::default()
    };
    let dir = tempfile::tempdir().expect("temporary folder");
    let engine = InferenceEngine::new(config);
    engine.load(Fixture::chat().write(dir.path())).expect("a valid model");
    let device = engine.model().expect("loaded").device();
    assert!(device.contains(&format!("{optimal_threads} thread")), "{device}");

    // Configure work stealing
    let config = ThreadPoolConfig {
        num_threads: 16,
        stealing_enabled: true,
        chunk_size: 64,            // Work unit size
        local_queue_capacity: 256, // Per-thread queue
    };
    assert_eq!(config, ThreadPoolConfig { num_threads: 16, ..Default::default() });
    answers(EngineConfig { thread_pool: config, ..Default::default() }, None);
}

#[test]
fn performance_monitoring() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().expect("temporary folder");
    let engine = InferenceEngine::new(EngineConfig::default());
    engine.load(Fixture::chat().write(dir.path())).expect("a valid model");
    let session = engine.session().expect("a session");
    let tokens = session.encode("Once upon a time");

    // Real-time monitoring
    let monitor = PerformanceMonitor::new();
    monitor.start();

    // Run inference
    let result = block_on(async { session.infer(&tokens).await }).expect("an answer");

    // Get metrics
    let metrics = monitor.snapshot();
    println!("Performance Metrics:");
    println!("  Inference time: {:?}", metrics.inference_time);
    println!("  Tokens/sec: {:.1}", metrics.tokens_per_second);
    println!("  Memory allocated: {:.1} MB", metrics.memory_allocated_mb);
    println!("  CPU usage: {:.1}%", metrics.cpu_usage_percent);
    println!("  Cache hit rate: {:.1}%", metrics.cache_hit_rate * 100.0);

    assert!(!result.tokens.is_empty() && !metrics.inference_time.is_zero());
    let generated = metrics.tokens_per_second * metrics.inference_time.as_secs_f64();
    assert!((generated - result.tokens.len() as f64).abs() < 0.5, "{generated} tokens");
    if cfg!(target_os = "linux") {
        assert!(metrics.memory_allocated_mb > 1.0 && metrics.cpu_usage_percent >= 0.0);
    }
    let of_engine = PerformanceMonitor::of(&engine);
    assert!(of_engine.snapshot().inference_time.is_zero(), "it counts from its start on");
}

/// Matrices of a Llama with 32 layers, as the guide's example has, in a file without a tokenizer.
fn thirty_two_layers(path: &std::path::Path) -> GGUFLoader {
    const WIDTH: usize = 256;
    let mut file = GGUFWriter::new();
    file.set("general.architecture", "llama").set("llama.block_count", 32_u32);
    let weights: Vec<u8> = (0..WIDTH * WIDTH).flat_map(|i| ((i % 101) as f32 * 0.02 - 1.0).to_le_bytes()).collect();
    let layers = (0..32).map(|layer| format!("blk.{layer}.attn_q.weight"));
    for name in ["token_embd.weight".to_owned()].into_iter().chain(layers) {
        file.tensor(&name, &[WIDTH as u64; 2], TensorType::F32, weights.clone());
    }
    file.write_file(path).expect("a writable folder");
    GGUFLoader::open(path).expect("a valid file")
}

#[test]
fn mixed_precision() {
    let quant_config = QuantizationConfig {
        // Keep critical layers in higher precision
        layer_config: vec![
            (0..4, QuantType::Q8_0),    // Early layers: Q8
            (4..28, QuantType::Q4_K_M), // Middle layers: Q4
            (28..32, QuantType::Q8_0),  // Final layers: Q8
        ],
        // Always keep embeddings in FP16
        embeddings: QuantType::FP16,
    };
    let dir = tempfile::tempdir().expect("temporary folder");
    let input = thirty_two_layers(&dir.path().join("layers.gguf"));
    let (output, _) = quantize_in_memory(&input, QuantizeOptions::new(quant_config)).expect("quantised");
    let ty = |name: &str| output.tensor(name).expect("a tensor").ty();
    assert_eq!(ty("token_embd.weight"), TensorType::F16);
    for layer in 0..32 {
        let expected = if (4..28).contains(&layer) { TensorType::Q4_K } else { TensorType::Q8_0 };
        assert_eq!(ty(&format!("blk.{layer}.attn_q.weight")), expected, "layer {layer}");
    }
}

#[test]
fn dynamic_quantization() {
    fn of_the_guide(loader: GGUFLoader) -> Result<(Model, Model, f64), woolly::Error> {
        // Load FP16 model and quantize to Q4_K_M
        let model = Model::from_gguf(&loader)?;
        let quantized = model.quantize(QuantType::Q4_K_M)?;

        // Benchmark quality loss
        let perplexity_loss = benchmark_perplexity(&model, &quantized)?;
        println!("Quality loss: {:.2}%", perplexity_loss * 100.0);
        Ok((model, quantized, perplexity_loss))
    }
    let dir = tempfile::tempdir().expect("temporary folder");
    let loader = GGUFLoader::open(Fixture::default().write(dir.path())).expect("a valid file");
    let (model, quantized, loss) = of_the_guide(loader).expect("a valid model");
    // The successor of each letter is the next, whatever the type of the weights.
    let answer = |model: &Model| model.generate_with("abc", GenerateOptions::new().greedy().max_tokens(5));
    for model in [&model, &quantized] {
        assert_eq!(answer(model).expect("an answer").text, fixture::successors("abc", 5));
    }
    assert!(loss.abs() < 0.5, "{loss}");
}
