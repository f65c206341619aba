//! Products of BF16 weights by pairs of columns: `vdpbf16ps` adds two products to each lane, of weights as they are and
//! activations rounded to bfloat16, as the tiles of AMX do.
//!
//! Thirty-two weight rows, a lane each, are transposed piece by piece into a panel in the L1 cache: sixteen rows' pairs of a
//! column are the words of a vector. That takes a few instructions for what is multiplied with tens or hundreds of tokens.
//! Subnormal numbers count as zeros; rows and columns beyond the last are zeros on both sides.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::bf16::bf16;
use super::super::lanes::{Ahead, Matrix};
use super::super::unpack::PIECE;
use super::panel::{LANES, ROWS};
use super::tile::Next;
use super::tokens::{TILE, Tokens, interleave};
use super::{after_panels, width};
use crate::buffer::Zeroed;
use crate::isa::{Avx512, Avx512Bf16};
use crate::kernels::gemv::Rows;
use crate::kernels::simd::transposed16;

/// Pairs of columns in a piece.
const PAIRS: usize = PIECE / 2;

/// Columns that are moved at a time: a vector of bfloat16 numbers.
const COLUMNS: usize = 2 * LANES;

/// Pairs multiplied between two requests for memory.
const RUN: usize = 8;

/// A piece of [`ROWS`] weight rows, two columns of a row in an element; whatever is read was written for the same piece.
#[repr(C, align(64))]
pub(super) struct Panel([[[u32; LANES]; 2]; PAIRS]);

/// One piece of one tile's activations, two columns of a token in an element.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Part([[i32; TILE]; PAIRS]);

// SAFETY: an array of numbers.
unsafe impl Zeroed for Part {}

impl Part {
    /// Rounds rows of equal lengths, or empty ones for tokens that do not exist; zeros fill the last vector.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    pub(super) fn fill(&mut self, rows: &[&[f32]; TILE]) {
        for first in (0..rows[0].len()).step_by(COLUMNS) {
            let mut pairs = [[_mm256_setzero_si256(); 8]; 2];
            for (lane, row) in rows.iter().enumerate() {
                let rest = row.get(first..).unwrap_or_default();
                let (low, high) = rest.split_at(rest.len().min(LANES));
                // SAFETY: the masks select what there is.
                let (low, high) = unsafe {
                    (
                        _mm512_maskz_loadu_ps(lowest(low.len()) as __mmask16, low.as_ptr()),
                        _mm512_maskz_loadu_ps(lowest(high.len()) as __mmask16, high.as_ptr()),
                    )
                };
                let rounded = bf16(low, high);
                pairs[0][lane] = _mm512_castsi512_si256(rounded);
                pairs[1][lane] = _mm512_extracti64x4_epi64::<1>(rounded);
            }
            interleave(&mut self.0, first / 2, pairs[0]);
            interleave(&mut self.0, first / 2 + 8, pairs[1]);
        }
    }
}

/// Returns a mask of the lowest `n` lanes, or of all 32 where there are more.
#[inline(always)]
fn lowest(n: usize) -> u32 {
    if n < 32 { (1 << n) - 1 } else { u32::MAX }
}

impl Panel {
    pub(super) const ZERO: Self = Self([[[0; LANES]; 2]; _]);

    /// Transposes columns `piece * PIECE..` of rows `first..first + ROWS`. It asks for nothing ahead, which made it slower.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    fn fill(&mut self, weight: &Rows<'_>, first: usize, piece: usize) {
        assert!(weight.rows * weight.columns * 2 <= weight.bytes.len(), "weights beyond the end of their rows");
        let (columns, row_bytes) = (PIECE.min(weight.columns - piece * PIECE), 2 * weight.columns);
        for half in 0..2 {
            let first = first + half * LANES;
            let count = weight.rows.saturating_sub(first);
            let start = weight.bytes.as_ptr().wrapping_add(first * row_bytes + 2 * piece * PIECE);
            for column in (0..columns).step_by(COLUMNS) {
                let mask = lowest(columns - column);
                let mut rows = [_mm512_setzero_si512(); LANES];
                // All sixteen, so that they stay in registers.
                for (lane, row) in rows.iter_mut().enumerate() {
                    let mask = if lane < count { mask } else { 0 };
                    let at = start.wrapping_add(lane * row_bytes + 2 * column);
                    // SAFETY: the mask selects what a row has of these columns, and nothing of one that does not exist.
                    *row = unsafe { _mm512_maskz_loadu_epi16(mask, at.cast()) };
                }
                // SAFETY: this function has the instructions.
                let columns = unsafe { transposed16(rows) };
                for (to, pairs) in self.0[column / 2..][..LANES].iter_mut().zip(columns) {
                    // SAFETY: sixteen words are writable.
                    unsafe { _mm512_storeu_si512(to[half].as_mut_ptr().cast(), pairs) };
                }
            }
        }
    }
}

/// The product of [`super::product`], for BF16 weights.
pub(super) fn product(
    (simd, _): (Avx512, Avx512Bf16),
    weight: &Rows<'_>,
    first: usize,
    x: &Tokens,
    tiles: Range<usize>,
    panel: &mut Panel,
    c: &mut [f32],
) {
    let width = width(weight, x, &tiles, c);
    if x.columns() == 0 {
        return c.fill(0.0);
    }
    let product = Product { simd, weight: Matrix::new(weight), first, x, tiles, width };
    // SAFETY: the two proofs are those of the instructions.
    unsafe { product.run(panel, c) };
}

struct Product<'a> {
    simd: Avx512,
    weight: Matrix<'a>,
    first: usize,
    x: &'a Tokens,
    tiles: Range<usize>,
    width: usize,
}

impl Product<'_> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    fn run(&self, panel: &mut Panel, c: &mut [f32]) {
        let panels = self.width / ROWS;
        let steps = PAIRS / RUN * self.tiles.len();
        let pieces = self.x.columns().div_ceil(PIECE);
        // As in the product of bytes: of one panel all of the next one.
        let next = self.first + ROWS..self.first + 2 * ROWS;
        let mut next = (panels == 1).then(|| Ahead::strip(self.weight, next, steps * pieces));
        for piece in 0..pieces {
            for index in 0..panels {
                let strip = (self.first, self.width);
                let mut after = None;
                let ahead = match &mut next {
                    Some(next) => next,
                    None => after.insert(after_panels(self.weight, strip, piece, (index + 1, 1), steps)),
                };
                panel.fill(self.weight.rows, self.first + index * ROWS, piece);
                self.multiply(piece, panel, ahead, &mut c[index * ROWS..]);
            }
        }
    }

    /// Multiplies a panel with all tiles; `c` begins with its columns.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
    fn multiply(&self, piece: usize, panel: &Panel, ahead: &mut Ahead, c: &mut [f32]) {
        let columns = PIECE.min(self.x.columns() - piece * PIECE);
        let runs = columns.next_multiple_of(COLUMNS) / (2 * RUN);
        let parts = self.x.pairs(piece);
        for (index, tile) in self.tiles.clone().enumerate() {
            let c = &mut c[index * TILE * self.width..];
            assert!(c.len() >= (TILE - 1) * self.width + ROWS);
            let (x, c) = (&parts[tile], (c.as_mut_ptr(), self.width));
            // SAFETY: the assertion covers the rows of a tile.
            unsafe {
                match self.x.of_tile(tile).len() {
                    ..=2 => products::<2>(self.simd, panel, x, runs, ahead, c, piece == 0),
                    3 | 4 => products::<4>(self.simd, panel, x, runs, ahead, c, piece == 0),
                    5 => products::<5>(self.simd, panel, x, runs, ahead, c, piece == 0),
                    _ => products::<TILE>(self.simd, panel, x, runs, ahead, c, piece == 0),
                }
            }
        }
    }
}

/// Adds the products of the first `N` tokens with a panel, over `runs` times [`RUN`] pairs, to `c`, whose rows are `stride`
/// floats apart, or, where they are the `first` ones, puts them there.
///
/// # Safety
/// `c` is valid for `N` rows of two vectors.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
unsafe fn products<const N: usize>(
    simd: Avx512,
    panel: &Panel,
    x: &Part,
    runs: usize,
    ahead: &mut Ahead,
    (c, stride): (*mut f32, usize),
    first: bool,
) {
    let mut asking = *ahead;
    let mut next = Next::after(x);
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    if !first {
        for (t, sum) in sums.iter_mut().enumerate() {
            // SAFETY: passed on from the caller.
            *sum = unsafe { [_mm512_loadu_ps(c.add(t * stride)), _mm512_loadu_ps(c.add(t * stride + LANES))] };
        }
    }
    let runs = panel.0.as_chunks::<RUN>().0.iter().zip(x.0.as_chunks::<RUN>().0).take(runs);
    for (weights, x) in runs {
        next.ask(PAIRS / RUN);
        asking.step(simd);
        for (w, x) in weights.iter().zip(x) {
            let w = [words(&w[0]), words(&w[1])];
            for (sum, &x) in sums.iter_mut().zip(x) {
                let x = _mm512_set1_epi32(x);
                *sum = [add_products(sum[0], w[0], x), add_products(sum[1], w[1], x)];
            }
        }
    }
    *ahead = asking;
    for (t, sum) in sums.into_iter().enumerate() {
        // SAFETY: passed on from the caller.
        unsafe {
            _mm512_storeu_ps(c.add(t * stride), sum[0]);
            _mm512_storeu_ps(c.add(t * stride + LANES), sum[1]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn words(from: &[u32; LANES]) -> __m512i {
    // SAFETY: sixteen words are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Adds to each lane the products of two pairs of bfloat16 numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn add_products(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both are 512 bits of plain data.
    unsafe {
        _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b))
    }
}
