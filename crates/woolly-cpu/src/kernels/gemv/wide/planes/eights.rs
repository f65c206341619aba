//! Codewords of eight weights, of two bits each: four in a byte of a plane.

use std::arch::x86_64::*;

use woolly_quant::grids;

use super::super::super::input::{Arrangement, NATURAL, Slot};
use super::super::activations::{Slots, Wide};
use super::super::codewords::{four, load32, odd16};
use super::super::scales::{Integers, eight, sixteen};
use super::super::vectors::{at, lane_halves, lanes, load, load16, words_of_bytes};
use super::super::{Format, layout};
use super::{Ordered, Signed, Table, bytes_of_sevens, even_signs, in_planes, inner, odd_nibbles, of_256, of_512};
use crate::kernels::rounding::Scales;

/// Magnitudes of eight weights by 256 codewords, even signs, a scale for each 32.
///
/// Sixteen products, scaled, stay below 16 · 43 · 127 · 31 · 127 < 2³¹, for all three types.
pub(in super::super) struct Iq2Xxs;
/// Magnitudes of eight weights by 512 codewords, even signs, a scale for each 16.
pub(in super::super) struct Iq2Xs;
/// Magnitudes of eight weights by 1024 codewords, signs, a scale for each 16.
pub(in super::super) struct Iq2S;

static IQ2_XXS: Table<256> = Table::eights(&grids::IQ2_XXS, &grids::IQ2_LEVELS);
static IQ2_XS: Table<512> = Table::eights(&grids::IQ2_XS, &grids::IQ2_LEVELS);
static IQ2_S: Table<1024> = Table::eights(&grids::IQ2_S, &grids::IQ2_LEVELS);

/// Activations of a block. Four bytes of a vector belong to two codewords in a row: weights of the first halves of both, then of
/// the second halves, so that four bytes never have two scales.
pub(in super::super) type Eights = Ordered<8>;

impl Arrangement for Eights {
    const ELEMENTS: usize = Wide::ELEMENTS;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], _order: &[u8; 16], scales: Scales) {
        self.0.fill(x, &NATURAL, scales);
        let natural = self.0.v;
        for (i, to) in self.0.v.iter_mut().enumerate() {
            let (place, lane) = (i / 64, i % 64);
            *to = natural[8 * codeword(lane) + 4 * (lane % 4 / 2) + place];
        }
    }
}

/// Which codeword byte `lane` of each vector belongs to.
const fn codeword(lane: usize) -> usize {
    2 * (lane / 4) + lane % 2
}

/// For each byte of a vector, where that of its codeword is, if it is at `first + stride · c + c / 4 · skip` for codeword `c`.
const fn places(first: usize, stride: usize, skip: usize) -> [u8; 64] {
    let mut places = [0; 64];
    let mut lane = 0;
    while lane < 64 {
        let c = codeword(lane);
        places[lane] = (first + stride * c + c / 4 * skip) as u8;
        lane += 1;
    }
    places
}

/// The bytes that belong to second halves of codewords.
const SECOND_HALVES: __mmask64 = 0xcccc_cccc_cccc_cccc;

impl Format for Iq2Xxs {
    in_planes!(66, eights, Eights, 8);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 66]; 4], x: [&Eights; C], _less: &mut [__m512; C]) -> [Integers; C] {
        // SAFETY: the caller has the instructions.
        unsafe {
            let d = lane_halves::<0>(lanes([at(b[0], 0), at(b[1], 0), at(b[2], 0), at(b[3], 0)]));
            let mut own = [_mm_setzero_si128(); 4];
            for r in 0..4 {
                own[r] = _mm512_cvtepi64_epi16(_mm512_srli_epi64::<60>(runs(b[r])));
            }
            eight(odd16(four(own)), _mm512_mul_ps(d, _mm512_set1_ps(0.125)), inner(x))
        }
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 66]) -> Signed {
        // SAFETY: the caller has the instructions.
        unsafe {
            let all = runs(block);
            let numbers = _mm512_permutexvar_epi8(load(&const { places(0, 1, 4) }), all);
            let upper = _mm512_movepi8_mask(numbers);
            let planes = [of_256(&IQ2_XXS.0[0], numbers, upper), of_256(&IQ2_XXS.0[1], numbers, upper)];
            let sevens = _mm512_cvtepi64_epi32(_mm512_srli_epi64::<32>(all));
            signed(planes, even_signs(bytes_of_sevens(sevens)))
        }
    }
}

/// The runs of eight bytes: four numbers of codewords, and signs and scale.
#[inline]
#[target_feature(enable = "avx512f")]
fn runs(block: &[u8; 66]) -> __m512i {
    load(block[2..].as_array::<64>().expect("64 bytes"))
}

impl Format for Iq2Xs {
    in_planes!(74, eights, Eights, 16);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 74]; 4], x: [&Eights; C], _less: &mut [__m512; C]) -> [Integers; C] {
        // SAFETY: the caller has the instructions.
        unsafe {
            let d = lane_halves::<0>(lanes([at(b[0], 0), at(b[1], 0), at(b[2], 0), at(b[3], 0)]));
            let packed = lanes([at(b[0], 58), at(b[1], 58), at(b[2], 58), at(b[3], 58)]);
            sixteen(words_of_bytes(odd_nibbles(packed)), _mm512_mul_ps(d, _mm512_set1_ps(0.125)), inner(x))
        }
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 74]) -> Signed {
        // SAFETY: the caller has the instructions.
        unsafe {
            // Nine bits of a number and seven of signs.
            let all = load(block[2..66].as_array::<64>().expect("64 bytes"));
            let numbers = _mm512_permutexvar_epi8(load(&const { places(0, 2, 0) }), all);
            let above = _mm512_permutexvar_epi8(load(&const { places(1, 2, 0) }), all);
            let (upper, ninth) = (_mm512_movepi8_mask(numbers), _mm512_test_epi8_mask(above, _mm512_set1_epi8(1)));
            let planes = [of_512(&IQ2_XS.0[0], numbers, upper, ninth), of_512(&IQ2_XS.0[1], numbers, upper, ninth)];
            signed(planes, even_signs(_mm512_cvtepi16_epi8(_mm512_srli_epi16::<9>(all))))
        }
    }
}

impl Format for Iq2S {
    in_planes!(82, eights, Eights, 16);

    #[inline(always)]
    unsafe fn scales<const C: usize>(b: [&[u8; 82]; 4], x: [&Eights; C], _less: &mut [__m512; C]) -> [Integers; C] {
        // SAFETY: the caller has the instructions.
        unsafe {
            let d = lane_halves::<0>(lanes([at(b[0], 0), at(b[1], 0), at(b[2], 0), at(b[3], 0)]));
            let packed = lanes([at(b[0], 66), at(b[1], 66), at(b[2], 66), at(b[3], 66)]);
            sixteen(words_of_bytes(odd_nibbles(packed)), _mm512_mul_ps(d, _mm512_set1_ps(0.125)), inner(x))
        }
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 82]) -> Signed {
        // SAFETY: the caller has the instructions.
        unsafe {
            let numbers = _mm512_castsi256_si512(load32(&block[2..]));
            let numbers = _mm512_permutexvar_epi8(load(&const { places(0, 1, 0) }), numbers);
            // Bytes 66 to 73 have two more bits of four numbers each.
            let above = _mm512_castsi128_si512(load16(at(block, 66)));
            let above = _mm512_permutexvar_epi8(load(&const { quarters_of_places() }), above);
            let (upper, ninth) =
                (_mm512_movepi8_mask(numbers), _mm512_test_epi8_mask(above, load(&const { pairs(1) })));
            let tenth = _mm512_test_epi8_mask(above, load(&const { pairs(2) }));
            let mut planes = [numbers; 2];
            for (to, plane) in planes.iter_mut().zip(&IQ2_S.0) {
                let [low, high] = plane.as_chunks().0 else { unreachable!("twice 512 bytes") };
                let (low, high) = (of_512(low, numbers, upper, ninth), of_512(high, numbers, upper, ninth));
                *to = _mm512_mask_blend_epi8(tenth, low, high);
            }
            signed(planes, load32(&block[34..]))
        }
    }
}

/// For each byte of a vector, which byte has the two bits of its codeword, where four codewords share one.
const fn quarters_of_places() -> [u8; 64] {
    let mut places = [0; 64];
    let mut lane = 0;
    while lane < 64 {
        places[lane] = (codeword(lane) / 4) as u8;
        lane += 1;
    }
    places
}

/// For each byte of a vector, `bit` moved to where the two bits of its codeword are.
const fn pairs(bit: u8) -> [u8; 64] {
    let mut pairs = [0; 64];
    let mut lane = 0;
    while lane < 64 {
        pairs[lane] = bit << (codeword(lane) % 4 * 2);
        lane += 1;
    }
    pairs
}

/// The levels that four codes in each byte of two planes stand for, and their signs, of which each codeword has a byte.
#[inline(always)]
unsafe fn signed(planes: [__m512i; 2], signs: __m256i) -> Signed {
    // SAFETY: the caller has the instructions; four bytes are readable.
    unsafe {
        let [a, b, c] = grids::IQ2_LEVELS.map(i8::cast_unsigned);
        let levels = _mm512_set1_epi32(i32::from_le_bytes([a, b, c, 0]));
        let codes = _mm512_mask_blend_epi8(SECOND_HALVES, planes[0], planes[1]);
        let three = _mm512_set1_epi8(3);
        let signs = _mm512_permutexvar_epi8(load(&const { places(0, 1, 0) }), _mm512_castsi256_si512(signs));
        Signed {
            magnitudes: [
                _mm512_shuffle_epi8(levels, _mm512_and_si512(codes, three)),
                _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16::<2>(codes), three)),
                _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16::<4>(codes), three)),
                _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16::<6>(codes), three)),
            ],
            signs: [
                _mm512_test_epi8_mask(signs, _mm512_set1_epi32(0x1010_0101)),
                _mm512_test_epi8_mask(signs, _mm512_set1_epi32(0x2020_0202)),
                _mm512_test_epi8_mask(signs, _mm512_set1_epi32(0x4040_0404)),
                _mm512_test_epi8_mask(signs, _mm512_set1_epi32(0x8080_0808_u32.cast_signed())),
            ],
        }
    }
}
