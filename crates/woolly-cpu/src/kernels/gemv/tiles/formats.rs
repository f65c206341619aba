//! Weights of sixteen rows as bytes, with the scales of their groups.

use std::arch::x86_64::*;

use super::columns::Arrangement;
use super::{ELEMENTS, ROWS};
use crate::isa::{Avx512, Bytes, Simd};

/// Most bytes that [`ELEMENTS`] weights of a row take.
pub(super) const MOST_BYTES: usize = 272;

/// The values of IQ4_NL.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// [`ELEMENTS`] weights of sixteen rows, unpacked.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// `[part][row][64]`.
    pub(super) bytes: [[[i8; 64]; ROWS]; ELEMENTS / 64],
    /// For each row the scales of its groups, in the order of the bytes; for formats with minimums eight, and then what is
    /// subtracted from every weight of each group.
    pub(super) scales: [[f32; 16]; ROWS],
}

impl Panel {
    pub(super) fn new() -> Self {
        Self { bytes: [[[0; 64]; ROWS]; ELEMENTS / 64], scales: [[0.0; 16]; ROWS] }
    }

    #[inline(always)]
    fn put(&mut self, part: usize, row: usize, bytes: __m512i) {
        // SAFETY: 64 bytes are writable; whoever has such a vector has AVX-512F.
        unsafe { _mm512_storeu_si512(self.bytes[part][row].as_mut_ptr().cast(), bytes) };
    }
}

/// How to unpack one tensor type.
pub(super) trait Format {
    /// Bytes of [`ELEMENTS`] weights: one or several blocks.
    const BYTES: usize;
    /// The order of the weights in the panel.
    const ARRANGEMENT: Arrangement;
    /// Whether there are minimums.
    const MINIMUMS: bool = false;

    /// Unpacks `from`, each of [`Format::BYTES`], to the four rows from `row` on of the panel.
    #[inline(always)]
    fn unpack_four(s: Avx512, from: [&[u8]; 4], row: usize, panel: &mut Panel) {
        Self::unpack(s, from[0], row, panel);
        Self::unpack(s, from[1], row + 1, panel);
        Self::unpack(s, from[2], row + 2, panel);
        Self::unpack(s, from[3], row + 3, panel);
    }

    /// Unpacks what the rows do not do together.
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel);
}

/// `(q − 8) · d`.
pub(super) struct Q40;
/// `K[q] · d`.
pub(super) struct Iq4Nl;
/// Signed bytes.
pub(super) struct Q80;
/// Scales and minimums of 32 weights each, nibbles of 32 and 32 weights in a byte.
pub(super) struct Q4K;
/// Q4_K and a fifth bit.
pub(super) struct Q5K;
/// Signed scales of 16 weights each, six bits a weight.
pub(super) struct Q6K;

/// Unpacks blocks of 18 bytes, whose nibbles become weights by `value`.
#[inline(always)]
fn nibble_blocks(s: Avx512, from: &[u8], row: usize, panel: &mut Panel, value: impl Fn(__m512i) -> __m512i) {
    for i in 0..2 {
        let nibbles = s.pieces16::<18, 2>(&from[72 * i..]);
        let (low, high) = (value(s.and(nibbles, s.splat_byte(15))), value(s.high_nibbles(nibbles)));
        // SAFETY: `s` proves AVX-512F. Sixteen low weights of a block, then its sixteen high ones.
        let (first, second) = unsafe {
            let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
            let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
            (_mm512_permutex2var_epi64(low, first, high), _mm512_permutex2var_epi64(low, second, high))
        };
        panel.put(2 * i, row, first);
        panel.put(2 * i + 1, row, second);
    }
    block_scales::<18>(s, from, &mut panel.scales[row]);
}

/// Widens the scales in front of eight blocks of `STRIDE` bytes.
#[inline(always)]
fn block_scales<const STRIDE: usize>(_: Avx512, from: &[u8], to: &mut [f32; 16]) {
    let at = |i: usize| i16::from_le_bytes([from[STRIDE * i], from[STRIDE * i + 1]]);
    // SAFETY: the token proves F16C; eight floats are writable.
    unsafe {
        let halves = _mm_setr_epi16(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
        _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(halves));
    }
}

impl Format for Q40 {
    const BYTES: usize = 144;
    const ARRANGEMENT: Arrangement = Arrangement::Natural;

    #[inline(always)]
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel) {
        // SAFETY: `s` proves AVX-512BW.
        nibble_blocks(s, from, row, panel, |q| unsafe { _mm512_sub_epi8(q, _mm512_set1_epi8(8)) });
    }
}

impl Format for Iq4Nl {
    const BYTES: usize = 144;
    const ARRANGEMENT: Arrangement = Arrangement::Natural;

    #[inline(always)]
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel) {
        nibble_blocks(s, from, row, panel, |q| s.lookup(&NON_LINEAR, q));
    }
}

impl Format for Q80 {
    const BYTES: usize = 272;
    const ARRANGEMENT: Arrangement = Arrangement::Natural;

    #[inline(always)]
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel) {
        for part in 0..4 {
            panel.put(part, row, s.pieces32::<34, 2>(&from[68 * part..]));
        }
        block_scales::<34>(s, from, &mut panel.scales[row]);
    }
}

impl Format for Q4K {
    const BYTES: usize = 144;
    const ARRANGEMENT: Arrangement = Arrangement::Nibbles;
    const MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel) {
        for i in 0..2 {
            let nibbles = s.bytes(&from[16 + 64 * i..]);
            panel.put(2 * i, row, s.and(nibbles, s.splat_byte(15)));
            panel.put(2 * i + 1, row, s.high_nibbles(nibbles));
        }
    }

    #[inline(always)]
    fn unpack_four(s: Avx512, from: [&[u8]; 4], row: usize, panel: &mut Panel) {
        Self::unpack(s, from[0], row, panel);
        Self::unpack(s, from[1], row + 1, panel);
        Self::unpack(s, from[2], row + 2, panel);
        Self::unpack(s, from[3], row + 3, panel);
        k_scales(s, from, row, panel);
    }
}

impl Format for Q5K {
    const BYTES: usize = 176;
    const ARRANGEMENT: Arrangement = Arrangement::Nibbles;
    const MINIMUMS: bool = true;

    #[inline(always)]
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel) {
        let flags = from[16..48].as_array().expect("32 bytes");
        for i in 0..2 {
            let nibbles = s.bytes(&from[48 + 64 * i..]);
            panel.put(2 * i, row, s.fifth_bits(s.and(nibbles, s.splat_byte(15)), flags, 4 * i));
            panel.put(2 * i + 1, row, s.fifth_bits(s.high_nibbles(nibbles), flags, 4 * i + 1));
        }
    }

    #[inline(always)]
    fn unpack_four(s: Avx512, from: [&[u8]; 4], row: usize, panel: &mut Panel) {
        Self::unpack(s, from[0], row, panel);
        Self::unpack(s, from[1], row + 1, panel);
        Self::unpack(s, from[2], row + 2, panel);
        Self::unpack(s, from[3], row + 3, panel);
        k_scales(s, from, row, panel);
    }
}

impl Format for Q6K {
    const BYTES: usize = 210;
    const ARRANGEMENT: Arrangement = Arrangement::Sixteens;

    #[inline(always)]
    fn unpack(s: Avx512, from: &[u8], row: usize, panel: &mut Panel) {
        for i in 0..2 {
            let (nibbles, pairs) = (s.bytes(&from[64 * i..]), &from[128 + 32 * i..]);
            let low = s.or(s.and(nibbles, s.splat_byte(15)), s.upper_bits(pairs, 0));
            let high = s.or(s.high_nibbles(nibbles), s.upper_bits(pairs, 2));
            for (part, bytes) in [low, high].into_iter().enumerate() {
                // SAFETY: `s` proves AVX-512BW.
                panel.put(2 * i + part, row, unsafe { _mm512_sub_epi8(bytes, _mm512_set1_epi8(32)) });
            }
        }
        let scales = from[192..208].as_array().expect("16 bytes");
        s.store(&mut panel.scales[row], s.scales16(scales, s.half([from[208], from[209]])));
    }
}

/// Unpacks the headers of four rows of Q4_K or Q5_K, in the order that nibbles leave their groups in.
///
/// A header is a quarter of a vector: scale and minimum, four scales, four minimums, and in the last word the low four
/// bits of four more of both, whose upper two bits lie above the first ones.
#[inline(always)]
fn k_scales(s: Avx512, from: [&[u8]; 4], row: usize, panel: &mut Panel) {
    let [a, b, c, d] = from.map(|from| from[..16].as_ptr().cast::<__m128i>());
    // SAFETY: sixteen bytes are readable at each place, sixteen floats writable; `s` proves the instructions.
    unsafe {
        let first = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(_mm_loadu_si128(a)), _mm_loadu_si128(b));
        let three = _mm512_inserti32x4::<2>(first, _mm_loadu_si128(c));
        let headers = _mm512_inserti32x4::<3>(three, _mm_loadu_si128(d));
        let six = _mm512_and_si512(headers, _mm512_set1_epi8(0x3f));
        let upper = _mm512_and_si512(_mm512_srli_epi16::<2>(headers), _mm512_set1_epi8(0x30));
        let last = _mm512_shuffle_epi32::<0b11_11_11_11>(headers);
        let low = _mm512_srlv_epi32(last, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 4, 0)));
        let more = _mm512_or_si512(upper, _mm512_and_si512(low, _mm512_set1_epi8(15)));
        // Words 1 of both are scales, words 2 minimums.
        let (six, more) = (_mm512_shuffle_epi32::<0b10_10_01_01>(six), _mm512_shuffle_epi32::<0b10_10_01_01>(more));
        let all = _mm512_mask_blend_epi32(0b1010_1010_1010_1010, six, more);
        let order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
        let all = _mm512_shuffle_epi8(all, _mm512_broadcast_i32x4(order));
        let pick = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        let halves = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi32(pick, headers)));
        let own = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
        let quarters = [
            _mm512_castsi512_si128(all),
            _mm512_extracti32x4_epi32::<1>(all),
            _mm512_extracti32x4_epi32::<2>(all),
            _mm512_extracti32x4_epi32::<3>(all),
        ];
        for (i, quarter) in quarters.into_iter().enumerate() {
            let whole = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(quarter));
            let by = _mm512_permutexvar_ps(_mm512_add_epi32(own, _mm512_set1_epi32(2 * i as i32)), halves);
            s.store(&mut panel.scales[row + i], _mm512_mul_ps(whole, by));
        }
    }
}
