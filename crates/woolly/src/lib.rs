//! Run large language models from GGUF files.
//!
//! ```no_run
//! # fn main() -> Result<(), woolly::Error> {
//! let model = woolly::Model::load("model.gguf")?;
//! println!("{}", model.generate("Once upon a time")?);
//! # Ok(())
//! # }
//! ```
//!
//! [`Model`] is loaded once and cheap to clone; a [`Session`] is a context of its own that answers prompts, a [`Chat`]
//! keeps a conversation in the form of the model's own template, and a [`Stream`] is an answer in progress, an iterator
//! whose drop stops the computation:
//!
//! ```no_run
//! use std::io::Write;
//! use woolly::prelude::*;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::builder("model.gguf").context(8192).load()?;
//! let mut session = model.session()?;
//! let mut stream = session.stream("Once upon a time", GenerateOptions::new().max_tokens(200))?;
//! for chunk in &mut stream {
//!     print!("{}", chunk?);
//!     std::io::stdout().flush()?;
//! }
//! let answer = stream.finish();
//! println!("\n{} tokens, {}", answer.usage.completion_tokens, answer.finish_reason);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is printed, downloaded or sent anywhere; events go to `tracing`. Everything is synchronous, no thread runs
//! while nothing is asked for, and dropping a value frees what it holds.

#![forbid(unsafe_code)]

mod chat;
mod compare;
mod completion;
mod device;
mod error;
mod hardware;
mod inference;
#[cfg(feature = "lamb")]
pub mod lamb;
mod memory;
mod model;
mod options;
mod perplexity;
mod plan;
pub mod quantize;
mod recommended;
mod session;
mod summary;
pub mod tensor;

pub use chat::{Chat, ChatStream, Message};
pub use compare::{CompareOptions, Comparison, Distribution, OnCompared};
pub use completion::{Chunk, Completion, FinishReason, Usage};
pub use device::Device;
pub use error::{Error, ErrorKind};
pub use hardware::{
    CpuFeatures, CpuInfo, CpuInfoError, DeviceConfig, FeatureError, MemoryConfig, NumaNode, PoolStats, ThreadPoolConfig,
};
pub use inference::{
    AnswerStream, BatchConfig, BatchingMode, CacheCompression, CacheConfig, EngineConfig, EvictionPolicy, Inference,
    InferenceEngine, InferenceResult, InferenceSession, NextChunk, PaddingStrategy, PerformanceMetrics,
    PerformanceMonitor, SchedulingPolicy, SessionConfig, Stats,
};
pub use memory::available as available_memory;
pub use model::{Model, ModelBuilder};
pub use options::GenerateOptions;
pub use perplexity::{OnWindow, Perplexity, PerplexityOptions};
pub use quantize::{QuantType, QuantizationConfig, benchmark_perplexity};
pub use session::{Session, Stream};
pub use summary::{Summary, TypeShare};

pub use woolly_engine::{CancelToken, SamplingParams, Timings};
pub use woolly_gguf::{GGUFLoader, GGUFWriter, Metadata, TensorInfo, Value};
pub use woolly_model::{Config, LoadProgress, architectures};
pub use woolly_quant::TensorType;
pub use woolly_tensor::CacheType;
pub use woolly_text::Tokenizer;

/// What most programs need, in one line.
pub mod prelude {
    pub use crate::{
        BatchConfig, BatchingMode, CacheCompression, CacheConfig, CancelToken, Chat, Completion, CpuFeatures, CpuInfo,
        DeviceConfig, EngineConfig, Error, EvictionPolicy, FinishReason, GGUFLoader, GenerateOptions, InferenceEngine,
        InferenceSession, MemoryConfig, Model, PaddingStrategy, PerformanceMonitor, QuantType, QuantizationConfig,
        SamplingParams, SchedulingPolicy, Session, SessionConfig, Stream, ThreadPoolConfig, benchmark_perplexity,
        tensor,
    };
}

/// The example of the repository's README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// The example of the chapter on serving, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/serving.md")]
struct Serving;
