//! What every GGUF tensor type is: its number, its block geometry, and a safe scalar codec.
//!
//! This crate is the oracle of the workspace: a fast kernel is right when it agrees with the decoder here. Decoders
//! reproduce the reference implementation bit for bit (separate multiply and add, no fused operations).
//!
//! It deliberately knows nothing of files, shapes, threads or instruction sets, has no dependencies and no `unsafe`.

#![forbid(unsafe_code)]

mod error;
pub mod half;
mod tensor_type;

pub use error::{CodecError, UnknownTensorType};
pub use tensor_type::TensorType;
