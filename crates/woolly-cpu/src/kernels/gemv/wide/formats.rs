//! The types: how their scales and weights are unpacked.

use std::arch::x86_64::*;

use super::super::input::Slot;
use super::super::nibbles::NON_LINEAR;
use super::Format;
use super::activations::{Slots, Wide};

/// Implements [`Format::Block`], [`Format::blocks`], [`Format::slot`] and [`Format::slot_mut`].
macro_rules! layout {
    ($bytes:literal, $slot:ident) => {
        type Block = [u8; $bytes];

        #[inline(always)]
        fn blocks(row: &[u8]) -> &[Self::Block] {
            row.as_chunks().0
        }

        #[inline(always)]
        fn slot(slots: &Slots) -> &Slot<Wide> {
            &slots.$slot
        }

        fn slot_mut(slots: &mut Slots) -> &mut Slot<Wide> {
            &mut slots.$slot
        }
    };
}

/// `(q · scale − min)` with scales and minimums of six bits for each 32 weights, nibbles of 32 and 32 weights in a byte.
///
/// Sums stay below 4 · 31 · 127 < 2¹⁵ as words and, scaled and four of them added, below 4 · 31 · 127 · 63 · 127 · 4 < 2³¹; so
/// do those of Q5_K.
pub(super) struct Q4K;
/// Q4_K and a fifth bit.
pub(super) struct Q5K;
/// Two bits, with scales and minimums of four bits for each 16 weights.
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
    type Scales = Integers;

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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
        add_integers::<Self, R>(weights, scales, x, sum)
    }
}

impl Format for Q5K {
    layout!(176, nibbles);
    type Scales = Integers;

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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
        add_integers::<Self, R>(weights, scales, x, sum)
    }
}

impl Format for Q2K {
    layout!(84, pairs);
    type Scales = Integers;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 84]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let [a, b, c, d] = b;
        let packed = lanes([at(a, 0), at(b, 0), at(c, 0), at(d, 0)]);
        let ends = lanes([at(a, 68), at(b, 68), at(c, 68), at(d, 68)]);
        let nibble = _mm512_set1_epi8(15);
        let own = _mm512_and_si512(packed, nibble);
        let minimums = _mm512_and_si512(_mm512_srli_epi16::<4>(packed), nibble);
        sixteen(own, lane_halves::<6>(ends), minimums, lane_halves::<7>(ends), x, less)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn weights(block: &[u8; 84]) -> [__m512i; 4] {
        two_bits(&block[16..])
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
        add_integers::<Self, R>(weights, scales, x, sum)
    }
}

impl Format for Q3K {
    layout!(110, pairs);
    type Scales = Integers;

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
        sixteen(own, d, own, _mm512_mul_ps(d, _mm512_set1_ps(4.0)), x, less)
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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
        add_integers::<Self, R>(weights, scales, x, sum)
    }
}

impl Format for Q6K {
    layout!(210, natural);
    type Scales = Integers;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn scales<const C: usize>(b: [&[u8; 210]; 4], x: [&Wide; C], less: &mut [__m512; C]) -> [Integers; C] {
        let [a, b, c, d] = b;
        let own = lanes([at(a, 192), at(b, 192), at(c, 192), at(d, 192)]);
        let d = lane_halves::<7>(lanes([at(a, 194), at(b, 194), at(c, 194), at(d, 194)]));
        sixteen(own, d, own, _mm512_mul_ps(d, _mm512_set1_ps(32.0)), x, less)
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

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
        add_integers::<Self, R>(weights, scales, x, sum)
    }
}

impl Format for Iq4Xs {
    layout!(136, sixteens);
    type Scales = Floats;

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
            // Bytes have no sign: values are 128 too large.
            let offsets = _mm512_cvtepi32_ps(_mm512_madd_epi16(own, broadcast8(&x[c].sum32)));
            less[c] = _mm512_fnmadd_ps(offsets, _mm512_mul_ps(whole, _mm512_set1_ps(128.0)), less[c]);
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

/// Types whose scales are applied to words.
trait InWords: Format<Scales = Integers> {
    /// Scales of a row.
    const EACH: usize;
    /// Which of them belong to the lanes of the four vectors of weights.
    const PLACES: [[usize; 4]; 4];
}

impl InWords for Q4K {
    const EACH: usize = 8;
    const PLACES: [[usize; 4]; 4] = [[0, 0, 2, 2], [1, 1, 3, 3], [4, 4, 6, 6], [5, 5, 7, 7]];
}

impl InWords for Q5K {
    const EACH: usize = 8;
    const PLACES: [[usize; 4]; 4] = Q4K::PLACES;
}

impl InWords for Q2K {
    const EACH: usize = 16;
    const PLACES: [[usize; 4]; 4] = [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]];
}

impl InWords for Q3K {
    const EACH: usize = 16;
    const PLACES: [[usize; 4]; 4] = Q2K::PLACES;
}

impl InWords for Q6K {
    const EACH: usize = 16;
    const PLACES: [[usize; 4]; 4] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];
}

/// Scales of a block of four rows for words.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    /// Integer scales times those of the activations, row after row; where a row has eight, both are the same.
    own: [__m512i; 2],
    /// The scale of the row's block times the unit of the activations, in all elements of the row's lane.
    whole: __m512,
}

/// Adds the products of row `R`: sums of four products become words, of which pairs are scaled and added.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add_integers<F: InWords, const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
    let v = x.v.as_chunks().0;
    let own = scales.own[R * F::EACH / 32];
    let low = _mm512_packs_epi32(dot(weights[0], &v[0]), dot(weights[1], &v[1]));
    let high = _mm512_packs_epi32(dot(weights[2], &v[2]), dot(weights[3], &v[3]));
    let spread_low = words(&const { spread(R * F::EACH % 32, [F::PLACES[0], F::PLACES[1]]) });
    let spread_high = words(&const { spread(R * F::EACH % 32, [F::PLACES[2], F::PLACES[3]]) });
    let sums_of_two = _mm512_madd_epi16(low, _mm512_permutexvar_epi16(spread_low, own));
    let products = _mm512_dpwssd_epi32(sums_of_two, high, _mm512_permutexvar_epi16(spread_high, own));
    _mm512_fmadd_ps(_mm512_cvtepi32_ps(products), lane::<R>(scales.whole), sum)
}

/// Where the scales of words packed from two vectors are, of which the row's begin at `first`: in each lane four words of one
/// vector and four of the other.
const fn spread(first: usize, places: [[usize; 4]; 2]) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (first + places[i / 4 % 2][i / 8]) as u16;
        i += 1;
    }
    index
}

/// Scales of a block of four rows for sums as floats: groups 0 to 3, and 4 to 7, a lane for each row.
#[derive(Clone, Copy)]
pub(super) struct Floats([__m512; 2]);

impl Floats {
    /// Adds the products of row `R`, in which a lane of two vectors belongs to a group.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add<const R: usize>(self, weights: [__m512i; 4], x: &Wide, sum: __m512) -> __m512 {
        let v = x.v.as_chunks().0;
        let r = 4 * R as i32;
        let spread = _mm512_setr_epi32(
            r,
            r,
            r,
            r,
            r + 1,
            r + 1,
            r + 1,
            r + 1,
            r + 2,
            r + 2,
            r + 2,
            r + 2,
            r + 3,
            r + 3,
            r + 3,
            r + 3,
        );
        let low = _mm512_dpbusd_epi32(dot(weights[0], &v[0]), weights[1], load(&v[1]));
        let high = _mm512_dpbusd_epi32(dot(weights[2], &v[2]), weights[3], load(&v[3]));
        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(low), _mm512_permutexvar_ps(spread, self.0[0]), sum);
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), _mm512_permutexvar_ps(spread, self.0[1]), sum)
    }
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
    let mut all = [Integers { own: [scales; 2], whole: d }; C];
    for c in 0..C {
        let (scale, unit) = (broadcast8(&x[c].scale32), _mm512_set1_ps(x[c].unit));
        all[c] = Integers { own: [_mm512_mullo_epi16(scales, scale); 2], whole: _mm512_mul_ps(d, unit) };
        let offsets = _mm512_madd_epi16(_mm512_mullo_epi16(least, scale), broadcast8(&x[c].sum32));
        less[c] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(offsets), _mm512_mul_ps(minimum, unit), less[c]);
    }
    all
}

/// Scales of signed bytes, 16 in the lane of each row, that `d` multiplies, and what is taken off: offsets, of which `by`
/// multiplies each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn sixteen<const C: usize>(
    own: __m512i,
    d: __m512,
    offsets: __m512i,
    by: __m512,
    x: [&Wide; C],
    less: &mut [__m512; C],
) -> [Integers; C] {
    let (own, offsets) = (words_of_bytes(own), words_of_bytes(offsets));
    let mut all = [Integers { own, whole: d }; C];
    for c in 0..C {
        let (scale, unit) = (broadcast16(&x[c].scale), _mm512_set1_ps(x[c].unit));
        let sum = broadcast16(&x[c].sum);
        all[c] = Integers {
            own: [_mm512_mullo_epi16(own[0], scale), _mm512_mullo_epi16(own[1], scale)],
            whole: _mm512_mul_ps(d, unit),
        };
        let first = _mm512_madd_epi16(_mm512_mullo_epi16(offsets[0], scale), sum);
        let second = _mm512_madd_epi16(_mm512_mullo_epi16(offsets[1], scale), sum);
        // Two lanes for each row become one.
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(first, second);
        let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(first, second);
        let both = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
        less[c] = _mm512_fnmadd_ps(both, _mm512_mul_ps(by, unit), less[c]);
    }
    all
}

/// Signed bytes of the first two lanes, and of the others, as words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn words_of_bytes(bytes: __m512i) -> [__m512i; 2] {
    let upper = _mm512_extracti64x4_epi64::<1>(bytes);
    [_mm512_cvtepi8_epi16(_mm512_castsi512_si256(bytes)), _mm512_cvtepi8_epi16(upper)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(weights: __m512i, x: &[i8; 64]) -> __m512i {
    _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, load(x))
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

/// 32 bytes in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn twice(from: &[u8]) -> __m512i {
    let from = &from[..32];
    // SAFETY: 32 bytes are readable.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

/// The 16 bytes at `place`.
#[inline(always)]
fn at<const BYTES: usize>(block: &[u8; BYTES], place: usize) -> &[u8; 16] {
    block[place..].first_chunk().expect("16 bytes")
}

#[inline]
#[target_feature(enable = "avx2")]
fn load16(from: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes are readable.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Four times 16 bytes, one a lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes(from: [&[u8; 16]; 4]) -> __m512i {
    let low = _mm256_set_m128i(load16(from[1]), load16(from[0]));
    let high = _mm256_set_m128i(load16(from[3]), load16(from[2]));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The half-precision number at place `AT` of each lane, in all elements of the lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn lane_halves<const AT: usize>(from: __m512i) -> __m512 {
    let index = const {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[i] = (8 * (i / 4) + AT) as u16;
            i += 1;
        }
        index
    };
    _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(words(&index), from)))
}

/// Lane `R` in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lane<const R: usize>(from: __m512) -> __m512 {
    match R {
        0 => _mm512_shuffle_f32x4::<0b00_00_00_00>(from, from),
        1 => _mm512_shuffle_f32x4::<0b01_01_01_01>(from, from),
        2 => _mm512_shuffle_f32x4::<0b10_10_10_10>(from, from),
        _ => _mm512_shuffle_f32x4::<0b11_11_11_11>(from, from),
    }
}

/// Eight words in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast8(from: &[i16; 8]) -> __m512i {
    // SAFETY: 16 bytes are readable.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

/// Sixteen words in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast16(from: &[i16; 16]) -> __m512i {
    // SAFETY: 32 bytes are readable.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn words(from: &[u16; 32]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load<T>(from: &[T; 64]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}
