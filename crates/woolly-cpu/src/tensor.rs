//! Matrices of activations: aligned, row-major, with room for a fixed number of rows.

use std::fmt;
use std::sync::Arc;

use woolly_tensor::BackendError;

use crate::memory::{Buffer, MemoryPool};

/// A row-major `f32` matrix.
pub struct CpuTensor {
    values: Buffer,
    rows: usize,
    columns: usize,
    max_rows: usize,
}

impl fmt::Debug for CpuTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuTensor").field("rows", &self.rows).field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl CpuTensor {
    /// Takes the memory from `pool`, or from the system where there is none.
    pub(crate) fn new(pool: Option<&Arc<MemoryPool>>, max_rows: usize, columns: usize) -> Result<Self, BackendError> {
        let refused = |bytes| BackendError::OutOfMemory { what: "activations", bytes };
        let len = max_rows.checked_mul(columns).ok_or(refused(usize::MAX))?;
        let values = match pool {
            Some(pool) => pool.take(len)?,
            None => Buffer::try_zeroed(len).ok_or(refused(len.saturating_mul(4)))?,
        };
        Ok(Self { values, rows: max_rows, columns, max_rows })
    }

    /// Returns the number of rows in use.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Sets the number of rows in use.
    pub(crate) fn set_rows(&mut self, op: &'static str, rows: usize) -> Result<(), BackendError> {
        if rows > self.max_rows {
            return Err(BackendError::Shape { op, what: "rows", found: rows, expected: self.max_rows });
        }
        self.rows = rows;
        Ok(())
    }

    /// Returns the rows in use.
    pub(crate) fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.columns]
    }

    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.rows * self.columns]
    }

    pub(crate) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}
