//! CPU backend of Woolly: SIMD kernels that read GGUF blocks where they lie, and the threads that run them.
//!
//! [`isa`] says what the processor can do, [`kernels`] computes, [`pool`] spreads the work, [`buffer`] holds results.
//! Nothing here knows files, architectures or token ids.

mod backend;
pub mod buffer;
mod cache;
pub mod ceiling;
pub mod dense;
pub mod encode;
pub mod isa;
pub mod kernels;
mod memory;
mod pages;
pub mod pool;
mod tensor;
#[cfg(test)]
mod test_data;
pub mod topology;
mod weight;

pub use backend::{Cpu, CpuError, CpuOptions};
pub use cache::CpuCache;
pub use memory::{MemoryOptions, MemoryPool, PoolStats};
pub use tensor::CpuTensor;
pub use topology::{CpuInfo, CpuInfoError, NumaNode, default_threads};
pub use weight::CpuWeight;
