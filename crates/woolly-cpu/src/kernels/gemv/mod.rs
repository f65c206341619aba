//! Matrix times few vectors: decoding, where every weight is read once and bandwidth is what counts.

use std::ops::Range;

use woolly_quant::TensorType;

use crate::buffer::{AlignedVec, SharedOut};
use crate::isa::Level;

/// Most vectors that one pass over the weights is multiplied with.
pub const MAX_COLUMNS: usize = 8;

/// A weight matrix where it lies: row-major GGUF blocks at any alignment.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Type of the blocks.
    pub ty: TensorType,
    /// `rows · row_bytes` bytes.
    pub bytes: &'a [u8],
    /// Elements of a row: the length of an input vector.
    pub columns: usize,
    /// Number of rows: the length of an output vector.
    pub rows: usize,
}

/// Input vectors, prepared for the weight types they will be multiplied with.
#[derive(Debug)]
pub struct Input {
    plain: AlignedVec<f32>,
    m: usize,
    k: usize,
    prepared: bool,
}

impl Input {
    /// Allocates all that [`Input::prepare`] will need for up to `max_columns` vectors of up to `max_k` elements.
    pub fn with_capacity(max_columns: usize, max_k: usize) -> Self {
        Self { plain: AlignedVec::zeroed(max_columns * max_k), m: 0, k: 0, prepared: false }
    }

    /// Forgets what was prepared: to be called when the input vectors have changed.
    pub fn invalidate(&mut self) {
        self.prepared = false;
    }

    /// Prepares `m` vectors of `k` elements (`x`, row-major) for weights like `w`; returns at once if that has been done.
    ///
    /// # Panics
    /// When `x` is no `m · k` elements, or larger than the capacity.
    pub fn prepare(&mut self, _level: Level, _w: &Rows<'_>, x: &[f32], m: usize, k: usize) {
        assert_eq!(x.len(), m * k, "{m} input vectors of {k} elements");
        if !self.prepared {
            self.plain[..m * k].copy_from_slice(x);
            (self.m, self.k, self.prepared) = (m, k, true);
        }
    }
}

/// Computes `out[c · out_stride + r] = Σ w[r] · x[c]` for the rows `r` of `range` and all vectors `c` of `x`.
///
/// A row's result does not depend on `range`, nor on how many vectors there are: it is the same to the last bit.
///
/// # Panics
/// When `range` is outside of the matrix, its bytes are not what its shape needs, or `x` is not prepared for it.
pub fn gemv(_level: Level, w: &Rows<'_>, range: Range<usize>, x: &Input, out: &SharedOut<'_>, out_stride: usize) {
    assert!(x.prepared && x.k == w.columns, "input is prepared for this matrix");
    let row_bytes = w.ty.row_bytes(w.columns).expect("a weight has whole blocks");
    let mut row = vec![0.0; w.columns];
    for r in range {
        w.ty.decode(&w.bytes[r * row_bytes..][..row_bytes], &mut row).expect("sizes agree");
        for c in 0..x.m {
            let dot = row.iter().zip(&x.plain[c * x.k..][..x.k]).map(|(w, x)| w * x).sum();
            out.set(c * out_stride + r, dot);
        }
    }
}
