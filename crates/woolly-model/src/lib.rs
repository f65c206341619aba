//! From a GGUF file to logits.
//!
//! [`Model::load`] reads the hyper-parameters ([`Config`]), checks every tensor against them and hands the bytes, where
//! they lie, to a [`Backend`](woolly_tensor::Backend); [`Model::forward`] computes one [`Step`] for any number of
//! sequences. [`Runner`] bundles model, cache and buffers behind [`Decoder`], which is all that an engine sees.
//!
//! An architecture is one file of `arch/`, composed of the blocks in `layers/`. This crate knows no instruction set, no
//! text and no scheduling: ids go in, logits come out.

#![forbid(unsafe_code)]

mod arch;
mod config;
mod error;
mod keys;
mod layers;
pub mod mix;
mod model;
pub mod observe;
mod pass;
mod runner;
mod scratch;
mod step;
mod weights;

pub use arch::architectures;
pub use config::{Config, ExpertConfig, RopeConfig, RopeScaling};
pub use error::Error;
pub use model::Model;
pub use runner::{Decoder, Runner, RunnerOptions};
pub use scratch::Scratch;
pub use step::Step;
pub use weights::LoadProgress;
