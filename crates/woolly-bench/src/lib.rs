//! Measures speed: of models as llama-bench does, beside the ceilings of the machine and beside llama.cpp; and of whatever
//! else a program records.
//!
//! - [`speed`] times prompts and generation on ids alone: no tokenizer, no sampling. Its rows have llama-bench's names and
//!   fields ([`output`]), so that what reads those reads these.
//! - [`serve`] replays arrivals of requests on a serving engine.
//! - [`Ceiling`] measures in the same run what the machine reaches at most, and every row is a share of it.
//! - [`compare`] runs llama.cpp in turn on the same file.
//! - [`Benchmark`] and [`Reporter`] collect and report metrics of a program's own.
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
pub use rival::{LlamaBench, Rival};
pub use startup::{Startup, first_token};
pub use stats::Statistics;
pub use targets::{Target, targets};

/// The commit this was built from, in seven digits; `unknown` outside of a repository.
pub const BUILD_COMMIT: &str = env!("WOOLLY_BUILD_COMMIT");

/// The number of commits up to [`BUILD_COMMIT`]; `0` outside of a repository.
pub const BUILD_NUMBER: &str = env!("WOOLLY_BUILD_NUMBER");
