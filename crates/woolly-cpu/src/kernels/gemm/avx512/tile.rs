//! The innermost loop: a panel of weights times a few tokens, over one piece of columns.
//!
//! Sums of bytes start at the bits of [`MAGIC`], so that they are at the same time the floats `MAGIC + sum`. One fused
//! multiplication with the scale then converts and scales at once: `(MAGIC + sum) · scale − MAGIC · scale`. It rounds once,
//! for `MAGIC · scale` is exact: scales have at most 19 bits, being half-precision numbers times integers below 256, or cut
//! to that. Every other vector instruction takes the place of a product, so this is what the share of the peak hangs on.

use std::arch::x86_64::*;

use super::super::lanes::Ahead;
use super::panel::{LANES, Panel};
use super::tokens::{Part, TILE};
use crate::isa::Avx512;

/// 1.5 · 2^23: floats from 2^23 to 2^24 are the integers. Sums stay below 2^22: 32 products of
/// 255 and 127 are 2^20, and 128 of 127 and 127, which is what is left of offset ones, 2^21.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// A tile's activations for one piece, and what weights of one form need besides.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) part: &'a Part,
    /// `[group][TILE]`: where sums start, or factors of the minimums.
    pub(super) extra: &'a [[u32; TILE]],
}

/// Adds the products of the first `N` tokens with a panel to `c`, whose rows are `stride` floats apart.
///
/// A group has four times `QUADS` columns; the length of `extra` tells how many groups there are.
///
/// # Safety
/// `c` is valid for `N` rows of two vectors.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn tile<const N: usize, const QUADS: usize, const MINIMUM: bool>(
    simd: Avx512,
    panel: &Panel,
    x: Operands<'_>,
    ahead: &mut Ahead,
    c: *mut f32,
    stride: usize,
) {
    let groups = x.extra.len();
    assert!(N <= TILE && groups * QUADS <= x.part.quads.len());
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    for (t, sum) in sums.iter_mut().enumerate() {
        // SAFETY: passed on from the caller.
        *sum = unsafe { [_mm512_loadu_ps(c.add(t * stride)), _mm512_loadu_ps(c.add(t * stride + LANES))] };
    }
    for (group, extra) in x.extra.iter().enumerate() {
        let mut products = [[_mm512_set1_epi32(MAGIC.to_bits().cast_signed()); 2]; N];
        if !MINIMUM {
            for (products, start) in products.iter_mut().zip(extra) {
                *products = [_mm512_set1_epi32(start.cast_signed()); 2];
            }
        }
        for first in (group * QUADS..(group + 1) * QUADS).step_by(run(QUADS)) {
            // The next tile's activations: of long rows they come from beyond the L2 cache.
            for line in 0..run(QUADS) / 2 {
                let next = (&raw const *x.part).wrapping_add(1).cast::<i8>();
                _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add((first / 2 + line) * 64));
            }
            ahead.step(simd);
            for quad in first..first + run(QUADS) {
                // SAFETY: `quad` is one of the piece's, by the assertion; both operands hold a whole piece.
                let (w, x) = unsafe { (panel.quads.get_unchecked(quad), x.part.quads.get_unchecked(quad)) };
                let w = [integers(&w[0]), integers(&w[1])];
                for (products, &x) in products.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x);
                    *products = [_mm512_dpbusd_epi32(products[0], w[0], x), _mm512_dpbusd_epi32(products[1], w[1], x)];
                }
            }
        }
        let (scales, biases) = (pair(&panel.scales[group]), pair(&panel.biases[group]));
        for ((sum, products), &x) in sums.iter_mut().zip(products).zip(&x.part.scales[group * QUADS / 8]) {
            let x = _mm512_set1_ps(x);
            for v in 0..2 {
                let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(products[v]), scales[v], biases[v]);
                sum[v] = _mm512_fmadd_ps(scaled, x, sum[v]);
            }
        }
        if MINIMUM {
            let minimums = pair(&panel.minimums[group]);
            for (sum, &x) in sums.iter_mut().zip(extra) {
                let x = _mm512_set1_ps(f32::from_bits(x));
                *sum = [_mm512_fmadd_ps(minimums[0], x, sum[0]), _mm512_fmadd_ps(minimums[1], x, sum[1])];
            }
        }
    }
    for (t, sum) in sums.into_iter().enumerate() {
        // SAFETY: passed on from the caller.
        unsafe {
            _mm512_storeu_ps(c.add(t * stride), sum[0]);
            _mm512_storeu_ps(c.add(t * stride + LANES), sum[1]);
        }
    }
}

/// Returns the quads between two requests for memory, in groups of so many.
pub(super) const fn run(quads: usize) -> usize {
    if quads < 8 { quads } else { 8 }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn integers(from: &[i32; LANES]) -> __m512i {
    // SAFETY: sixteen integers are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn pair(from: &[[f32; LANES]; 2]) -> [__m512; 2] {
    // SAFETY: sixteen floats each are readable.
    unsafe { [_mm512_loadu_ps(from[0].as_ptr()), _mm512_loadu_ps(from[1].as_ptr())] }
}
