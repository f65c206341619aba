//! CPU backend of Woolly: SIMD kernels that read GGUF blocks where they lie, and the threads that run them.
//!
//! [`isa`] says what the processor can do, [`kernels`] computes, [`pool`] spreads the work, [`buffer`] holds results.
//! Nothing here knows files, architectures or token ids.

pub mod buffer;
pub mod isa;
pub mod kernels;
pub mod pool;
#[cfg(test)]
mod test_data;
pub mod topology;

pub use topology::default_threads;
