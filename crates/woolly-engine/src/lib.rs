//! Generation on token ids: from a prompt's ids to the ids that follow.
//!
//! [`SamplerChain`] turns logits into a token. This crate knows no text, no files and no device; it allocates
//! everything a run needs before the first token.

#![forbid(unsafe_code)]

mod candidates;
mod error;
mod params;
mod rng;
mod sample;

pub use candidates::{Candidate, Candidates};
pub use error::Error;
pub use params::SamplingParams;
pub use rng::Rng;
pub use sample::{Sampler, SamplerChain};
