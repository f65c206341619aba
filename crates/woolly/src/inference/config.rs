//! What can be said about an engine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use woolly_cpu::topology::CAN_BIND;
use woolly_engine::CacheOptions;
use woolly_engine::kv::{CacheCompression, EvictionPolicy};
use woolly_gguf::GGUFLoader;
use woolly_tensor::{BLOCK_TOKENS, CacheType};

use super::{BatchingMode, SessionConfig};
use crate::hardware::{DeviceConfig, MemoryConfig, ThreadPoolConfig};
use crate::quantize::{QuantType, QuantizeOptions, quantize_in_memory};
use crate::{Device, Error, Model, ModelBuilder, memory};

const MIB: u64 = 1 << 20;

/// How keys and values are stored where all of them are compressed.
const COMPRESSED: CacheType = CacheType::Q8Q4;

/// How an [`InferenceEngine`](super::InferenceEngine) works. Each setting does what it says, or loading a model or opening
/// a session says why it cannot.
///
/// ```
/// use woolly::{EngineConfig, QuantType};
///
/// let config = EngineConfig::memory_constrained(2048)
///     .with_quantization(QuantType::Q4_0)
///     .with_cache_compression()
///     .with_mmap();
/// assert_eq!(config.memory_limit_mb, Some(2048));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// Threads that compute; 0, the default, takes the physical cores that this process may use.
    pub num_threads: usize,
    /// Whether each of these threads is bound to a processor of its own. Default off.
    pub thread_affinity: bool,
    /// Whether threads stay on one memory node, that of the first processor allowed. Default off; it changes nothing on
    /// machines with one node.
    pub numa_aware: bool,
    /// Where activations and logits lie.
    pub memory: MemoryConfig,
    /// The device and its instructions.
    pub device: DeviceConfig,
    /// How work is spread over threads. Its `num_threads` counts where this configuration's own is 0.
    pub thread_pool: ThreadPoolConfig,
    /// When requests are computed together, for sessions that say nothing else.
    pub batching: BatchingMode,
    /// The key-value cache, for sessions that say nothing else.
    pub cache: CacheConfig,
    /// Most tokens of a prompt and its answer together; `None`, the default, is the smaller of 4096 and the model's
    /// own limit, which 0 stands for.
    pub context: Option<usize>,
    /// Milliseconds aimed at from one token of an answer to the next while prompts are computed beside it. Default 200.
    /// Steps that only compute prompts may take two and a half times as long.
    pub step_ms: u64,
    /// Most requests that may wait; more are refused at once. Default 16,384.
    pub max_queued: usize,
    /// Milliseconds after which a waiting request goes before all others, whatever its priority; 0 is never. Default
    /// 30,000.
    pub max_queue_ms: u64,
    /// Most MiB of a file for what preempted requests computed, so that it need not be computed again; 0, the default, for
    /// none.
    pub spill_mb: usize,
    /// The folder of this file; one in memory would defeat its purpose.
    pub spill_dir: PathBuf,
    /// Whether greedy and seeded answers are the same, token for token, in any company, order and state of the cache.
    /// Default off: the likeliest of two nearly equal tokens may then depend on how many rows were computed together, as
    /// kernels for many rows round differently. On, prompts take several times as long.
    pub deterministic: bool,
    /// Quantise models to this while they are loaded; `None`, the default, leaves them as they are.
    pub quantization: Option<QuantType>,
    /// Whether model files are mapped (the default) or read.
    pub mmap: bool,
    /// Most MiB for weights, cache and buffers together; `None`, the default, is what the machine has.
    pub memory_limit_mb: Option<usize>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            num_threads: 0,
            thread_affinity: false,
            numa_aware: false,
            memory: MemoryConfig::default(),
            device: DeviceConfig::default(),
            thread_pool: ThreadPoolConfig::default(),
            batching: BatchingMode::default(),
            cache: CacheConfig::default(),
            context: None,
            step_ms: 200,
            max_queued: 16_384,
            max_queue_ms: 30_000,
            deterministic: false,
            spill_mb: 0,
            spill_dir: std::env::temp_dir(),
            quantization: None,
            mmap: true,
            memory_limit_mb: None,
        }
    }
}

/// The key-value cache of an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Most MiB for keys and values, compressed ones and the cache's own tables included; 0 takes what the sequences that
    /// run at once can need, but no more than a quarter of the memory available.
    pub max_cache_mb: usize,
    /// Which of the blocks that nobody uses goes first.
    pub eviction_policy: EvictionPolicy,
    /// What may lose precision so that the cache takes less memory: nothing; what requests computed that had to give way;
    /// or everything, which stores keys in eight and values in four bits, two and a half times less than half precision.
    /// `docs/serving.md` has what each costs in quality.
    pub compression: CacheCompression,
    /// Whether what was computed for one session's prompt is used for another's that begins alike. Off, a session shares
    /// with nobody but itself.
    pub shared_cache: bool,
}

impl Default for CacheConfig {
    /// As large as needed, least recently used first, uncompressed, shared.
    fn default() -> Self {
        Self {
            max_cache_mb: 0,
            eviction_policy: EvictionPolicy::LRU,
            compression: CacheCompression::Disabled,
            shared_cache: true,
        }
    }
}

impl EngineConfig {
    /// Few requests at once and short steps: a token at least every 50 ms or so, whatever else is computed.
    pub fn low_latency() -> Self {
        Self { step_ms: 50, ..Self::default() }.with_batch_size(4)
    }

    /// Many requests at once and long steps.
    pub fn high_throughput() -> Self {
        Self { step_ms: 500, ..Self::default() }.with_batch_size(32)
    }

    /// Weights, cache and buffers within `mb` MiB, or a refusal with the numbers. The cache gets what weights and buffers
    /// leave, exact unless [`with_cache_compression`](Self::with_cache_compression) trades precision for two and a half
    /// times as many tokens.
    pub fn memory_constrained(mb: usize) -> Self {
        Self { memory_limit_mb: Some(mb), ..Self::default() }.with_batch_size(4)
    }

    /// Sets the threads that compute; 0 takes the physical cores.
    #[must_use]
    pub fn with_threads(self, count: usize) -> Self {
        Self { num_threads: count, ..self }
    }

    /// Sets the most requests that run at once, in whatever way they are batched.
    #[must_use]
    pub fn with_batch_size(mut self, count: usize) -> Self {
        match &mut self.batching {
            BatchingMode::Static(config) | BatchingMode::Dynamic(config) => {
                config.max_batch_size = count;
                config.min_batch_size = config.min_batch_size.min(count);
            }
            BatchingMode::Continuous { max_sequences, .. } => *max_sequences = count,
        }
        self
    }

    /// Lets requests join and leave at every step, as many at once as before.
    #[must_use]
    pub fn with_continuous_batching(mut self) -> Self {
        if !matches!(self.batching, BatchingMode::Continuous { .. }) {
            let max_sequences = self.batching.max_sequences();
            self.batching = BatchingMode::Continuous { max_sequences, scheduling: Default::default() };
        }
        self
    }

    /// Sets the most MiB for keys and values.
    #[must_use]
    pub fn with_cache_size_mb(mut self, mb: usize) -> Self {
        self.cache.max_cache_mb = mb;
        self
    }

    /// Stores keys and values in less than half the bits of half precision, at some loss.
    #[must_use]
    pub fn with_cache_compression(mut self) -> Self {
        self.cache.compression = CacheCompression::Enabled;
        self
    }

    /// Quantises models while they are loaded.
    #[must_use]
    pub fn with_quantization(self, to: QuantType) -> Self {
        Self { quantization: Some(to), ..self }
    }

    /// Maps model files into memory instead of reading them.
    #[must_use]
    pub fn with_mmap(self) -> Self {
        Self { mmap: true, ..self }
    }

    /// Returns the configuration of sessions that say nothing else.
    pub fn session(&self) -> SessionConfig {
        SessionConfig { cache_config: self.cache.clone(), batching: self.batching.clone(), ..SessionConfig::default() }
    }

    pub(super) fn max_queue(&self) -> Option<Duration> {
        (self.max_queue_ms > 0).then(|| Duration::from_millis(self.max_queue_ms))
    }

    pub(super) fn load(&self, path: &Path) -> Result<Model, Error> {
        self.check_device()?;
        let threads = self.threads()?;
        let loader = GGUFLoader::builder().use_mmap(self.mmap).build(path)?;
        let Some(target) = self.quantization.filter(|target| !is_already(&loader, *target)) else {
            return self.builder(threads).load_from(&loader);
        };
        // Asked for by name, so that a second loss of precision is no accident.
        let options = QuantizeOptions { allow_requantize: true, ..QuantizeOptions::new(target) };
        let (quantised, _) = quantize_in_memory(&loader, options)?;
        self.builder(threads).load_from(&quantised)
    }

    /// Refuses settings of the processor for a device that is another.
    fn check_device(&self) -> Result<(), Error> {
        let default = Self::default();
        let why = format!("it is about the processor, but the device is {}", self.device.device);
        let ours = [
            ("num_threads", self.num_threads != default.num_threads),
            ("thread_affinity", self.thread_affinity != default.thread_affinity),
            ("numa_aware", self.numa_aware != default.numa_aware),
            ("thread_pool", self.thread_pool != default.thread_pool),
            ("cpu_features", self.device.cpu_features != default.device.cpu_features),
        ];
        match ours.into_iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) if self.device.device != Device::Cpu => Err(Error::config(field, why)),
            Some((field @ ("thread_affinity" | "numa_aware"), _)) if !CAN_BIND => {
                Err(Error::config(field, "this system does not let a thread choose its processors"))
            }
            _ => Ok(()),
        }
    }

    /// Returns the threads asked for; 0 for the default.
    fn threads(&self) -> Result<usize, Error> {
        match (self.num_threads, self.thread_pool.num_threads) {
            (own, 0) => Ok(own),
            (0, pool) => Ok(pool),
            (own, pool) if own == pool => Ok(own),
            (own, pool) => {
                Err(Error::config("thread_pool.num_threads", format!("it is {pool}, but num_threads is {own}")))
            }
        }
    }

    fn builder(&self, threads: usize) -> ModelBuilder<'static> {
        let DeviceConfig { device, cpu_features } = self.device;
        let builder = ModelBuilder::default().device(device).cpu_features(cpu_features).memory(self.memory);
        let builder = builder.pin_threads(self.thread_affinity).one_node(self.numa_aware).thread_pool(self.thread_pool);
        let builder = if threads > 0 { builder.threads(threads) } else { builder };
        match self.context {
            Some(context) => builder.context(context),
            None => builder,
        }
    }

    /// Refuses settings that come too late for a model that is loaded already.
    pub(super) fn check_loaded(&self) -> Result<(), Error> {
        let default = Self::default();
        let why = "the model is loaded already, so that this has no effect; use InferenceEngine::load with its path";
        let late = [
            ("num_threads", self.num_threads != default.num_threads),
            ("thread_affinity", self.thread_affinity != default.thread_affinity),
            ("numa_aware", self.numa_aware != default.numa_aware),
            ("memory", self.memory != default.memory),
            ("device", self.device != default.device),
            ("thread_pool", self.thread_pool != default.thread_pool),
            ("context", self.context != default.context),
            ("quantization", self.quantization != default.quantization),
            ("mmap", self.mmap != default.mmap),
        ];
        match late.into_iter().find(|(_, is_set)| *is_set) {
            Some((field, _)) => Err(Error::config(field, why)),
            None => Ok(()),
        }
    }

    /// Refuses a model that leaves nothing of the memory limit for a cache.
    pub(super) fn check_memory(&self, model: &Model) -> Result<(), Error> {
        match self.memory_for_cache(model) {
            Some(0) => Err(self.limit_error(model, 0)),
            _ => Ok(()),
        }
    }

    /// Refuses compression that would not do what it says.
    pub(super) fn check_compression(&self, model: &Model, cache: &CacheConfig) -> Result<(), Error> {
        let field = "compression";
        match (cache.compression, model.cache_type_asked()) {
            (CacheCompression::Enabled, Some(asked)) if asked != COMPRESSED => {
                let why = format!(
                    "the model was loaded with a cache of {asked}, but compressed it is {COMPRESSED}; leave one of the two out"
                );
                Err(Error::config(field, why))
            }
            (CacheCompression::Preempted, Some(asked @ (CacheType::Q8 | CacheType::Q8Q4))) => {
                let why = format!("the model was loaded with a cache of {asked}, which is not compressed any further");
                Err(Error::config(field, why))
            }
            (CacheCompression::Preempted, _) if self.deterministic => {
                let why = "answers would depend on who had to give way, which `deterministic` rules out; take \
                           CacheCompression::Enabled or Disabled";
                Err(Error::config(field, why))
            }
            _ => Ok(()),
        }
    }

    /// Returns how many blocks the cache of a session may have.
    pub(super) fn cache_blocks(&self, model: &Model, session: &SessionConfig) -> Result<usize, Error> {
        let block = model.block_bytes(session.cache_config.storage(model)).max(1);
        let asked = session.cache_config.max_cache_mb as u64 * MIB;
        let within = self.memory_for_cache(model);
        if asked > 0 {
            if asked < block {
                let why =
                    format!("one block of {BLOCK_TOKENS} tokens of this model takes {} KiB", block.div_ceil(1024));
                return Err(Error::config("max_cache_mb", why));
            }
            return match within {
                Some(left) if left < asked => Err(self.limit_error(model, asked)),
                _ => Ok((asked / block) as usize),
            };
        }
        let sequence = model.context().div_ceil(BLOCK_TOKENS) as u64;
        let wanted = sequence * session.batching.max_sequences() as u64;
        let most = within.or_else(|| memory::available().map(|bytes| bytes / 4)).unwrap_or(u64::MAX);
        match wanted.min(most / block) {
            0 => Err(self.limit_error(model, block)),
            blocks => Ok(blocks as usize),
        }
    }

    /// Returns how the engine of a session keeps keys and values.
    pub(super) fn cache_options(&self, model: &Model, session: &SessionConfig) -> CacheOptions {
        let CacheConfig { max_cache_mb, eviction_policy, compression, .. } = session.cache_config;
        let asked = (max_cache_mb > 0).then_some(max_cache_mb as u64 * MIB);
        let max_bytes = asked.or_else(|| self.memory_for_cache(model));
        CacheOptions {
            storage: session.cache_config.storage(model),
            max_bytes: max_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            compression,
            spill_bytes: self.spill_mb as u64 * MIB,
            spill_dir: self.spill_dir.clone(),
            eviction: eviction_policy,
        }
    }

    /// Returns the bytes that the memory limit leaves for the cache.
    fn memory_for_cache(&self, model: &Model) -> Option<u64> {
        let limit = self.memory_limit_mb? as u64 * MIB;
        Some(limit.saturating_sub(model.weight_bytes()).saturating_sub(model.step_bytes(self.batching.max_sequences())))
    }

    fn limit_error(&self, model: &Model, cache_bytes: u64) -> Error {
        Error::MemoryLimit {
            limit_bytes: self.memory_limit_mb.map_or(u64::MAX, |mb| mb as u64 * MIB),
            weight_bytes: model.weight_bytes(),
            compute_bytes: model.step_bytes(self.batching.max_sequences()),
            cache_bytes,
        }
    }
}

impl CacheConfig {
    /// Returns how keys and values are stored.
    pub(super) fn storage(&self, model: &Model) -> CacheType {
        match self.compression {
            CacheCompression::Enabled => COMPRESSED,
            CacheCompression::Disabled | CacheCompression::Preempted => model.cache_type(),
        }
    }
}

fn is_already(loader: &GGUFLoader, target: QuantType) -> bool {
    loader.metadata().u64("general.file_type").is_ok_and(|found| found == Some(u64::from(target.file_type())))
}
