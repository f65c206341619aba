//! Generation on token ids: from a prompt's ids to the ids that follow.
//!
//! [`Generator`] owns a [`Decoder`](woolly_model::Decoder) and the one sequence in its cache; [`Generator::start`] gives
//! a [`Generation`], an iterator of ids. [`SamplerChain`] turns logits into a token. This crate knows no text, no files
//! and no device; it allocates everything a run needs before the first token.

#![forbid(unsafe_code)]

mod candidates;
mod error;
#[cfg(test)]
#[path = "../tests/fake/mod.rs"]
mod fake;
mod generator;
mod params;
mod request;
mod rng;
mod sample;
pub mod schedule;
mod score;
mod timings;

pub use candidates::{Candidate, Candidates};
pub use error::Error;
pub use generator::{Generation, Generator};
pub use params::SamplingParams;
pub use request::{CancelToken, FinishReason, Request};
pub use rng::Rng;
pub use sample::{Sampler, SamplerChain};
pub use timings::Timings;
