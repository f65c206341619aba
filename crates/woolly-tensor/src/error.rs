//! What can go wrong inside a backend.

use woolly_quant::TensorType;

/// A failure of a backend operation; none of them leaves a tensor half written without saying so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// Operands of an operation do not fit each other.
    #[error("{op}: {what} is {found}, but {expected} is needed")]
    Shape {
        /// Name of the operation.
        op: &'static str,
        /// The operand and the dimension in question.
        what: &'static str,
        /// The size that was passed.
        found: usize,
        /// The size that would fit.
        expected: usize,
    },
    /// The bytes of a weight do not make up the tensor they are said to be.
    #[error(
        "tensor `{name}`: {found} bytes do not hold {dims:?} elements of {ty} ({expected} bytes); the file is damaged"
    )]
    WeightBytes {
        /// Name of the tensor.
        name: String,
        /// Its stored type.
        ty: TensorType,
        /// Its dimensions, fastest-running first.
        dims: [usize; 3],
        /// Bytes present.
        found: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// A tensor type that this backend cannot compute with.
    #[error("tensor `{name}` has type {ty}, which the {backend} backend cannot multiply with; re-quantise the model")]
    UnsupportedType {
        /// Name of the tensor.
        name: String,
        /// Its stored type.
        ty: TensorType,
        /// Name of the backend.
        backend: &'static str,
    },
    /// An allocation that the device refused.
    #[error("not enough memory for {what}: {bytes} bytes; use a smaller context or a smaller model")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
    },
    /// A token id, cache block or layer number outside its range.
    #[error("{op}: {what} {index} is out of range (there are {len})")]
    OutOfRange {
        /// Name of the operation.
        op: &'static str,
        /// What was indexed.
        what: &'static str,
        /// The index passed.
        index: usize,
        /// The number of entries.
        len: usize,
    },
    /// An operation that this backend does not implement.
    #[error("the {backend} backend does not support {what}")]
    Unsupported {
        /// Name of the backend.
        backend: &'static str,
        /// The operation or setting.
        what: &'static str,
    },
    /// A failure reported by the device's driver.
    #[error("device failure in {op}: {message}")]
    Device {
        /// Name of the operation.
        op: &'static str,
        /// The driver's words.
        message: String,
    },
}

impl BackendError {
    /// Returns `Ok` when `found == expected`, and the [`BackendError::Shape`] that says so otherwise.
    ///
    /// # Errors
    /// [`BackendError::Shape`] when the two differ.
    pub fn expect_size(op: &'static str, what: &'static str, found: usize, expected: usize) -> Result<(), Self> {
        if found == expected { Ok(()) } else { Err(Self::Shape { op, what, found, expected }) }
    }

    /// Returns `Ok` when all of `blocks` are below `len`, and the [`BackendError::OutOfRange`] that says so otherwise.
    ///
    /// # Errors
    /// [`BackendError::OutOfRange`] for the first block that is not.
    pub fn expect_blocks(op: &'static str, blocks: &[u32], len: usize) -> Result<(), Self> {
        let inside = |block: u32| usize::try_from(block).is_ok_and(|block| block < len);
        match blocks.iter().find(|&&block| !inside(block)) {
            None => Ok(()),
            Some(&block) => Err(Self::OutOfRange { op, what: "cache block", index: block as usize, len }),
        }
    }
}
