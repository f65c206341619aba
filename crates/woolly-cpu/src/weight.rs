//! Weights where they lie in the file, with their geometry; vectors are copied to aligned `f32`.

use std::fmt;

use woolly_quant::TensorType;
use woolly_tensor::{BackendError, WeightSource};

use crate::buffer::AlignedVec;
use crate::kernels::gemv::Rows;

/// A read-only vector, matrix or stack of matrices.
pub struct CpuWeight {
    source: WeightSource,
    /// Bytes of one matrix of the stack.
    matrix_bytes: usize,
    /// The values, for a single row: norms and biases are used as numbers.
    vector: Option<AlignedVec<f32>>,
}

impl fmt::Debug for CpuWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CpuWeight").field(&self.source).finish()
    }
}

impl CpuWeight {
    pub(crate) fn new(source: WeightSource) -> Result<Self, BackendError> {
        let bytes = source.bytes()?.len();
        if matches!(source.ty, TensorType::Q8_1 | TensorType::Q8_K) {
            return Err(BackendError::UnsupportedType { name: source.name, ty: source.ty, backend: "cpu" });
        }
        let vector = if source.total_rows() == 1 { Some(decoded(&source)?) } else { None };
        Ok(Self { matrix_bytes: bytes / source.dims[2].max(1), source, vector })
    }

    /// Returns the length of a row: the number of inputs.
    pub(crate) fn columns(&self) -> usize {
        self.source.dims[0]
    }

    /// Returns the rows of one matrix: the number of outputs.
    pub(crate) fn rows(&self) -> usize {
        self.source.dims[1]
    }

    /// Returns the number of matrices in the stack.
    pub(crate) fn matrices(&self) -> usize {
        self.source.dims[2]
    }

    /// Returns one matrix of the stack.
    pub(crate) fn matrix(&self, index: usize) -> Result<Rows<'_>, BackendError> {
        let all = self.source.bytes()?;
        let (what, len) = ("matrix of the stack", self.matrices());
        let out_of_range = BackendError::OutOfRange { op: "weight", what, index, len };
        let start = index.checked_mul(self.matrix_bytes);
        let bytes = start.and_then(|start| all.get(start..start.checked_add(self.matrix_bytes)?));
        let bytes = bytes.filter(|_| index < len).ok_or(out_of_range)?;
        Ok(Rows { ty: self.source.ty, bytes, columns: self.columns(), rows: self.rows() })
    }

    /// Returns the values of a vector that must have `length` elements.
    pub(crate) fn vector(&self, op: &'static str, what: &'static str, length: usize) -> Result<&[f32], BackendError> {
        let elements = self.columns().saturating_mul(self.source.total_rows());
        BackendError::expect_size(op, what, elements, length)?;
        let rows = BackendError::Shape { op, what, found: self.source.total_rows(), expected: 1 };
        self.vector.as_deref().ok_or(rows)
    }
}

fn decoded(source: &WeightSource) -> Result<AlignedVec<f32>, BackendError> {
    let refused = BackendError::OutOfMemory { what: "a weight vector", bytes: source.dims[0].saturating_mul(4) };
    let mut values = AlignedVec::try_zeroed(source.dims[0]).ok_or(refused)?;
    decode(source.ty, source.bytes()?, &mut values)?;
    Ok(values)
}

/// Decodes blocks whose number fits `out`.
pub(crate) fn decode(ty: TensorType, blocks: &[u8], out: &mut [f32]) -> Result<(), BackendError> {
    ty.decode(blocks, out).map_err(|error| BackendError::Device { op: "decode", message: error.to_string() })
}
