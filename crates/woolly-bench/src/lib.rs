//! Measures speed: of models as llama-bench does, beside the ceilings of the machine and beside llama.cpp; and of whatever
//! else a program records.
//!
//! - [`speed`] times prompts and generation on ids alone: no tokenizer, no sampling. Its rows have llama-bench's names and
//!   fields ([`output`]), so that what reads those reads these.
//! - [`serve`] replays arrivals of requests on a serving engine.
//! - [`Ceiling`] measures in the same run what the machine reaches at most, and every row is a share of it.
//! - [`compare`] runs llama.cpp in turn on the same file; [`Opponent`] is what any other engine must offer for that.
//! - [`targets`] is the fixed set of measurements that this engine is held against.
//! - [`Benchmark`] and [`Reporter`] collect and report metrics of a program's own.
//!
//! With the feature `llama-cpp`, `LlamaCpp` is llama.cpp within this process, compiled from the sources in the crate
//! llama-cpp-sys-2 (cmake, libclang and a C++ compiler are needed; GCC 12 miscompiles its AMX path, so take clang 16 or
//! later). It is compiled for any processor unless the compiler is told otherwise:
//!
//! ```sh
//! CC=clang CXX=clang++ CFLAGS=-march=native CXXFLAGS=-march=native cargo build --release -p woolly-cli --features llama-cpp
//! ```
//!
//! Nothing is printed and nothing is remembered between runs.

#![forbid(unsafe_code)]

mod benchmark;
pub mod compare;
mod error;
mod machine;
mod memory;
mod model;
pub mod output;
#[cfg(feature = "profile")]
mod profile;
mod rival;
pub mod serve;
pub mod speed;
mod startup;
mod stats;
mod targets;

pub use benchmark::{Benchmark, Report, Reporter};
pub use error::Error;
pub use machine::{Ceiling, Machine};
pub use memory::{get_memory_usage, peak_memory_usage};
pub use model::{Shape, Source, Synthetic};
#[cfg(feature = "profile")]
pub use profile::{Profile, Profiler};
#[cfg(feature = "llama-cpp")]
pub use rival::LlamaCpp;
pub use rival::{LlamaBench, Opponent, Rival, Trial};
pub use startup::{Startup, first_token, load_times};
pub use stats::Statistics;
pub use targets::{Area, Goal, StartTarget, Target, lower_targets, start_targets, targets};

pub use woolly_cpu::isa::Level;

/// The commit this was built from, in seven digits; `unknown` outside of a repository.
pub const BUILD_COMMIT: &str = env!("WOOLLY_BUILD_COMMIT");

/// The number of commits up to [`BUILD_COMMIT`]; `0` outside of a repository.
pub const BUILD_NUMBER: &str = env!("WOOLLY_BUILD_NUMBER");
