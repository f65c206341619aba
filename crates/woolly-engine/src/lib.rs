//! Generation on token ids: from a prompt's ids to the ids that follow.
//!
//! [`Generator`] owns a [`Decoder`](woolly_model::Decoder) and the one sequence in its cache; [`Generator::start`] gives
//! a [`Generation`], an iterator of ids. [`Engine`] serves any number of requests on one decoder, from a thread of its
//! own: [`schedule`] plans each step, [`Engine::submit`] gives a [`TokenStream`]. [`SamplerChain`] turns logits into a
//! token. This crate knows no text, no files and no device.

#![forbid(unsafe_code)]

mod candidates;
mod engine;
mod error;
#[cfg(test)]
#[path = "../tests/fake/mod.rs"]
mod fake;
mod generator;
pub mod kv;
mod params;
mod request;
mod rng;
mod sample;
pub mod schedule;
mod score;
mod timings;

pub use candidates::{Candidate, Candidates};
pub use engine::{CacheOptions, Engine, EngineOptions, Next, Stats, StatsReader, Submission, TokenStream};
pub use error::Error;
pub use generator::{Generation, Generator};
pub use params::SamplingParams;
pub(crate) use request::check_prompt;
pub use request::{CancelToken, FinishReason, Request};
pub use rng::Rng;
pub use sample::{Sampler, SamplerChain};
pub use score::{Rows, Walk};
pub use timings::Timings;
