//! Types whose weights are found by the numbers of codewords, with the table of codewords in registers.
//!
//! The codes of a codeword's weights, of two or three bits, fit two bytes. So a table is two planes of bytes, one for each half of
//! the codewords, from which one instruction (VPERMI2B of AVX-512 VBMI) takes 64 bytes by their numbers, 128 entries at a time. A
//! vector then holds weights of the same places in all codewords, and the activations are in the same order. Counted for 256
//! weights of IQ3_S at a cycle for each such shuffle: 37 cycles, where 64 codewords inserted into vectors one by one took about
//! 110 (docs/performance.md).
//!
//! What unpacks weights is inlined always, as that of [`super::codewords`] is.

mod eights;
mod fours;

use std::arch::x86_64::*;

use super::activations::Wide;
use super::scales::{Integers, whole_sums};
use super::vectors::load;
use crate::buffer::Zeroed;
pub(super) use eights::{Eights, Iq2S, Iq2Xs, Iq2Xxs};
pub(super) use fours::{Fours, Iq3S, Iq3Xxs};

/// Activations of a block in the order of codewords of `WIDTH` weights.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Ordered<const WIDTH: usize>(Wide);

// SAFETY: a wrapper of what is.
unsafe impl<const WIDTH: usize> Zeroed for Ordered<WIDTH> {}

/// The two planes of a table of codewords.
#[repr(C, align(64))]
struct Table<const N: usize>([[u8; N]; 2]);

impl<const N: usize> Table<N> {
    /// Of codewords of four weights: two codes in a byte, the first in the lower half.
    const fn fours(codewords: &[[i8; 4]; N], levels: &[i8]) -> Self {
        let mut planes = [[0; N]; 2];
        let mut i = 0;
        while i < 4 * N {
            let (n, place) = (i / 4, i % 4);
            planes[place / 2][n] |= code(codewords[n][place], levels) << (place % 2 * 4);
            i += 1;
        }
        Self(planes)
    }

    /// Of codewords of eight weights: four codes in a byte, the first lowest.
    const fn eights(codewords: &[[i8; 8]; N], levels: &[i8]) -> Self {
        let mut planes = [[0; N]; 2];
        let mut i = 0;
        while i < 8 * N {
            let (n, place) = (i / 8, i % 8);
            planes[place / 4][n] |= code(codewords[n][place], levels) << (place % 4 * 2);
            i += 1;
        }
        Self(planes)
    }
}

/// Returns which of the levels `value` is.
const fn code(value: i8, levels: &[i8]) -> u8 {
    let mut code = 0;
    while levels[code] != value {
        code += 1;
    }
    code as u8
}

/// Magnitudes in the order of [`Ordered`], and which of them are negative.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    magnitudes: [__m512i; 4],
    signs: [__mmask64; 4],
}

/// Implements what the types have in common.
macro_rules! in_planes {
    ($bytes:literal, $slot:ident, $activations:ty, $each:literal) => {
        layout!($bytes, $slot, $activations);
        type Scales = Integers;
        type Weights = Signed;
        const VBMI: bool = true;

        #[inline(always)]
        unsafe fn add<const R: usize>(weights: Signed, scales: Integers, x: &$activations, sum: __m512) -> __m512 {
            // SAFETY: the caller has the instructions.
            unsafe { super::added::<R, $each, _>(weights, scales, x, sum) }
        }
    };
}

use in_planes;

/// Adds the products of row `R`, which has `EACH` scales.
#[inline(always)]
unsafe fn added<const R: usize, const EACH: usize, const WIDTH: usize>(
    weights: Signed,
    scales: Integers,
    Ordered(x): &Ordered<WIDTH>,
    sum: __m512,
) -> __m512 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let mut products = _mm512_setzero_si512();
        for (i, x) in x.v.as_chunks().0.iter().enumerate() {
            let x = load(x);
            let x = _mm512_mask_sub_epi8(x, weights.signs[i], _mm512_setzero_si512(), x);
            products = _mm512_dpbusd_epi32(products, weights.magnitudes[i], x);
        }
        whole_sums::<R, EACH>(products, scales, sum)
    }
}

#[inline(always)]
fn inner<const C: usize, const WIDTH: usize>(x: [&Ordered<WIDTH>; C]) -> [&Wide; C] {
    let mut all = [&x[0].0; C];
    for c in 0..C {
        all[c] = &x[c].0;
    }
    all
}

/// The entries of 256 that the numbers name, of which `upper` has the eighth bits.
#[inline(always)]
unsafe fn of_256(plane: &[u8; 256], numbers: __m512i, upper: __mmask64) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe {
        let [a, b, c, d] = plane.as_chunks::<64>().0 else { unreachable!("four times 64 bytes") };
        let low = _mm512_permutex2var_epi8(load(a), numbers, load(b));
        let high = _mm512_permutex2var_epi8(load(c), numbers, load(d));
        _mm512_mask_blend_epi8(upper, low, high)
    }
}

/// The same of 512 entries, with the ninth bits of the numbers.
#[inline(always)]
unsafe fn of_512(plane: &[u8; 512], numbers: __m512i, upper: __mmask64, ninth: __mmask64) -> __m512i {
    // SAFETY: the caller has the instructions.
    unsafe {
        let [low, high] = plane.as_chunks().0 else { unreachable!("twice 256 bytes") };
        _mm512_mask_blend_epi8(ninth, of_256(low, numbers, upper), of_256(high, numbers, upper))
    }
}

/// Moves the four fields of seven bits of each word to a byte each; what else the bytes have is above those.
#[inline(always)]
unsafe fn bytes_of_sevens(words: __m256i) -> __m256i {
    // SAFETY: the caller has the instructions; what is read and written is as long as the types say.
    unsafe {
        let low = _mm256_and_si256(words, _mm256_set1_epi32(0x3fff));
        let high = _mm256_slli_epi32::<2>(_mm256_and_si256(words, _mm256_set1_epi32(0x0fff_c000)));
        let pairs = _mm256_or_si256(low, high);
        let even = _mm256_and_si256(pairs, _mm256_set1_epi32(0x007f_007f));
        _mm256_or_si256(even, _mm256_slli_epi32::<1>(_mm256_and_si256(pairs, _mm256_set1_epi32(0x3f80_3f80))))
    }
}

/// Signs of bytes of seven bits, of which the eighth makes their number even.
#[inline(always)]
unsafe fn even_signs(sevens: __m256i) -> __m256i {
    // SAFETY: the caller has the instructions; what is read and written is as long as the types say.
    unsafe {
        let parity = _mm256_xor_si256(sevens, _mm256_srli_epi16::<4>(sevens));
        // A table of the parity of four bits, in the uppermost bit.
        let odd = _mm256_setr_epi8(
            0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0, 0, -128, -128, 0, -128, 0, 0, -128,
            -128, 0, 0, -128, 0, -128, -128, 0,
        );
        let eighths = _mm256_shuffle_epi8(odd, _mm256_and_si256(parity, _mm256_set1_epi8(15)));
        _mm256_or_si256(sevens, eighths)
    }
}

/// Twice the nibbles of the last eight bytes of each lane, plus 1, as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn odd_nibbles(packed: __m512i) -> __m512i {
    let mask = _mm512_set1_epi8(15);
    let (low, high) = (_mm512_and_si512(packed, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(packed), mask));
    let nibbles = _mm512_unpackhi_epi8(low, high);
    _mm512_add_epi8(_mm512_add_epi8(nibbles, nibbles), _mm512_set1_epi8(1))
}
