//! Where a weight comes from: bytes somebody else owns, and what they mean.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use woolly_quant::TensorType;

use crate::BackendError;

/// The bytes of one weight tensor in their stored type, shared and never copied by the backends that can read them.
#[derive(Clone)]
pub struct WeightSource {
    /// Tensor name, for errors.
    pub name: String,
    /// Stored type of the elements.
    pub ty: TensorType,
    /// Dimensions, fastest-running first: `[columns (inputs), rows (outputs), experts]`; absent ones are 1.
    pub dims: [usize; 3],
    /// Owner of the bytes, usually a file mapping.
    pub owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// The part of the owner's bytes that is this tensor.
    pub range: Range<usize>,
}

impl WeightSource {
    /// Makes a source from values in memory, stored as `f32`: for tests and small computed tables.
    pub fn from_f32(name: &str, dims: [usize; 3], values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self::from_bytes(name, TensorType::F32, dims, bytes)
    }

    /// Makes a source from an owned byte vector of type `ty`.
    pub fn from_bytes(name: &str, ty: TensorType, dims: [usize; 3], bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { name: name.to_owned(), ty, dims, owner: Arc::new(bytes), range }
    }

    /// Returns the tensor's bytes.
    ///
    /// # Errors
    /// [`BackendError::WeightBytes`] when they are not exactly as many as type and dimensions need.
    pub fn bytes(&self) -> Result<&[u8], BackendError> {
        let expected = self.expected_bytes();
        let found = (*self.owner).as_ref().get(self.range.clone());
        match (found, expected) {
            (Some(bytes), Some(expected)) if bytes.len() == expected => Ok(bytes),
            (found, expected) => Err(BackendError::WeightBytes {
                name: self.name.clone(),
                ty: self.ty,
                dims: self.dims,
                found: found.map_or(0, <[u8]>::len),
                expected: expected.unwrap_or(usize::MAX),
            }),
        }
    }

    /// Returns the number of rows over all experts.
    pub fn total_rows(&self) -> usize {
        self.dims[1].saturating_mul(self.dims[2])
    }

    fn expected_bytes(&self) -> Option<usize> {
        let rows = self.dims[1].checked_mul(self.dims[2])?;
        self.ty.row_bytes(self.dims[0])?.checked_mul(rows)
    }
}

impl fmt::Debug for WeightSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightSource")
            .field("name", &self.name)
            .field("ty", &self.ty)
            .field("dims", &self.dims)
            .finish()
    }
}
