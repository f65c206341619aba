//! What the processor has, and how much of it an engine uses.

pub use woolly_cpu::isa::{CpuFeatures, FeatureError};
pub use woolly_cpu::{CpuInfo, CpuInfoError, NumaNode, PoolStats};

use woolly_cpu::pool::Sharing;
use woolly_cpu::{CpuOptions, MemoryOptions};

use crate::{Device, Error};

/// Where models run, and with which instructions.
///
/// ```
/// use woolly::{CpuFeatures, DeviceConfig, EngineConfig};
///
/// let features = CpuFeatures::detect();
/// println!("AVX-512: {}", features.has_avx512);
/// let config = EngineConfig {
///     device: DeviceConfig { cpu_features: CpuFeatures { force_scalar: true, ..features }, ..Default::default() },
///     ..Default::default()
/// };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DeviceConfig {
    /// The device. Default the processor.
    pub device: Device,
    /// Which of the processor's instructions are used; what it lacks is refused. Default all.
    pub cpu_features: CpuFeatures,
}

/// How work is spread over threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadPoolConfig {
    /// Threads that compute, the caller among them; 0, the default, takes the physical cores that this process may use.
    pub num_threads: usize,
    /// Whether a thread that is done takes over work of others. Default on. Off, each has an equal part of every operation,
    /// and the slowest holds up the rest.
    pub stealing_enabled: bool,
    /// Rows of a weight in a unit of work, at least, while tokens of answers are computed; prompts are cut by the tiles of
    /// their kernels. Larger units leave less to take over, smaller ones cost more starts. Default 64, and at least 1.
    pub chunk_size: usize,
    /// Most units of an operation that are one thread's to begin with; with fewer, units are larger. Default 256, of which
    /// large operations use a part, and at least 1.
    pub local_queue_capacity: usize,
}

impl Default for ThreadPoolConfig {
    fn default() -> Self {
        let Sharing { stealing, unit_rows, queue } = Sharing::default();
        Self { num_threads: 0, stealing_enabled: stealing, chunk_size: unit_rows, local_queue_capacity: queue }
    }
}

impl ThreadPoolConfig {
    /// Returns how the pool spreads work, or why it cannot.
    pub(crate) fn sharing(&self) -> Result<Sharing, Error> {
        let Self { num_threads: _, stealing_enabled: stealing, chunk_size: unit_rows, local_queue_capacity: queue } =
            *self;
        match [("chunk_size", unit_rows), ("local_queue_capacity", queue)].into_iter().find(|&(_, value)| value == 0) {
            Some((field, _)) => {
                Err(Error::config(field, "with 0 there would be no work for any thread; allow at least 1"))
            }
            None => Ok(Sharing { stealing, unit_rows, queue }),
        }
    }
}

/// Where activations and logits lie: everything that a step computes besides keys and values, which have a limit of their
/// own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Whether they come from a pool of the model's own. Default off: from the system.
    pub use_memory_pool: bool,
    /// Most MiB of the pool; a session that needs more is refused. The pool takes memory as it is needed. Default 4096.
    pub pool_size_mb: usize,
    /// Bytes that the address of each buffer is a multiple of, a power of two; less than 64 is met by 64. Default 64.
    pub pool_alignment: usize,
    /// Whether the pool keeps buffers of closed sessions for new ones. Default on.
    pub reuse_buffers: bool,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { use_memory_pool: false, pool_size_mb: 4096, pool_alignment: 64, reuse_buffers: true }
    }
}

impl MemoryConfig {
    /// Returns the rules of the pool, if there is to be one.
    pub(crate) fn options(&self) -> Result<Option<MemoryOptions>, Error> {
        if !self.use_memory_pool {
            let why = "settings of the pool have no effect without it; set use_memory_pool, or leave them as they are";
            return if *self == Self::default() { Ok(None) } else { Err(Error::config("memory", why)) };
        }
        if !self.pool_alignment.is_power_of_two() {
            let why = format!("{} is no power of two", self.pool_alignment);
            return Err(Error::config("pool_alignment", why));
        }
        let limit = self.pool_size_mb.saturating_mul(1 << 20);
        Ok(Some(MemoryOptions { limit, alignment: self.pool_alignment, reuse: self.reuse_buffers }))
    }
}

/// Returns the settings of the processor for these features.
pub(crate) fn with_features(options: CpuOptions, features: &CpuFeatures) -> Result<CpuOptions, Error> {
    let level = features.level().map_err(|error| Error::config("cpu_features", error.to_string()))?;
    Ok(CpuOptions { level, ..options })
}
