//! Tensor descriptions, and the rules that names and dimensions obey in both directions, reading and writing.

use std::sync::Arc;

use woolly_quant::TensorType;

use crate::bytes::SharedBytes;
use crate::error::TensorFault;

/// The largest number of dimensions of a tensor.
pub const MAX_DIMS: usize = 4;

/// The longest tensor name in bytes.
pub const MAX_NAME_BYTES: usize = 64;

/// A tensor of a file: its name, type and dimensions, and where its data lies.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    pub(crate) name: Arc<str>,
    pub(crate) ty: TensorType,
    pub(crate) dims: Dims,
    pub(crate) elements: u64,
    pub(crate) part: usize,
    /// Where the description lies in its file, for errors found later.
    pub(crate) described_at: u64,
    /// Where the data begins in its file.
    pub(crate) offset: u64,
    pub(crate) bytes: SharedBytes,
}

impl TensorInfo {
    /// Returns the name, for example `blk.0.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the type of the elements.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// Returns the dimensions in elements, the fastest-running one (the row length) first; one to four, none 0.
    pub fn dims(&self) -> &[u64] {
        self.dims.as_slice()
    }

    /// Returns the product of the dimensions.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// Returns the size of the data in bytes.
    pub fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns the data: rows of `dims()[0]` elements, each a whole number of blocks.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// Returns the number, counted from 0, of the split file that holds the data.
    pub fn part(&self) -> usize {
        self.part
    }

    /// Returns where the data begins, in bytes from the start of the file that holds it.
    pub fn file_offset(&self) -> u64 {
        self.offset
    }
}

/// One to four dimensions, stored in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dims {
    sizes: [u64; MAX_DIMS],
    count: usize,
}

impl Dims {
    /// Checks the number of dimensions and that none is 0.
    pub(crate) fn new(dims: &[u64]) -> Result<Self, TensorFault> {
        let mut sizes = [0; MAX_DIMS];
        let target = sizes.get_mut(..dims.len()).filter(|target| !target.is_empty());
        target.ok_or(TensorFault::Dimensions { count: dims.len() as u64 })?.copy_from_slice(dims);
        match dims.iter().position(|&size| size == 0) {
            Some(axis) => Err(TensorFault::ZeroDimension { axis }),
            None => Ok(Self { sizes, count: dims.len() }),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u64] {
        self.sizes.get(..self.count).unwrap_or_default()
    }

    /// Returns the number of elements, which fits an i64.
    pub(crate) fn elements(&self) -> Result<u64, TensorFault> {
        let product = self.as_slice().iter().try_fold(1u64, |product, &size| product.checked_mul(size));
        product.filter(|&elements| i64::try_from(elements).is_ok()).ok_or_else(|| self.too_large())
    }

    /// Returns the size in bytes as rows of whole blocks of `ty`, which fits an i64.
    pub(crate) fn byte_len(&self, ty: TensorType) -> Result<u64, TensorFault> {
        let [row, rest @ ..] = self.as_slice() else { return Err(TensorFault::Dimensions { count: 0 }) };
        let block = ty.block_elements();
        if row % block as u64 != 0 {
            return Err(TensorFault::PartialBlock { elements: *row, ty: ty.name(), block });
        }
        let row_bytes = usize::try_from(*row).ok().and_then(|row| ty.row_bytes(row)).map(|bytes| bytes as u64);
        let bytes = row_bytes.and_then(|bytes| rest.iter().try_fold(bytes, |bytes, &size| bytes.checked_mul(size)));
        bytes.filter(|&bytes| i64::try_from(bytes).is_ok()).ok_or_else(|| self.too_large())
    }

    fn too_large(&self) -> TensorFault {
        TensorFault::TooLarge { dims: self.as_slice().to_vec() }
    }
}

/// Checks the length of a tensor name in bytes.
pub(crate) fn check_name_length(bytes: u64) -> Result<(), TensorFault> {
    match bytes {
        0 => Err(TensorFault::EmptyName),
        bytes if bytes > MAX_NAME_BYTES as u64 => Err(TensorFault::NameTooLong { bytes }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_from_dimensions_and_type() {
        // Expected bytes: elements per row / elements per block * bytes per block * rows, from the format's table.
        let cases: [(&[u64], TensorType, u64, u64); 4] = [
            (&[5], TensorType::F32, 5, 20),
            (&[64, 3], TensorType::Q8_0, 192, 2 * 34 * 3),
            (&[256, 2, 3], TensorType::Q4_K, 1536, 144 * 6),
            (&[1, 1, 1, 7], TensorType::F16, 7, 14),
        ];
        for (dims, ty, elements, bytes) in cases {
            let dims = Dims::new(dims).expect("valid");
            assert_eq!(dims.elements(), Ok(elements), "{dims:?}");
            assert_eq!(dims.byte_len(ty), Ok(bytes), "{dims:?}");
        }
    }

    #[test]
    fn impossible_dimensions_are_refused() {
        assert_eq!(Dims::new(&[]), Err(TensorFault::Dimensions { count: 0 }));
        assert_eq!(Dims::new(&[1; 5]), Err(TensorFault::Dimensions { count: 5 }));
        assert_eq!(Dims::new(&[4, 0]), Err(TensorFault::ZeroDimension { axis: 1 }));
    }

    #[test]
    fn products_never_wrap() {
        let cases: [(&[u64], TensorType); 4] = [
            (&[1 << 32, 1 << 32], TensorType::F32),
            (&[1 << 63], TensorType::I8),
            (&[1 << 31, 1 << 31], TensorType::I64),
            (&[4, (1 << 30) - 1, (1 << 30) + 1], TensorType::F32),
        ];
        for (sizes, ty) in cases {
            let dims = Dims::new(sizes).expect("none is zero");
            let fault = TensorFault::TooLarge { dims: sizes.to_vec() };
            assert_eq!(dims.elements().and(dims.byte_len(ty)), Err(fault), "{sizes:?}");
        }
    }

    #[test]
    fn a_row_is_a_whole_number_of_blocks() {
        let dims = Dims::new(&[33, 32]).expect("valid");
        let fault = TensorFault::PartialBlock { elements: 33, ty: "Q8_0", block: 32 };
        assert_eq!(dims.byte_len(TensorType::Q8_0), Err(fault));
    }
}
