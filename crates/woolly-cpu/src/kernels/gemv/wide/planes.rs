//! Types whose weights are found by the numbers of codewords of four weights, with the table of codewords in registers.
//!
//! A codeword has four codes of three bits, two in a byte: so a table is two planes of bytes, one for each half of the codewords,
//! from which one instruction (VPERMI2B of AVX-512 VBMI) takes 64 bytes by their numbers, 128 entries at a time. A vector then
//! holds the first weights of 64 codewords, the next one the second weights, and so on; the activations are in the same order.
//! Counted for 256 weights of IQ3_S at a cycle for each such shuffle: 37 cycles, where 64 codewords inserted into vectors one by
//! one took about 110 (docs/performance.md).

use std::arch::x86_64::*;

use woolly_quant::grids;

use super::super::input::{Arrangement, NATURAL, Slot};
use super::activations::{Slots, Wide};
use super::codewords::{bytes_of_sevens, even_signs, four, load32, odd_nibbles, odd16};
use super::scales::{Integers, eight, whole_sums};
use super::vectors::{at, lane_halves, lanes, load};
use super::{Format, layout};
use crate::buffer::Zeroed;
use crate::kernels::rounding::Scales;

/// Magnitudes of four weights by 256 codewords, even signs, a scale for each 32.
///
/// Sixteen products, scaled, stay below 16 · 62 · 127 · 31 · 127 < 2³¹, for both types.
pub(super) struct Iq3Xxs;
/// Magnitudes of four weights by 512 codewords, signs, a scale for each 32.
pub(super) struct Iq3S;

/// Activations of a block: every fourth from the first on, then from the second, the third and the fourth.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Planes(Wide);

// SAFETY: a wrapper of what is.
unsafe impl Zeroed for Planes {}

impl Arrangement for Planes {
    const ELEMENTS: usize = Wide::ELEMENTS;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], _order: &[u8; 16], scales: Scales) {
        self.0.fill(x, &NATURAL, scales);
        let natural = self.0.v;
        for (to, from) in (0..64).zip(natural.as_chunks::<4>().0) {
            for (plane, value) in from.iter().enumerate() {
                self.0.v[64 * plane + to] = *value;
            }
        }
    }
}

/// The two planes of a table of codewords.
#[repr(C, align(64))]
struct Table<const N: usize>([[u8; N]; 2]);

static IQ3_XXS: Table<256> = Table::new(&grids::IQ3_XXS, &grids::IQ3_XXS_LEVELS);
static IQ3_S: Table<512> = Table::new(&grids::IQ3_S, &grids::IQ3_S_LEVELS);

impl<const N: usize> Table<N> {
    const fn new(codewords: &[[i8; 4]; N], levels: &[i8; 8]) -> Self {
        let mut planes = [[0; N]; 2];
        let mut n = 0;
        while n < N {
            let [a, b, c, d] = codewords[n];
            planes[0][n] = code(a, levels) | code(b, levels) << 4;
            planes[1][n] = code(c, levels) | code(d, levels) << 4;
            n += 1;
        }
        Self(planes)
    }
}

/// Returns which of the levels `value` is.
const fn code(value: i8, levels: &[i8; 8]) -> u8 {
    let mut code = 0;
    while levels[code] != value {
        code += 1;
    }
    code as u8
}

/// Magnitudes, and signs of the even and the odd codewords alternating, four bits each.
#[derive(Clone, Copy)]
pub(super) struct Signed {
    magnitudes: [__m512i; 4],
    signs: [__mmask64; 4],
}

/// Implements what both types have in common.
macro_rules! planes {
    ($bytes:literal) => {
        layout!($bytes, planes, Planes);
        type Scales = Integers;
        type Weights = Signed;
        const VBMI: bool = true;

        #[inline(always)]
        unsafe fn add<const R: usize>(weights: Signed, scales: Integers, x: &Planes, sum: __m512) -> __m512 {
            // SAFETY: the caller has the instructions.
            unsafe {
                let mut products = _mm512_setzero_si512();
                for (i, x) in x.0.v.as_chunks().0.iter().enumerate() {
                    let x = load(x);
                    let x = _mm512_mask_sub_epi8(x, weights.signs[i], _mm512_setzero_si512(), x);
                    products = _mm512_dpbusd_epi32(products, weights.magnitudes[i], x);
                }
                whole_sums::<R>(products, scales, sum)
            }
        }
    };
}

impl Format for Iq3Xxs {
    planes!(98);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 98]; 4], x: [&Planes; C], _less: &mut [__m512; C]) -> [Integers; C] {
        // SAFETY: the caller has the instructions.
        unsafe {
            let d = lane_halves::<0>(lanes([at(b[0], 0), at(b[1], 0), at(b[2], 0), at(b[3], 0)]));
            let mut own = [_mm_setzero_si128(); 4];
            for r in 0..4 {
                own[r] = _mm256_cvtepi32_epi16(_mm256_srli_epi32::<28>(load32(&b[r][66..])));
            }
            eight(odd16(four(own)), _mm512_mul_ps(d, _mm512_set1_ps(0.25)), inner(x))
        }
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 98]) -> Signed {
        // SAFETY: the caller has the instructions.
        unsafe {
            let numbers = load(block[2..].first_chunk::<64>().expect("64 bytes"));
            let upper = _mm512_movepi8_mask(numbers);
            let planes = [of_256(&IQ3_XXS.0[0], numbers, upper), of_256(&IQ3_XXS.0[1], numbers, upper)];
            let signs = even_signs(bytes_of_sevens(load32(&block[66..])));
            Signed { magnitudes: magnitudes(planes, &grids::IQ3_XXS_LEVELS), signs: planes_of_signs(signs) }
        }
    }
}

impl Format for Iq3S {
    planes!(110);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 110]; 4], x: [&Planes; C], _less: &mut [__m512; C]) -> [Integers; C] {
        // SAFETY: the caller has the instructions.
        unsafe {
            let d = lane_halves::<0>(lanes([at(b[0], 0), at(b[1], 0), at(b[2], 0), at(b[3], 0)]));
            // Eight nibbles in the last four bytes.
            let packed = lanes([at(b[0], 94), at(b[1], 94), at(b[2], 94), at(b[3], 94)]);
            eight(_mm512_unpackhi_epi8(odd_nibbles(packed), _mm512_setzero_si512()), d, inner(x))
        }
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 110]) -> Signed {
        // SAFETY: the caller has the instructions.
        unsafe {
            let numbers = load(block[2..].first_chunk::<64>().expect("64 bytes"));
            let upper = _mm512_movepi8_mask(numbers);
            // Bytes 66 to 73 have a ninth bit of each number.
            let ninth = u64::from_le_bytes(*block[66..].first_chunk().expect("8 bytes"));
            let mut planes = [numbers; 2];
            for (to, plane) in planes.iter_mut().zip(&IQ3_S.0) {
                let [low, high] = plane.as_chunks::<256>().0 else { unreachable!("512 entries") };
                *to = _mm512_mask_blend_epi8(ninth, of_256(low, numbers, upper), of_256(high, numbers, upper));
            }
            let signs = planes_of_signs(load32(&block[74..]));
            Signed { magnitudes: magnitudes(planes, &grids::IQ3_S_LEVELS), signs }
        }
    }
}

#[inline(always)]
fn inner<const C: usize>(x: [&Planes; C]) -> [&Wide; C] {
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

/// The levels that two codes in each byte of two planes stand for.
///
/// A shuffle takes a byte by the lower four bits of another, unless that has the uppermost bit set, which no code of three bits
/// does in the lower half of a byte or in the upper one.
#[inline(always)]
unsafe fn magnitudes(planes: [__m512i; 2], levels: &[i8; 8]) -> [__m512i; 4] {
    // SAFETY: the caller has the instructions; eight bytes are readable.
    unsafe {
        let levels = _mm512_broadcast_i32x4(_mm_loadl_epi64(levels.as_ptr().cast()));
        let [first, second] = planes;
        [
            _mm512_shuffle_epi8(levels, first),
            _mm512_shuffle_epi8(levels, _mm512_srli_epi16::<4>(first)),
            _mm512_shuffle_epi8(levels, second),
            _mm512_shuffle_epi8(levels, _mm512_srli_epi16::<4>(second)),
        ]
    }
}

/// The signs of the first, second, third and fourth weights of all codewords, from those of two codewords in each byte.
#[inline(always)]
unsafe fn planes_of_signs(signs: __m256i) -> [__mmask64; 4] {
    // SAFETY: the caller has the instructions.
    unsafe {
        let twice = const {
            let mut twice = [0_u8; 64];
            let mut i = 0;
            while i < 64 {
                twice[i] = (i / 2) as u8;
                i += 1;
            }
            twice
        };
        let signs = _mm512_permutexvar_epi8(load(&twice), _mm512_castsi256_si512(signs));
        [
            _mm512_test_epi8_mask(signs, _mm512_set1_epi16(0x1001)),
            _mm512_test_epi8_mask(signs, _mm512_set1_epi16(0x2002)),
            _mm512_test_epi8_mask(signs, _mm512_set1_epi16(0x4004)),
            _mm512_test_epi8_mask(signs, _mm512_set1_epi16(0x8008_u16.cast_signed())),
        ]
    }
}
