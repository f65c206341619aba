//! Codewords of four weights, of three bits each: two in a byte of a plane.

use std::arch::x86_64::*;

use woolly_quant::grids;

use super::super::super::input::{Arrangement, NATURAL, Slot};
use super::super::activations::{Slots, Wide};
use super::super::codewords::{four, load32, odd16};
use super::super::scales::{Integers, eight};
use super::super::vectors::{at, lane_halves, lanes, load};
use super::super::{Format, layout};
use super::{Ordered, Signed, Table, bytes_of_sevens, even_signs, in_planes, inner, odd_nibbles, of_256, of_512};
use crate::kernels::rounding::Scales;

/// Magnitudes of four weights by 256 codewords, even signs, a scale for each 32.
///
/// Sixteen products, scaled, stay below 16 · 62 · 127 · 31 · 127 < 2³¹, for both types.
pub(in super::super) struct Iq3Xxs;
/// Magnitudes of four weights by 512 codewords, signs, a scale for each 32.
pub(in super::super) struct Iq3S;

/// Activations of a block: every fourth from the first on, then from the second, the third and the fourth.
pub(in super::super) type Fours = Ordered<4>;

impl Arrangement for Fours {
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

static IQ3_XXS: Table<256> = Table::fours(&grids::IQ3_XXS, &grids::IQ3_XXS_LEVELS);
static IQ3_S: Table<512> = Table::fours(&grids::IQ3_S, &grids::IQ3_S_LEVELS);

impl Format for Iq3Xxs {
    in_planes!(98, fours, Fours, 8);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 98]; 4], x: [&Fours; C], _less: &mut [__m512; C]) -> [Integers; C] {
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
    in_planes!(110, fours, Fours, 8);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 110]; 4], x: [&Fours; C], _less: &mut [__m512; C]) -> [Integers; C] {
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
            let planes = [of_512(&IQ3_S.0[0], numbers, upper, ninth), of_512(&IQ3_S.0[1], numbers, upper, ninth)];
            let signs = planes_of_signs(load32(&block[74..]));
            Signed { magnitudes: magnitudes(planes, &grids::IQ3_S_LEVELS), signs }
        }
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
