//! What every GGUF tensor type is: its number, its block geometry, and a safe scalar codec.
//!
//! This crate is the oracle of the workspace: a fast kernel is right when it agrees with the decoder here. Decoders
//! reproduce the reference implementation bit for bit (separate multiply and add, no fused operations).
//!
//! It deliberately knows nothing of files, shapes, threads or instruction sets, has no dependencies and no `unsafe`.
//!
//! ```
//! use woolly_quant::TensorType;
//!
//! let ty: TensorType = "q8_0".parse()?;
//! assert_eq!((ty.id(), ty.block_elements(), ty.block_bytes()), (8, 32, 34));
//!
//! let values = [0.5_f32; 64];
//! let mut blocks = vec![0; ty.row_bytes(values.len()).expect("64 is two blocks of 32")];
//! ty.encode(&values, &mut blocks)?;
//!
//! let mut decoded = [0.0_f32; 64];
//! ty.decode(&blocks, &mut decoded)?;
//! assert!(decoded.iter().all(|x| (x - 0.5).abs() < 0.001));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index; zips hide the layout")]

mod codec;
mod error;
mod formats;
pub mod grids;
pub mod half;
mod layout;
mod search;
mod simple;
mod tensor_type;

pub use error::{CodecError, UnknownTensorType};
pub use tensor_type::TensorType;
