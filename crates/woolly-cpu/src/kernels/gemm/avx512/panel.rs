//! Thirty-two weight rows unpacked side by side: one lane a row, two vectors, [`PIECE`] columns.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use super::super::unpack::PIECE;
use super::tile::MAGIC;
use crate::kernels::gemv::Rows;

/// Weight rows of a vector.
pub(super) const LANES: usize = 16;

/// Weight rows of a panel.
pub(crate) const ROWS: usize = 2 * LANES;

/// Quants, scales and minimums of [`ROWS`] rows; whatever is read was written for the same piece.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// Four unsigned bytes of a row in an element.
    pub(super) quads: [[[i32; LANES]; 2]; PIECE / 4],
    /// Of each group of 16 or 32 columns.
    pub(super) scales: [[[f32; LANES]; 2]; PIECE / 16],
    /// `−MAGIC · scale`: what takes the magic number off again in the multiplication with the scale.
    pub(super) biases: [[[f32; LANES]; 2]; PIECE / 16],
    pub(super) minimums: [[[f32; LANES]; 2]; PIECE / 16],
}

impl Panel {
    pub(super) const ZERO: Self = Self {
        quads: [[[0; LANES]; 2]; _],
        scales: [[[0.0; LANES]; 2]; _],
        biases: [[[0.0; LANES]; 2]; _],
        minimums: [[[0.0; LANES]; 2]; _],
    };
}

/// Takes what blocks are unpacked to, a lane a row: scales before the quants of their groups.
///
/// Methods are inlined into functions with the instructions: only [`super::unpack`] calls them.
pub(super) trait Sink {
    fn scale(&mut self, group: usize, scale: __m512);
    fn minimum(&mut self, group: usize, minimum: __m512);
    /// Takes the quants of a group, eight words of four where it has 32 columns, or four.
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]);
}

/// One vector's half of a panel, to be filled.
pub(super) struct Half<'a> {
    pub(super) panel: &'a mut Panel,
    /// Zero or one.
    pub(super) half: usize,
}

impl Sink for Half<'_> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        // SAFETY: the caller has the instructions; both are sixteen floats.
        unsafe {
            let bias = _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC));
            _mm512_storeu_ps(self.panel.scales[group][self.half].as_mut_ptr(), scale);
            _mm512_storeu_ps(self.panel.biases[group][self.half].as_mut_ptr(), bias);
        }
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        // SAFETY: the caller has the instructions; sixteen floats are writable.
        unsafe { _mm512_storeu_ps(self.panel.minimums[group][self.half].as_mut_ptr(), minimum) }
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        for (to, quad) in self.panel.quads[group * Q..(group + 1) * Q].iter_mut().zip(quads) {
            // SAFETY: the caller has the instructions; sixteen integers are writable.
            unsafe { _mm512_storeu_si512(to[self.half].as_mut_ptr().cast(), quad) }
        }
    }
}

/// Copies of the last rows of a matrix, with zeros for the rows that would follow.
#[repr(align(64))]
pub(super) struct Tail([[u8; MOST_BYTES]; LANES]);

/// Bytes of the largest piece, that of Q8_0.
const MOST_BYTES: usize = PIECE / 32 * 34;

impl Tail {
    pub(super) const ZERO: Self = Self([[0; MOST_BYTES]; LANES]);
}

/// A piece of [`LANES`] rows.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    /// Of the first row.
    start: *const u8,
    /// Bytes from one row to the next.
    stride: usize,
    /// Bytes of each row.
    len: usize,
    rows: PhantomData<&'a [u8]>,
}

impl<'a> Pieces<'a> {
    /// Returns bytes `column..column + len` of the rows from `first` on; rows that do not exist are zeros.
    pub(super) fn new(w: &Rows<'a>, first: usize, column: usize, len: usize, tail: &'a mut Tail) -> Self {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        assert!(column + len <= row_bytes && len <= MOST_BYTES, "a piece beyond the end of its row");
        if first + LANES <= w.rows {
            return Self {
                start: w.bytes[first * row_bytes + column..].as_ptr(),
                stride: row_bytes,
                len,
                rows: PhantomData,
            };
        }
        for (lane, copy) in tail.0.iter_mut().enumerate() {
            match first + lane {
                row if row < w.rows => copy[..len].copy_from_slice(&w.bytes[row * row_bytes + column..][..len]),
                _ => copy.fill(0),
            }
        }
        Self { start: tail.0.as_ptr().cast(), stride: MOST_BYTES, len, rows: PhantomData }
    }

    /// Returns the blocks of `len` bytes that are `by` bytes into the pieces.
    #[inline(always)]
    pub(super) fn block(self, by: usize, len: usize) -> Block<'a> {
        assert!(by + len <= self.len, "a block beyond the end of its piece");
        Block(Self { start: self.start.wrapping_add(by), len, ..self })
    }
}

/// A block in each of [`LANES`] rows, all of whose bytes exist.
#[derive(Clone, Copy)]
pub(super) struct Block<'a>(Pieces<'a>);

impl Block<'_> {
    /// Returns bytes `by..by + 16` of the rows, four in each vector: vector `i` holds bytes `by + 4i..` of all rows.
    ///
    /// # Safety
    /// The block has these bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) unsafe fn sixteen(self, by: usize) -> [__m512i; 4] {
        debug_assert!(by + 16 <= self.0.len);
        // SAFETY: the bytes exist: the caller vouches for the block's, `Pieces` for the block in all rows.
        let load = |row: usize| unsafe { _mm_loadu_si128(self.0.start.add(row * self.0.stride + by).cast()) };
        // Row i and every fourth after it, 128 bits each; then 4 x 4 transpositions in the lanes.
        macro_rules! four {
            ($row:literal) => {{
                let v = _mm512_castsi128_si512(load($row));
                let v = _mm512_inserti32x4::<1>(v, load($row + 4));
                let v = _mm512_inserti32x4::<2>(v, load($row + 8));
                _mm512_inserti32x4::<3>(v, load($row + 12))
            }};
        }
        let (a, b, c, d) = (four!(0), four!(1), four!(2), four!(3));
        let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        [
            _mm512_unpacklo_epi64(ab_low, cd_low),
            _mm512_unpackhi_epi64(ab_low, cd_low),
            _mm512_unpacklo_epi64(ab_high, cd_high),
            _mm512_unpackhi_epi64(ab_high, cd_high),
        ]
    }

    /// Returns bytes `by..by + 32` of the rows, as [`sixteen`](Self::sixteen) does.
    ///
    /// # Safety
    /// As there.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq")]
    pub(super) unsafe fn thirty_two(self, by: usize) -> [__m512i; 8] {
        // SAFETY: passed on from the caller.
        let ([a, b, c, d], [e, f, g, h]) = unsafe { (self.sixteen(by), self.sixteen(by + 16)) };
        [a, b, c, d, e, f, g, h]
    }

    /// Returns bytes `by..by + 4` of the rows.
    ///
    /// # Safety
    /// The block has these bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn word(self, by: usize) -> __m512i {
        debug_assert!(by + 4 <= self.0.len);
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let index = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(self.0.stride as i32));
        // SAFETY: as in `sixteen`; `takes` has refused rows so long that their distances are no `i32`.
        unsafe { _mm512_i32gather_epi32::<1>(index, self.0.start.add(by).cast()) }
    }
}

/// Asks for weights to come, a few cache lines at a time.
///
/// A thread has sixteen lines on their way at most, and whoever asks for more waits for them; so they are spread over the
/// work on the weights before.
pub(super) struct Ahead {
    at: *const u8,
    /// From the end of a run of lines to the next.
    skip: usize,
    /// Lines in a run, and of these, how many are left.
    run: usize,
    left_of_run: usize,
    /// Lines left, and how many to ask for each time.
    left: usize,
    each: usize,
}

impl Ahead {
    /// Whole rows, as far as they exist, in the order in which they lie in memory; `steps` steps ask for all of them.
    pub(super) fn strip(w: &Rows<'_>, rows: Range<usize>, steps: usize) -> Self {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        let lines = (rows.end.min(w.rows).saturating_sub(rows.start) * row_bytes).div_ceil(64);
        Self::new(w.bytes.as_ptr().wrapping_add(rows.start * row_bytes), (1, 0), lines, steps)
    }

    /// Bytes `bytes` of each of the rows, as far as they exist; `steps` steps ask for all of them.
    pub(super) fn piece(w: &Rows<'_>, rows: Range<usize>, bytes: Range<usize>, steps: usize) -> Self {
        let row_bytes = w.bytes.len() / w.rows.max(1);
        let rows = rows.start..rows.end.min(w.rows).max(rows.start);
        let at = w.bytes.as_ptr().wrapping_add(rows.start * row_bytes + bytes.start);
        Self::new(at, (rows.len(), row_bytes), bytes.len().div_ceil(64), steps)
    }

    fn new(at: *const u8, (runs, distance): (usize, usize), run: usize, steps: usize) -> Self {
        let left = runs * run;
        let skip = distance.wrapping_sub(64 * run);
        Self { at, skip, run, left_of_run: run, left, each: left.div_ceil(steps.max(1)) }
    }

    /// Asks for the next lines.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn step(&mut self) {
        let count = self.each.min(self.left);
        for _ in 0..count {
            _mm_prefetch::<_MM_HINT_T1>(self.at.cast());
            self.at = self.at.wrapping_add(64);
            self.left_of_run -= 1;
            if self.left_of_run == 0 {
                self.left_of_run = self.run;
                self.at = self.at.wrapping_add(self.skip);
            }
        }
        self.left -= count;
    }
}
