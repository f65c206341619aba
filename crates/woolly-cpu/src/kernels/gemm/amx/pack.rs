//! Activations as the right operand of the tile products.
//!
//! `[piece][strip of 32 tokens][step][2 tiles][16 pairs of columns][16 tokens][2]` in bfloat16: what the tile loop reads
//! of a strip is one linear stream. Tokens and columns beyond the last are zeros.

use std::arch::x86_64::*;

use super::{COLUMNS, PIECE, STEP, STRIP};
use crate::buffer::AlignedVec;
use crate::isa::Amx;
use crate::kernels::disjoint::Disjoint;
use crate::kernels::gemm::Source;
use crate::kernels::gemm::bf16::bf16;
use crate::kernels::simd::transposed16;

/// Tokens of a tile.
const TILE: usize = 16;

/// A matrix of activations, packed.
#[derive(Debug)]
pub(crate) struct Tokens {
    rows: usize,
    columns: usize,
    values: AlignedVec<u16>,
}

impl Default for Tokens {
    fn default() -> Self {
        Self { rows: 0, columns: 0, values: AlignedVec::zeroed(0) }
    }
}

impl Tokens {
    /// Makes room for a matrix and forgets what was packed; allocates only when it is larger than any before.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        let len = self.strips() * columns.div_ceil(COLUMNS) * STEP;
        if self.values.len() < len {
            self.values = AlignedVec::zeroed(len);
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn strips(&self) -> usize {
        self.rows.div_ceil(STRIP)
    }

    pub(super) fn pieces(&self) -> usize {
        self.columns.div_ceil(PIECE)
    }

    /// Returns the steps of a piece.
    pub(super) fn steps(&self, piece: usize) -> usize {
        (self.columns - piece * PIECE).min(PIECE).div_ceil(COLUMNS)
    }

    /// Returns one piece of a strip.
    pub(super) fn strip(&self, piece: usize, strip: usize) -> &[u16] {
        let each = self.steps(piece) * STEP;
        &self.values[start(self.strips(), piece, strip, each)..][..each]
    }

    /// Returns the number of tiles of 16 tokens to pack.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// Fills what was packed with NaN.
    #[cfg(test)]
    pub(super) fn poison(&mut self) {
        self.values.fill(0x7fc0);
    }

    /// Returns a view that packs tiles, for several threads at once.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        let (rows, columns, strips) = (self.rows, self.columns, self.strips());
        Writer { rows, columns, strips, values: Disjoint::new(&mut self.values) }
    }
}

/// Where a strip's piece starts, when a strip of this piece has `each` elements.
fn start(strips: usize, piece: usize, strip: usize, each: usize) -> usize {
    piece * strips * STRIP * PIECE + strip * each
}

/// Packs tiles into a [`Tokens`]; different threads pack different tiles.
pub(crate) struct Writer<'a> {
    rows: usize,
    columns: usize,
    strips: usize,
    values: Disjoint<'a, u16>,
}

impl Writer<'_> {
    /// Packs one tile of 16 tokens; `lines` is scratch that grows to the length of 16 rows and one.
    ///
    /// # Safety
    /// No other thread packs this tile at the same time.
    pub(crate) unsafe fn pack(&self, _: Amx, source: &dyn Source, tile: usize, lines: &mut Vec<f32>) {
        let padded = self.columns.next_multiple_of(COLUMNS);
        if lines.len() < (TILE + 1) * padded {
            lines.resize((TILE + 1) * padded, 0.0);
        }
        let (zeros, lines) = lines[..(TILE + 1) * padded].split_at_mut(padded);
        zeros.fill(0.0);
        let mut rows = [&*zeros; TILE];
        for (lane, (from, line)) in rows.iter_mut().zip(lines.chunks_exact_mut(padded.max(1))).enumerate() {
            let row = tile * TILE + lane;
            if row >= self.rows {
                break;
            }
            // Rows that need no padding are read where they lie.
            *from = match source.plain(row).filter(|plain| plain.len() == padded) {
                Some(plain) => plain,
                None => {
                    let (values, rest) = line.split_at_mut(self.columns);
                    source.row(row, values);
                    rest.fill(0.0);
                    line
                }
            };
        }
        // SAFETY: the token proves the instructions; the tile is the caller's.
        unsafe { self.interleave(tile, &rows, padded) };
    }

    /// # Safety
    /// As [`pack`](Self::pack).
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn interleave(&self, tile: usize, rows: &[&[f32]; TILE], padded: usize) {
        assert!(rows.iter().all(|row| row.len() == padded));
        let steps = padded / COLUMNS;
        for step in 0..steps {
            let piece = step * COLUMNS / PIECE;
            let in_piece = PIECE / COLUMNS;
            let each = (steps - piece * in_piece).min(in_piece) * STEP;
            let at = start(self.strips, piece, tile / 2, each) + step % in_piece * STEP + tile % 2 * (STEP / 2);
            // SAFETY: parts of different tiles do not overlap, and this tile is the caller's.
            let to = unsafe { self.values.slice(at..at + STEP / 2) };
            // SAFETY: every one of the 16 rows has this step's 32 elements, by the assertion.
            let pairs = std::array::from_fn(|lane| unsafe {
                let from = rows[lane].as_ptr().add(step * COLUMNS);
                bf16(_mm512_loadu_ps(from), _mm512_loadu_ps(from.add(16)))
            });
            // SAFETY: this function has the instructions.
            let pairs = unsafe { transposed16(pairs) };
            for (to, pair) in to.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(pairs) {
                // SAFETY: 64 bytes are writable.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), pair) };
            }
        }
    }
}
