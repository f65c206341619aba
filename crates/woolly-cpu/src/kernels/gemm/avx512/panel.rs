//! Thirty-two weight rows unpacked side by side: one lane a row, two vectors, [`PIECE`] columns.

use std::arch::x86_64::*;

use super::super::lanes::Sink;
use super::super::unpack::PIECE;
use super::tile::MAGIC;
use crate::isa::Avx512;

/// Weight rows of a vector.
pub(super) const LANES: usize = 16;

/// Weight rows of a panel.
pub(crate) const ROWS: usize = 2 * LANES;

/// Quants, scales and minimums of [`ROWS`] rows; whatever is read was written for the same piece.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Four unsigned bytes of a row in an element.
    pub(super) quads: [[[i32; LANES]; 2]; PIECE / 4],
    /// Of each group of columns that share a scale.
    pub(super) heads: [Head; PIECE / 16],
}

/// What the products of a group are scaled with.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Head {
    pub(super) scales: [[f32; LANES]; 2],
    /// `−MAGIC · scale`: what takes the magic number off again in the multiplication with the scale.
    pub(super) biases: [[f32; LANES]; 2],
    pub(super) minimums: [[f32; LANES]; 2],
}

impl Panel {
    pub(super) const ZERO: Self = Self { quads: [[[0; LANES]; 2]; _], heads: [Head::ZERO; _] };
}

impl Head {
    const ZERO: Self = Self { scales: [[0.0; LANES]; 2], biases: [[0.0; LANES]; 2], minimums: [[0.0; LANES]; 2] };
}

/// One vector's half of a panel, to be filled.
pub(super) struct Half<'a> {
    pub(super) panel: &'a mut Panel,
    /// Zero or one.
    pub(super) half: usize,
}

impl Sink<Avx512> for Half<'_> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        // SAFETY: the caller has the instructions; both are sixteen floats.
        unsafe {
            let bias = _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC));
            _mm512_storeu_ps(self.panel.heads[group].scales[self.half].as_mut_ptr(), scale);
            _mm512_storeu_ps(self.panel.heads[group].biases[self.half].as_mut_ptr(), bias);
        }
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        // SAFETY: the caller has the instructions; sixteen floats are writable.
        unsafe { _mm512_storeu_ps(self.panel.heads[group].minimums[self.half].as_mut_ptr(), minimum) }
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        for (to, quad) in self.panel.quads[group * Q..(group + 1) * Q].iter_mut().zip(quads) {
            // SAFETY: the caller has the instructions; sixteen integers are writable.
            unsafe { _mm512_storeu_si512(to[self.half].as_mut_ptr().cast(), quad) }
        }
    }
}
