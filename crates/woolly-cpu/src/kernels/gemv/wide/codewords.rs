//! Types whose weights are found by the numbers of codewords of eight weights.
//!
//! Numbers are taken one by one, after vector instructions have put them together, and the codewords they stand for are inserted
//! into vectors: tables of 2,048 codewords are too large for what [`super::planes`] does.
//!
//! What unpacks weights is inlined always, and so cannot name the instructions it has: the compiler would call it, for its
//! length, and bring all sums to memory and back with each call.

use std::arch::asm;
use std::arch::x86_64::*;

use super::super::input::Slot;
use super::Format;
use super::activations::{Slots, Wide};
use super::scales::{InWords, Integers, add_integers, dots, eight, sixteen};
use super::scales::{take_off8, take_off16};
use super::vectors::{at, lane_halves, lanes, load, load16, words};
use super::{in_words, layout};
use crate::kernels::unpacked::{TERNARY, TERNARY_OFFSET};

/// Ternary codewords of eight weights, a scale and a shift for each 32.
///
/// Offsets stay below 17 · 15 · 127 < 2¹⁵, scaled.
pub(super) struct Iq1S;
/// Ternary codewords of eight weights with a shift each, a scale for each 16.
pub(super) struct Iq1M;

impl Format for Iq1S {
    layout!(50, natural);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 50]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let d = eighth(lane_halves::<0>(lanes([at(b[0], 0), at(b[1], 0), at(b[2], 0), at(b[3], 0)])));
        let high = lanes([at(b[0], 34), at(b[1], 34), at(b[2], 34), at(b[3], 34)]);
        let own = odd16(_mm512_and_si512(_mm512_srli_epi16::<12>(high), _mm512_set1_epi16(7)));
        // Weights are shifted by an eighth, of which codewords are multiples: down where the uppermost bit is set.
        let offset = i16::from(TERNARY_OFFSET);
        let down = _mm512_movepi16_mask(high);
        let offsets = _mm512_mask_set1_epi16(_mm512_set1_epi16(offset - 1), down, offset + 1);
        take_off8(_mm512_mullo_epi16(own, offsets), d, x, less);
        eight(own, d, x)
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 50]) -> [__m512i; 4] {
        // SAFETY: the caller has the instructions; what is read and written is as long as the types say.
        unsafe {
            let high = four_times(load16(at(block, 34)), &const { bytes_of_words() });
            let high = _mm512_srlv_epi16(high, _mm512_set1_epi64(0x0009_0006_0003_0000));
            let high = _mm512_slli_epi16::<8>(_mm512_and_si512(high, _mm512_set1_epi16(7)));
            of_eight(&TERNARY, registers(_mm512_or_si512(_mm512_cvtepu8_epi16(load32(&block[2..])), high)))
        }
    }
}

impl Format for Iq1M {
    layout!(56, natural);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 56]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let header = lanes([at(b[0], 40), at(b[1], 40), at(b[2], 40), at(b[3], 40)]);
        // Words 4 to 7 of a lane have four scales of three bits each, and four bits of the scale of them all.
        let (first, second) = (words(&const { words_of_scales(0) }), words(&const { words_of_scales(2) }));
        let shifts = _mm512_set1_epi64(0x0009_0006_0003_0000);
        let mut own = [_mm512_permutexvar_epi16(first, header), _mm512_permutexvar_epi16(second, header)];
        for own in &mut own {
            *own = odd16(_mm512_and_si512(_mm512_srlv_epi16(*own, shifts), _mm512_set1_epi16(7)));
        }
        let mut halves = [0; 4];
        for r in 0..4 {
            for word in 0..4 {
                halves[r] |= u16::from(b[r][49 + 2 * word] >> 4) << (4 * word);
            }
        }
        let halves = u64::from_le_bytes(*halves.map(u16::to_le_bytes).as_flattened().as_array().expect("8 bytes"));
        let d = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi64_si128(halves.cast_signed())));
        let each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        let d = eighth(_mm512_permutexvar_ps(each, d));
        take_off16(own, _mm512_mul_ps(d, _mm512_set1_ps(f32::from(TERNARY_OFFSET))), x, less);
        sixteen(own, d, x)
    }

    #[inline(always)]
    unsafe fn weights(block: &[u8; 56]) -> [__m512i; 4] {
        // SAFETY: the caller has the instructions; what is read and written is as long as the types say.
        unsafe {
            // A nibble for each codeword: three bits of its number, and whether its weights are shifted down.
            let (nibbles, mask) = (load16(at(block, 32)), _mm_set1_epi8(15));
            let (even, odd) = (_mm_and_si128(nibbles, mask), _mm_and_si128(_mm_srli_epi16::<4>(nibbles), mask));
            let nibbles = _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
            let nibbles = _mm512_cvtepu8_epi16(nibbles);
            let high = _mm512_slli_epi16::<8>(_mm512_and_si512(nibbles, _mm512_set1_epi16(7)));
            let numbers = _mm512_or_si512(_mm512_cvtepu8_epi16(load32(block)), high);
            let down = _mm512_test_epi16_mask(nibbles, _mm512_set1_epi16(8));
            let mut weights = of_eight(&TERNARY, registers(numbers));
            for (i, weights) in weights.iter_mut().enumerate() {
                let down = (down >> (8 * i)) as u8;
                let shift = _mm512_mask_set1_epi64(_mm512_set1_epi8(1), down, -1);
                *weights = _mm512_add_epi8(*weights, shift);
            }
            weights
        }
    }
}

impl InWords for Iq1S {
    const EACH: usize = 8;
}

impl InWords for Iq1M {
    const EACH: usize = 16;
}

/// Four numbers of 16 bits in a register.
#[derive(Clone, Copy)]
struct Register(u64);

impl Register {
    /// Takes each by an instruction of its own: left to itself, the compiler makes vectors of them and takes them out one by one
    /// then, which makes kernels up to twice as slow. So do vectors written to memory to be read in pieces (docs/performance.md).
    #[inline(always)]
    fn all(self) -> [usize; 4] {
        let mut numbers = self.0;
        // SAFETY: no instruction at all.
        unsafe { asm!("/* {0} */", inout(reg) numbers, options(pure, nomem, nostack, preserves_flags)) };
        [numbers as u16, (numbers >> 16) as u16, (numbers >> 32) as u16, (numbers >> 48) as u16].map(usize::from)
    }
}

/// Codewords of eight weights, by four numbers after another.
#[inline(always)]
unsafe fn of_eight<const N: usize>(table: &[[i8; 8]; N], numbers: [Register; 8]) -> [__m512i; 4] {
    // SAFETY: the caller has the instructions.
    unsafe {
        let mut vectors = [_mm512_setzero_si512(); 4];
        for (vector, [a, b]) in vectors.iter_mut().zip(numbers.as_chunks().0) {
            let (low, high) = (four_of_eight(table, *a), four_of_eight(table, *b));
            *vector = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
        }
        vectors
    }
}

#[inline(always)]
unsafe fn four_of_eight<const N: usize>(table: &[[i8; 8]; N], numbers: Register) -> __m256i {
    let [a, b, c, d] = looked_up(table, numbers);
    // SAFETY: the caller has the instructions; eight bytes are readable at each place.
    unsafe {
        let low = _mm_unpacklo_epi64(_mm_loadl_epi64(a.as_ptr().cast()), _mm_loadl_epi64(b.as_ptr().cast()));
        let high = _mm_unpacklo_epi64(_mm_loadl_epi64(c.as_ptr().cast()), _mm_loadl_epi64(d.as_ptr().cast()));
        _mm256_set_m128i(high, low)
    }
}

/// The codewords of four numbers, of which the bits that `N` has no entry for are left out.
#[inline(always)]
fn looked_up<C, const N: usize>(table: &[C; N], numbers: Register) -> [&C; 4] {
    const { assert!(N.is_power_of_two()) };
    let mut codewords = [&table[0]; 4];
    for (codeword, number) in codewords.iter_mut().zip(numbers.all()) {
        *codeword = &table[number & (N - 1)];
    }
    codewords
}

/// Four after four of 32 numbers of 16 bits.
#[inline(always)]
unsafe fn registers(numbers: __m512i) -> [Register; 8] {
    // SAFETY: the caller has the instructions.
    unsafe {
        let (low, high) = (_mm512_castsi512_si256(numbers), _mm512_extracti64x4_epi64::<1>(numbers));
        [
            Register(_mm256_extract_epi64::<0>(low).cast_unsigned()),
            Register(_mm256_extract_epi64::<1>(low).cast_unsigned()),
            Register(_mm256_extract_epi64::<2>(low).cast_unsigned()),
            Register(_mm256_extract_epi64::<3>(low).cast_unsigned()),
            Register(_mm256_extract_epi64::<0>(high).cast_unsigned()),
            Register(_mm256_extract_epi64::<1>(high).cast_unsigned()),
            Register(_mm256_extract_epi64::<2>(high).cast_unsigned()),
            Register(_mm256_extract_epi64::<3>(high).cast_unsigned()),
        ]
    }
}

/// Bytes of a lane in all lanes, by the places that `index` has for them.
#[inline(always)]
unsafe fn four_times(bytes: __m128i, index: &[u8; 64]) -> __m512i {
    // SAFETY: the caller has the instructions; what is read and written is as long as the types say.
    unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), load(index)) }
}

/// For each of 32 words, where in 16 bytes the word of its group of four is.
const fn bytes_of_words() -> [u8; 64] {
    let mut index = [0; 64];
    let mut byte = 0;
    while byte < 64 {
        index[byte] = (byte / 8 * 2 + byte % 2) as u8;
        byte += 1;
    }
    index
}

/// For each of 16 scales of row `first` and of the next one, its word among the last four of the row's lane.
const fn words_of_scales(first: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (8 * (first + i / 16) + 4 + i % 16 / 4) as u16;
        i += 1;
    }
    index
}

/// Twice each word plus 1.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn odd16(words: __m512i) -> __m512i {
    _mm512_add_epi16(_mm512_add_epi16(words, words), _mm512_set1_epi16(1))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn eighth(d: __m512) -> __m512 {
    _mm512_mul_ps(d, _mm512_set1_ps(0.125))
}

/// Four lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn four(lanes: [__m128i; 4]) -> __m512i {
    let (low, high) = (_mm256_set_m128i(lanes[1], lanes[0]), _mm256_set_m128i(lanes[3], lanes[2]));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load32(from: &[u8]) -> __m256i {
    let from = &from[..32];
    // SAFETY: 32 bytes are readable.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}
