//! Types that vector instructions unpack: bit fields, and nibbles that stand for the values of a table.

use std::arch::x86_64::*;

use super::super::input::Slot;
use super::super::nibbles::NON_LINEAR;
use super::Format;
use super::activations::{Slots, Wide};
use super::scales::{Floats, InWords, Integers, Places, add_integers, dots};
use super::scales::{eight, sixteen, take_off8, take_off16};
use super::vectors::{at, broadcast8, lane_halves, lanes, load, load16, twice, words, words_of_bytes};
use super::{in_words, layout};

/// `(q · scale − min)` with scales and minimums of six bits for each 32 weights, nibbles of 32 and 32 weights in a byte.
///
/// Sums stay below 4 · 31 · 127 < 2¹⁵ as words and, scaled and four of them added, below 4 · 31 · 127 · 63 · 127 · 4 < 2³¹; so
/// do those of Q5_K.
pub(super) struct Q4K;
/// Q4_K and a fifth bit.
pub(super) struct Q5K;
/// Two bits, with scales and minimums of four bits for each 16 weights.
///
/// Sums stay below 4 · 48 · 127 < 2¹⁵ as words, scales below 15 · 127 · 16 < 2¹⁵, and where one of both is that large, the other is
/// a sixteenth of it.
pub(super) struct Q2K;
/// Two bits and a third in a mask, less 4, with signed scales of six bits for each 16 weights.
pub(super) struct Q3K;
/// Six bits less 32, with signed scales of eight bits for each 16 weights.
///
/// Sums stay below 4 · 63 · 127 < 2¹⁵ as words and, scaled and four of them added, below 4 · 63 · 127 · 128 · 127 · 4 < 2³¹.
pub(super) struct Q6K;
/// Values of a table, with signed scales of six bits for each 32 weights.
pub(super) struct Iq4Xs;
impl Format for Q4K {
    layout!(144, nibbles);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 144]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        six_bit_scales(b, x, less)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 144]) -> [__m512i; 4] {
        nibbles(&block[16..])
    }
}

impl Format for Q5K {
    layout!(176, nibbles);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 176]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        six_bit_scales(b, x, less)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 176]) -> [__m512i; 4] {
        let [a, b, c, d] = nibbles(&block[48..]);
        let flags = twice(&block[16..]);
        // Words of 32 bits go round, 31 being one down: what comes in from neighbouring bytes is removed by the mask.
        [
            with_bits(a, moved::<4, 2>(flags), 16),
            with_bits(b, moved::<3, 1>(flags), 16),
            with_bits(c, moved::<0, 30>(flags), 16),
            with_bits(d, moved::<31, 29>(flags), 16),
        ]
    }
}

impl Format for Q2K {
    layout!(84, pairs);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 84]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let [a, b, c, d] = b;
        let packed = lanes([at(a, 0), at(b, 0), at(c, 0), at(d, 0)]);
        let ends = lanes([at(a, 68), at(b, 68), at(c, 68), at(d, 68)]);
        let nibble = _mm512_set1_epi8(15);
        let own = _mm512_and_si512(packed, nibble);
        let minimums = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
        take_off16(words_of_bytes(minimums), lane_halves::<7>(ends), x, less);
        let mut scales = sixteen(words_of_bytes(own), lane_halves::<6>(ends), x);
        // Bit pairs stay where `in_place` leaves them.
        let shifts = words(&const { sixteenths(16) });
        for scales in &mut scales {
            *scales = scales.shifted(shifts);
        }
        scales
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 84]) -> [__m512i; 4] {
        in_place(&block[16..])
    }
}

impl Format for Q3K {
    layout!(110, pairs);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 110]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let [a, b, c, d] = b;
        let header = lanes([at(a, 94), at(b, 94), at(c, 94), at(d, 94)]);
        // From byte 2 on: the low four bits of 16 scales in eight bytes, and the high two of each in four.
        let low = _mm512_set4_epi32(0x0908_0706, 0x0504_0302, 0x0908_0706, 0x0504_0302);
        let low = _mm512_srlv_epi32(_mm512_shuffle_epi8(header, low), _mm512_set4_epi32(4, 4, 0, 0));
        let high = _mm512_shuffle_epi8(header, _mm512_set1_epi32(0x0d0c_0b0a));
        let high = _mm512_rolv_epi32(high, _mm512_set4_epi32(30, 0, 2, 4));
        let own = with_bits(_mm512_and_si512(low, _mm512_set1_epi8(15)), high, 0x30);
        let own = _mm512_sub_epi8(own, _mm512_set1_epi8(32));
        let d = lane_halves::<7>(header);
        // With the third bit as 4, weights are 4 too large.
        take_off16(words_of_bytes(own), _mm512_mul_ps(d, _mm512_set1_ps(4.0)), x, less);
        sixteen(words_of_bytes(own), d, x)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 110]) -> [__m512i; 4] {
        let [a, b, c, d] = two_bits(&block[32..]);
        let flags = twice(block);
        [
            with_bits(a, moved::<2, 30>(flags), 4),
            with_bits(b, moved::<1, 29>(flags), 4),
            with_bits(c, moved::<0, 28>(flags), 4),
            with_bits(d, moved::<31, 27>(flags), 4),
        ]
    }
}

impl Format for Q6K {
    layout!(210, natural);
    in_words!();

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 210]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let [a, b, c, d] = b;
        let own = lanes([at(a, 192), at(b, 192), at(c, 192), at(d, 192)]);
        let d = lane_halves::<7>(lanes([at(a, 194), at(b, 194), at(c, 194), at(d, 194)]));
        take_off16(words_of_bytes(own), _mm512_mul_ps(d, _mm512_set1_ps(32.0)), x, less);
        sixteen(words_of_bytes(own), d, x)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 210]) -> [__m512i; 4] {
        let [a, b, c, d] = nibbles(block);
        let (first, second) = (twice(&block[128..]), twice(&block[160..]));
        [
            with_bits(a, moved::<4, 2>(first), 0x30),
            with_bits(b, moved::<0, 30>(first), 0x30),
            with_bits(c, moved::<4, 2>(second), 0x30),
            with_bits(d, moved::<0, 30>(second), 0x30),
        ]
    }
}

impl Format for Iq4Xs {
    layout!(136, sixteens);
    type Scales = Floats;
    type Weights = [__m512i; 4];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 136]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Floats; C] {
        let [a, b, c, d] = b;
        let header = lanes([at(a, 0), at(b, 0), at(c, 0), at(d, 0)]);
        // A word for each scale: its nibble from bytes 4 to 7, and its two bits of the word in bytes 2 and 3.
        let low = _mm512_shuffle_epi8(header, _mm512_set4_epi32(0x0707_0707, 0x0606_0606, 0x0505_0505, 0x0404_0404));
        let low = _mm512_srlv_epi16(low, _mm512_set1_epi32(0x0004_0000));
        let high = _mm512_shuffle_epi8(header, _mm512_set1_epi32(0x0302_0302));
        let shifts = _mm512_set4_epi32(0x000e_000c, 0x000a_0008, 0x0006_0004, 0x0002_0000);
        let high = _mm512_and_si512(_mm512_srlv_epi16(high, shifts), _mm512_set1_epi16(3));
        let own = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi16(15)), _mm512_slli_epi16::<4>(high));
        let own = _mm512_sub_epi16(own, _mm512_set1_epi16(32));
        let d = lane_halves::<0>(header);
        // Bytes have no sign: values are 128 too large.
        take_off8(own, _mm512_mul_ps(d, _mm512_set1_ps(128.0)), x, less);
        let mut all = [Floats([d; 2]); C];
        for c in 0..C {
            let own = _mm512_mullo_epi16(own, broadcast8(&x[c].scale32));
            let whole = _mm512_mul_ps(d, _mm512_set1_ps(x[c].unit));
            let first = _mm512_srai_epi32::<16>(_mm512_unpacklo_epi16(own, own));
            let second = _mm512_srai_epi32::<16>(_mm512_unpackhi_epi16(own, own));
            all[c] = Floats([
                _mm512_mul_ps(_mm512_cvtepi32_ps(first), whole),
                _mm512_mul_ps(_mm512_cvtepi32_ps(second), whole),
            ]);
        }
        all
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 136]) -> [__m512i; 4] {
        let values = const {
            let mut values = [0; 16];
            let mut i = 0;
            while i < 16 {
                values[i] = (NON_LINEAR[i] as u8) ^ 0x80;
                i += 1;
            }
            values
        };
        let table = _mm512_broadcast_i32x4(load16(&values));
        let [a, b, c, d] = nibbles(&block[8..]);
        [
            _mm512_shuffle_epi8(table, a),
            _mm512_shuffle_epi8(table, b),
            _mm512_shuffle_epi8(table, c),
            _mm512_shuffle_epi8(table, d),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Floats, x: &Wide, sum: __m512) -> __m512 {
        scales.add::<R>(weights, x, sum)
    }
}

impl InWords for Q4K {
    const EACH: usize = 8;
    const PLACES: Places = [[0, 0, 2, 2], [1, 1, 3, 3], [4, 4, 6, 6], [5, 5, 7, 7]];
}

impl InWords for Q5K {
    const EACH: usize = 8;
    const PLACES: Places = Q4K::PLACES;
}

impl InWords for Q2K {
    const EACH: usize = 16;
    const PLACES: Places = [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]];
}

impl InWords for Q3K {
    const EACH: usize = 16;
    const PLACES: Places = Q2K::PLACES;
}

impl InWords for Q6K {
    const EACH: usize = 16;
}

/// Unpacks the headers of Q4_K and Q5_K, and takes the minimums off.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn six_bit_scales<const BYTES: usize, const C: usize>(
    blocks: [&[u8; BYTES]; 4],
    x: [&Wide; C],
    less: &mut [__m512; C],
) -> [Integers; C] {
    let [a, b, c, d] = blocks;
    let header = lanes([at(a, 0), at(b, 0), at(c, 0), at(d, 0)]);
    // Six bits each; of the last four, the low four bits share a byte and the high two lie above the first four.
    let low = _mm512_srlv_epi32(_mm512_shuffle_epi32::<0b11_10_11_01>(header), _mm512_set4_epi32(4, 0, 0, 0));
    let high = _mm512_srli_epi32::<2>(_mm512_shuffle_epi32::<0b10_00_01_00>(header));
    let low = _mm512_and_si512(low, _mm512_set4_epi32(0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f));
    let high = _mm512_and_si512(high, _mm512_set4_epi32(0x3030_3030, 0, 0x3030_3030, 0));
    let (bytes, zero) = (_mm512_or_si512(low, high), _mm512_setzero_si512());
    let (scales, least) = (_mm512_unpacklo_epi8(bytes, zero), _mm512_unpackhi_epi8(bytes, zero));
    let (d, minimum) = (lane_halves::<0>(header), lane_halves::<1>(header));
    take_off8(least, minimum, x, less);
    eight(scales, d, x)
}

/// Low and high nibbles of 64 bytes, and those of the 64 after them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(from: &[u8]) -> [__m512i; 4] {
    let (bytes, mask) = (from[..128].as_chunks().0, _mm512_set1_epi8(15));
    let (first, second) = (load(&bytes[0]), load(&bytes[1]));
    [
        _mm512_and_si512(first, mask),
        _mm512_and_si512(_mm512_srli_epi16::<4>(first), mask),
        _mm512_and_si512(second, mask),
        _mm512_and_si512(_mm512_srli_epi16::<4>(second), mask),
    ]
}

/// The bit pairs of 64 bytes, lowest first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn two_bits(from: &[u8]) -> [__m512i; 4] {
    let (bytes, mask) = (load(from.first_chunk::<64>().expect("64 bytes")), _mm512_set1_epi8(3));
    [
        _mm512_and_si512(bytes, mask),
        _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), mask),
        _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask),
        _mm512_and_si512(_mm512_srli_epi16::<6>(bytes), mask),
    ]
}

/// The bit pairs of 64 bytes, lowest first, the second as four times and the third and the fourth as 16 times what they are: two
/// shifts less. What the first two lack of 16 times, the scales have ([`sixteenths`]).
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn in_place(from: &[u8]) -> [__m512i; 4] {
    let bytes = load(from.first_chunk::<64>().expect("64 bytes"));
    let (first, second, third) = (_mm512_set1_epi8(3), _mm512_set1_epi8(12), _mm512_set1_epi8(48));
    [
        _mm512_and_si512(bytes, first),
        _mm512_and_si512(bytes, second),
        _mm512_and_si512(bytes, third),
        _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), third),
    ]
}

/// By how many bits the scales of a row, `each` of them, are moved up for weights [`in_place`].
const fn sixteenths(each: usize) -> [u16; 32] {
    let mut shifts = [0; 32];
    let mut i = 0;
    while i < 32 {
        // Half of a row's scales belong to each half of the block, a quarter of these to each bit pair.
        shifts[i] = [4, 2, 0, 0][i % (each / 2) / (each / 8)];
        i += 1;
    }
    shifts
}

/// Goes round in words of 32 bits, `LOW` bits in the lower half and `HIGH` in the upper one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn moved<const LOW: i32, const HIGH: i32>(flags: __m512i) -> __m512i {
    _mm512_rolv_epi32(flags, _mm512_mask_set1_epi32(_mm512_set1_epi32(LOW), 0xff00, HIGH))
}

/// Adds the bits of `flags` that `mask` has in each byte.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn with_bits(weights: __m512i, flags: __m512i, mask: i8) -> __m512i {
    _mm512_or_si512(weights, _mm512_and_si512(flags, _mm512_set1_epi8(mask)))
}
