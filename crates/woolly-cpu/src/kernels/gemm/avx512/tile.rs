//! The innermost loop: a panel of weights times a few tokens, over one piece of columns.
//!
//! Sums of bytes start at the bits of [`MAGIC`], so that they are at the same time the floats `MAGIC + sum`. One fused
//! multiplication with the scale then converts and scales at once: `(MAGIC + sum) · scale − MAGIC · scale`. It rounds once,
//! for `MAGIC · scale` is exact: scales have at most 19 bits, being half-precision numbers times integers below 256, or cut
//! to that. Every other vector instruction takes the place of a product, so this is what the share of the peak hangs on.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::lanes::Ahead;
use super::super::unpack::PIECE;
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

/// Adds the products of the first `N` tokens with a panel to `c`, whose rows are `stride` floats apart, or, where they are the
/// `first` ones, puts them there.
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
    (c, stride): (*mut f32, usize),
    first: bool,
) {
    assert!(N <= TILE && x.extra.len() * QUADS <= x.part.quads.len() && x.extra.len() <= panel.heads.len());
    let mut asking = *ahead;
    let mut sums = [[_mm512_setzero_ps(); 2]; N];
    if !first {
        for (t, sum) in sums.iter_mut().enumerate() {
            // SAFETY: passed on from the caller.
            *sum = unsafe { [_mm512_loadu_ps(c.add(t * stride)), _mm512_loadu_ps(c.add(t * stride + LANES))] };
        }
    }
    // Pointers, and no indices, from which an address takes several instructions each time; some of these go where products would.
    let (mut weights, mut quads) = (panel.quads.as_ptr(), x.part.quads.as_ptr());
    let mut next = Next::after(x.part);
    for (group, (extra, head)) in x.extra.iter().zip(&panel.heads).enumerate() {
        let mut products = [[_mm512_set1_epi32(MAGIC.to_bits().cast_signed()); 2]; N];
        if !MINIMUM {
            for (products, start) in products.iter_mut().zip(extra) {
                *products = [_mm512_set1_epi32(start.cast_signed()); 2];
            }
        }
        for _ in 0..QUADS / run(QUADS) {
            next.ask(PIECE / 4 / run(QUADS));
            asking.step(simd);
            for i in 0..run(QUADS) {
                // SAFETY: by the assertion there are as many as the groups have; both operands hold a whole piece.
                let (w, x) = unsafe { (&*weights.add(i), &*quads.add(i)) };
                let w = [integers(&w[0]), integers(&w[1])];
                for (products, &x) in products.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x);
                    *products = [_mm512_dpbusd_epi32(products[0], w[0], x), _mm512_dpbusd_epi32(products[1], w[1], x)];
                }
            }
            // SAFETY: at most one past the last.
            (weights, quads) = unsafe { (weights.add(run(QUADS)), quads.add(run(QUADS))) };
        }
        let (scales, biases) = (pair(&head.scales), pair(&head.biases));
        for ((sum, products), &x) in sums.iter_mut().zip(products).zip(&x.part.scales[group * QUADS / 8]) {
            let x = _mm512_set1_ps(x);
            for v in 0..2 {
                let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(products[v]), scales[v], biases[v]);
                sum[v] = _mm512_fmadd_ps(scaled, x, sum[v]);
            }
        }
        if MINIMUM {
            let minimums = pair(&head.minimums);
            for (sum, &x) in sums.iter_mut().zip(extra) {
                let x = _mm512_set1_ps(f32::from_bits(x));
                *sum = [_mm512_fmadd_ps(minimums[0], x, sum[0]), _mm512_fmadd_ps(minimums[1], x, sum[1])];
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

/// As [`tile`], for two panels whose rows follow each other in `c`, and groups without minimums.
///
/// Five tokens of one panel have ten sums of products, as many as are on their way at once: whatever is late holds all up. Twice as
/// many leave no room for the results, which is no loss where groups are long.
///
/// # Safety
/// `c` is valid for `N` rows of four vectors.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn wide<const N: usize, const QUADS: usize>(
    simd: Avx512,
    panels: [&Panel; 2],
    x: Operands<'_>,
    ahead: &mut Ahead,
    (c, stride): (*mut f32, usize),
    first: bool,
) {
    assert!(N <= TILE && x.extra.len() * QUADS <= x.part.quads.len() && x.extra.len() <= panels[0].heads.len());
    let mut asking = *ahead;
    let (mut weights, mut quads) = (panels.map(|panel| panel.quads.as_ptr()), x.part.quads.as_ptr());
    let mut next = Next::after(x.part);
    for (group, extra) in x.extra.iter().enumerate() {
        let mut products = [[_mm512_setzero_si512(); 4]; N];
        for (products, start) in products.iter_mut().zip(extra) {
            *products = [_mm512_set1_epi32(start.cast_signed()); 4];
        }
        for _ in 0..QUADS / run(QUADS) {
            next.ask(PIECE / 4 / run(QUADS));
            // Each panel by itself would have taken a step.
            asking.step(simd);
            asking.step(simd);
            for i in 0..run(QUADS) {
                // SAFETY: by the assertion there are as many as the groups have; all operands hold a whole piece.
                let (w, x) = unsafe { (weights.map(|weights| &*weights.add(i)), &*quads.add(i)) };
                let w = [integers(&w[0][0]), integers(&w[0][1]), integers(&w[1][0]), integers(&w[1][1])];
                for (products, &x) in products.iter_mut().zip(x) {
                    let x = _mm512_set1_epi32(x);
                    for (product, w) in products.iter_mut().zip(w) {
                        *product = _mm512_dpbusd_epi32(*product, w, x);
                    }
                }
            }
            // SAFETY: at most one past the last.
            (weights, quads) = unsafe { (weights.map(|weights| weights.add(run(QUADS))), quads.add(run(QUADS))) };
        }
        for (v, head) in panels.map(|panel| &panel.heads[group]).into_iter().enumerate() {
            let (scales, biases) = (pair(&head.scales), pair(&head.biases));
            for (t, (products, &x)) in products.iter().zip(&x.part.scales[group * QUADS / 8]).enumerate() {
                for half in 0..2 {
                    let product = _mm512_castsi512_ps(products[2 * v + half]);
                    let scaled = _mm512_fmadd_ps(product, scales[half], biases[half]);
                    // SAFETY: passed on from the caller.
                    unsafe {
                        let c = c.add(t * stride + (2 * v + half) * LANES);
                        let sum = if first && group == 0 { _mm512_setzero_ps() } else { _mm512_loadu_ps(c) };
                        _mm512_storeu_ps(c, _mm512_fmadd_ps(scaled, _mm512_set1_ps(x), sum));
                    }
                }
            }
        }
    }
    *ahead = asking;
}

/// The next tile's activations, a `T`: of long rows they come from beyond the L2 cache.
pub(super) struct Next<T>(*const [i8; 64], PhantomData<T>);

impl<T> Next<T> {
    pub(super) fn after(part: &T) -> Self {
        Self((&raw const *part).wrapping_add(1).cast(), PhantomData)
    }

    /// Asks for as many lines as make all of them in `steps` steps.
    #[inline(always)]
    pub(super) fn ask(&mut self, steps: usize) {
        for _ in 0..size_of::<T>().div_ceil(64 * steps) {
            // SAFETY: any address can be asked for.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.0.cast()) };
            self.0 = self.0.wrapping_add(1);
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
