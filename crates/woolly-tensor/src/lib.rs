//! What a device must be able to do, and the scalar truth it is held to.
//!
//! [`Backend`] is the list of operations model code is written in: mostly fused, called eagerly, on opaque tensor
//! handles. [`Reference`] implements them all in plain scalar Rust with `f64` accumulation; it is slow and is the oracle
//! of [`mod@conformance`], the suite that every backend instantiates. This crate knows no file format, no architecture and
//! no instruction set.

#![forbid(unsafe_code)]

mod backend;
mod batch;
pub mod conformance;
mod error;
pub mod ops;
mod reference;
mod weight;

pub use backend::{
    Activation, Attention, AttentionShape, Backend, CacheSpec, CacheType, Experts, Gating, Norm, Projection, Rope,
    RopeStyle,
};
pub use batch::{BLOCK_TOKENS, Batch, Sequence};
pub use error::BackendError;
pub use reference::{Reference, ReferenceCache, ReferenceTensor, ReferenceWeight};
pub use weight::WeightSource;
