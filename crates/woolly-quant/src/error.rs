//! The errors of this crate, written by hand because it has no dependencies.

use std::error::Error;
use std::fmt;

use crate::TensorType;

/// Why a slice could not be decoded or encoded. Nothing has been written to the output when one is returned.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CodecError {
    /// The number of elements is not a whole number of blocks of `ty`.
    PartialBlock {
        /// The tensor type whose blocks were asked for.
        ty: TensorType,
        /// How many elements the slice of values has.
        elements: usize,
    },
    /// The slice of blocks does not have the size that `elements` values of `ty` take.
    BlockBytes {
        /// The tensor type of the blocks.
        ty: TensorType,
        /// How many elements the slice of values has.
        elements: usize,
        /// How many bytes that many elements take.
        expected: usize,
        /// How many bytes the slice of blocks has.
        found: usize,
    },
    /// There is no encoder for `ty`.
    NotEncodable {
        /// The tensor type that can only be decoded.
        ty: TensorType,
    },
    /// A value is too large for `ty`, or it is an infinity or NaN that `ty` cannot hold.
    OutOfRange {
        /// The tensor type that was to hold the value.
        ty: TensorType,
        /// Where the value is in the slice of values.
        index: usize,
        /// The value itself.
        value: f32,
        /// The largest magnitude that the encoder of `ty` accepts.
        limit: f32,
    },
    /// The importance weights are not a whole number of blocks that divides the values into rows.
    ImportanceLength {
        /// The tensor type that was to be encoded.
        ty: TensorType,
        /// How many values there are.
        elements: usize,
        /// How many weights there are.
        found: usize,
    },
    /// An importance weight is negative, infinite or NaN.
    ImportanceValue {
        /// Where the weight is in the slice of weights.
        index: usize,
        /// The weight itself.
        value: f32,
    },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PartialBlock { ty, elements } => {
                let block = ty.block_elements();
                write!(f, "{elements} elements are not a whole number of {ty} blocks of {block} elements")
            }
            Self::BlockBytes { ty, elements, expected, found } => {
                write!(f, "{elements} elements of {ty} take {expected} bytes, but the slice of blocks has {found}")
            }
            Self::NotEncodable { ty } => write!(f, "{ty} can only be decoded; choose another type to encode to"),
            Self::OutOfRange { ty, index, value, limit } => {
                write!(f, "value {value} at index {index} does not fit {ty}, which holds magnitudes up to {limit}")
            }
            Self::ImportanceLength { ty, elements, found } => {
                let block = ty.block_elements();
                write!(
                    f,
                    "{found} importance weights for {elements} values of {ty}: expected the weights of one row, "
                )?;
                write!(f, "a multiple of {block} that divides {elements}")
            }
            Self::ImportanceValue { index, value } => {
                write!(f, "importance weight {value} at index {index} is not a finite number of at least 0")
            }
        }
    }
}

impl Error for CodecError {}

/// The name given to [`TensorType::from_str`](std::str::FromStr::from_str) is not the name of a tensor type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTensorType {
    pub(crate) name: String,
}

impl fmt::Display for UnknownTensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a tensor type; known are", self.name)?;
        for (i, ty) in TensorType::ALL.iter().enumerate() {
            write!(f, "{} {ty}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl Error for UnknownTensorType {}
