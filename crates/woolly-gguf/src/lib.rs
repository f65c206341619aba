//! GGUF files as typed, checked data: bytes become metadata and tensors, and metadata and tensors become bytes.
//!
//! [`GGUFLoader`] opens a model of one or several files without copying it: tensors and string arrays are views
//! ([`SharedBytes`]) of the mapping. [`GGUFWriter`] writes version-3 files and split files. Versions 1, 2 and 3 are
//! read, little-endian only.
//!
//! ```
//! use woolly_gguf::{GGUFLoader, GGUFWriter};
//! use woolly_quant::TensorType;
//!
//! # fn main() -> Result<(), woolly_gguf::Error> {
//! let file = GGUFWriter::new()
//!     .set("general.architecture", "llama")
//!     .set("llama.block_count", 1u32)
//!     .tensor("output_norm.weight", &[2], TensorType::F32, [0, 0, 128, 63, 0, 0, 0, 64])
//!     .to_bytes()?;
//!
//! let model = GGUFLoader::from_bytes(file.into())?;
//! assert_eq!(model.metadata().require_u32("llama.block_count")?, 1);
//! assert_eq!(model.tensor("output_norm.weight").map(|t| t.elements()), Some(2));
//! # Ok(())
//! # }
//! ```
//!
//! # What opening an untrusted file can never do
//!
//! Every count, length, dimension and offset is compared with the bytes that are really there before anything is
//! allocated or looped over; arithmetic is checked; arrays nest to [`MAX_ARRAY_DEPTH`] and no deeper. A bad file is an
//! [`Error`] that names the field, its value and the byte offset. What the numbers mean to a model (layer counts,
//! vocabularies) is deliberately not judged here.
//!
//! # The hazard of mapping
//!
//! A mapped file that another process **truncates** while it is in use raises `SIGBUS` (an access violation elsewhere)
//! at the next touch of a page that is gone; one that is overwritten in place changes under the reader. Replacing a
//! model file by renaming a new one over it is safe, since the old contents stay alive as long as they are mapped.
//! [`GGUFLoader::check_unchanged`] compares length and modification time with those at opening; where files may shrink,
//! read them into memory with [`LoaderBuilder::use_mmap`]`(false)`.

#![deny(unsafe_code)]

mod array;
mod bytes;
mod cursor;
mod encode;
mod error;
mod foreign;
#[cfg(target_os = "linux")]
mod huge;
mod loader;
mod map;
mod metadata;
mod parse;
mod replace;
mod source;
mod split;
mod temporary;
mod tensor;
mod value;
mod writer;

pub use array::{Array, MAX_ARRAY_DEPTH, ScalarArray, StringArray};
pub use bytes::SharedBytes;
pub use error::{Error, KeyFault, SplitFault, TensorFault};
pub use foreign::Foreign;
pub use loader::{GGUFLoader, LoaderBuilder};
pub use metadata::Metadata;
pub use replace::Replacement;
pub use tensor::{MAX_DIMS, MAX_NAME_BYTES, TensorInfo};
pub use value::{Value, ValueType};
pub use writer::{GGUFWriter, TensorSource};
