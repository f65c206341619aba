//! Ternary weights: digits in base 3 that are 1 too large, with one scale for a block, and one for the activations beside it.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::input::{Arrangement, Slot};
use super::activations::{Slots, Wide};
use super::vectors::{at, lane, lane_halves, lanes, load};
use super::{Format, layout};
use crate::buffer::Zeroed;
use crate::kernels::rounding::Scales;

/// Four digits in a byte, of two bits each.
pub(super) struct Tq20;
/// Five digits in a byte, which is a fraction in base 3.
pub(super) struct Tq10;

/// Activations of a block beside digits of which `VECTORS` share a byte: a vector for each place in the byte.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Shared<const VECTORS: usize> {
    v: [[i8; 64]; VECTORS],
    scale: f32,
    /// A quarter of the sum, scale included: four elements of a vector add it up.
    quarter: f32,
}

pub(super) type Quarters = Shared<4>;
pub(super) type Fifths = Shared<5>;

// SAFETY: numbers, and padding.
unsafe impl<const VECTORS: usize> Zeroed for Shared<VECTORS> {}

impl Arrangement for Quarters {
    const ELEMENTS: usize = Wide::ELEMENTS;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], order: &[u8; 16], scales: Scales) {
        let rounded = self.take(x, order, scales);
        self.v.as_flattened_mut().copy_from_slice(&rounded.v);
    }
}

impl Arrangement for Fifths {
    const ELEMENTS: usize = Wide::ELEMENTS;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], order: &[u8; 16], scales: Scales) {
        let rounded = self.take(x, order, scales);
        // Runs of 32 weights, then of 16, then of four: of each a run for every digit, of the last for all but the fifth.
        let (thirties, rest) = rounded.v.split_at(160);
        let (sixteens, fours) = rest.split_at(80);
        self.v = [[0; 64]; 5];
        for (i, to) in self.v.iter_mut().enumerate() {
            to[..32].copy_from_slice(&thirties[32 * i..][..32]);
            to[32..48].copy_from_slice(&sixteens[16 * i..][..16]);
            if let Some(four) = fours.as_chunks::<4>().0.get(i) {
                to[48..52].copy_from_slice(four);
            }
        }
    }
}

impl<const VECTORS: usize> Shared<VECTORS> {
    /// Rounds a block, and keeps its scale and its sum.
    #[inline(always)]
    fn take(&mut self, x: &[f32], order: &[u8; 16], scales: Scales) -> Wide {
        let mut rounded = Wide::ZERO;
        rounded.fill(x, order, scales);
        self.scale = rounded.unit * f32::from(rounded.scale32[0]);
        let sum: i32 = rounded.sum32.iter().map(|sum| i32::from(*sum)).sum();
        self.quarter = 0.25 * self.scale * sum as f32;
        rounded
    }
}

impl Format for Tq20 {
    layout!(66, quarters, Quarters);
    type Scales = __m512;
    type Weights = [__m512i; 4];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 66]; 4], x: [&Quarters; C], less: &mut [__m512; C]) -> [__m512; C] {
        let [a, b, c, d] = b;
        let d = lane_halves::<7>(lanes([at(a, 50), at(b, 50), at(c, 50), at(d, 50)]));
        one_scale(d, 1.0, x, less)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 66]) -> [__m512i; 4] {
        let (bytes, mask) = (load(block.first_chunk().expect("64 bytes")), _mm512_set1_epi8(3));
        [
            _mm512_and_si512(bytes, mask),
            _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), mask),
            _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask),
            _mm512_and_si512(_mm512_srli_epi16::<6>(bytes), mask),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: __m512, x: &Quarters, sum: __m512) -> __m512 {
        let mut products = _mm512_setzero_si512();
        for (weights, x) in weights.into_iter().zip(&x.v) {
            products = _mm512_dpbusd_epi32(products, weights, load(x));
        }
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), lane::<R>(scales), sum)
    }
}

/// A digit is what three times a fraction has before the point: of a byte `f` and `g`, three times `f` modulo 256, it is
/// `(3 f − g) / 256`. So digits need not be taken out of the bytes: products with `f` and `g` themselves, which are whole numbers
/// below 52 · 5 · 255 · 127 · 3 < 2³¹, have the products with the digits as their difference.
impl Format for Tq10 {
    layout!(54, fifths, Fifths);
    type Scales = __m512;
    type Weights = [__m512i; 6];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 54]; 4], x: [&Fifths; C], less: &mut [__m512; C]) -> [__m512; C] {
        let [a, b, c, d] = b;
        let d = lane_halves::<7>(lanes([at(a, 38), at(b, 38), at(c, 38), at(d, 38)]));
        one_scale(d, 1.0 / 256.0, x, less)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 54]) -> [__m512i; 6] {
        // SAFETY: the mask selects what there is.
        let mut fractions = unsafe { _mm512_maskz_loadu_epi8((1 << 54) - 1, block.as_ptr().cast()) };
        let mut all = [fractions; 6];
        for to in &mut all[1..] {
            fractions = thrice(fractions);
            *to = fractions;
        }
        all
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 6], scales: __m512, x: &Fifths, sum: __m512) -> __m512 {
        let (mut whole, mut rest) = (_mm512_setzero_si512(), _mm512_setzero_si512());
        for i in 0..5 {
            let x = load(&x.v[i]);
            whole = _mm512_dpbusd_epi32(whole, weights[i], x);
            rest = _mm512_dpbusd_epi32(rest, weights[i + 1], x);
        }
        let products = _mm512_sub_epi32(_mm512_add_epi32(_mm512_add_epi32(whole, whole), whole), rest);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), lane::<R>(scales), sum)
    }
}

/// One scale for the block of each row, `by` times `d`; digits are 1 too large.
#[inline]
#[target_feature(enable = "avx512f")]
fn one_scale<const VECTORS: usize, const C: usize>(
    d: __m512,
    by: f32,
    x: [&Shared<VECTORS>; C],
    less: &mut [__m512; C],
) -> [__m512; C] {
    let mut scales = [d; C];
    for c in 0..C {
        scales[c] = _mm512_mul_ps(d, _mm512_set1_ps(x[c].scale * by));
        less[c] = _mm512_fnmadd_ps(d, _mm512_set1_ps(x[c].quarter), less[c]);
    }
    scales
}

/// Three times every byte, modulo 256.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn thrice(a: __m512i) -> __m512i {
    let mut twice = _mm512_add_epi8(a, a);
    // SAFETY: no instruction at all. Left to itself, the compiler multiplies by powers of 3, which it widens bytes for.
    unsafe { asm!("/* {0} */", inout(zmm_reg) twice, options(pure, nomem, nostack, preserves_flags)) };
    _mm512_add_epi8(twice, a)
}
