//! Every type's blocks as unsigned bytes with scales, sixteen rows at a time.
//!
//! Rows lie in lanes from the first load on: whole words of quants are transposed before they are taken apart, which
//! moves half as much as unpacking first, and scales and minimums are unpacked for sixteen rows at once. Forms as in
//! [`super::super::unpack`]; layouts are those of `woolly-quant`, the oracle of the tests.

use std::arch::x86_64::*;

use woolly_quant::TensorType;

use super::super::unpack::{E2M1, KVALUES, PIECE};
use super::panel::{Block, Pieces, Sink};

/// Unpacks the first `blocks` blocks of `from`.
///
/// Each type has a loop of its own, and those with one block a piece none: in a common one the addresses of all rows and
/// types would be computed anew for each piece, which cost as much as unpacking.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack(ty: TensorType, from: Pieces<'_>, blocks: usize, to: &mut impl Sink) {
    let (elements, size) = (ty.block_elements(), ty.block_bytes());
    assert!(blocks <= PIECE / elements, "more blocks than a piece has");
    macro_rules! each {
        ($unpack:ident) => {
            for b in 0..blocks {
                $unpack(from.block(b * size, size), b, to)
            }
        };
    }
    macro_rules! one {
        ($unpack:ident) => {{
            assert!(blocks == 1, "{ty}: a piece that is no block");
            $unpack(from.block(0, size), to)
        }};
    }
    // SAFETY: the blocks have the bytes of their type.
    unsafe {
        match ty {
            TensorType::Q4_0 => each!(q4_0),
            TensorType::Q4_1 => each!(q4_1),
            TensorType::Q5_0 => each!(q5_0),
            TensorType::Q5_1 => each!(q5_1),
            TensorType::Q8_0 => each!(q8_0),
            TensorType::IQ4_NL => each!(iq4_nl),
            TensorType::MXFP4 => each!(mxfp4),
            TensorType::IQ4_XS => one!(iq4_xs),
            TensorType::Q2_K => one!(q2_k),
            TensorType::Q3_K => one!(q3_k),
            TensorType::Q4_K => one!(q4_k),
            TensorType::Q5_K => one!(q5_k),
            TensorType::Q6_K => one!(q6_k),
            _ => unreachable!("{ty} has no integer form"),
        }
    }
}

/// Declares functions that unpack one block: `b` is its number, for types with blocks of one group.
macro_rules! formats {
    ($($(#[$doc:meta])* fn $name:ident($block:ident, $to:ident $(, $b:ident)?) $body:block)+) => { $(
        $(#[$doc])*
        /// # Safety
        /// The block has the bytes of its type.
        #[inline]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        pub(super) unsafe fn $name($block: Block<'_>, $($b: usize,)? $to: &mut impl Sink) {
            // SAFETY: all reads stay inside of the block.
            unsafe { $body }
        }
    )+ };
}

formats! {
    fn q4_0(block, to, b) {
        to.scale(b, low_half(block.word(0)));
        let (low, high) = nibbles(block.sixteen(2));
        to.quads(b, joined(low, high));
    }

    fn q4_1(block, to, b) {
        let head = block.word(0);
        to.scale(b, low_half(head));
        to.minimum(b, high_half(head));
        let (low, high) = nibbles(block.sixteen(4));
        to.quads(b, joined(low, high));
    }

    fn q5_0(block, to, b) {
        to.scale(b, low_half(block.word(0)));
        to.quads(b, fives(block.word(2), block.sixteen(6)));
    }

    fn q5_1(block, to, b) {
        let head = block.word(0);
        to.scale(b, low_half(head));
        to.minimum(b, high_half(head));
        to.quads(b, fives(block.word(4), block.sixteen(8)));
    }

    fn q8_0(block, to, b) {
        to.scale(b, low_half(block.word(0)));
        let top = _mm512_set1_epi8(-128);
        to.quads(b, each(block.thirty_two(2), |word| _mm512_xor_si512(word, top)));
    }

    fn iq4_nl(block, to, b) {
        to.scale(b, low_half(block.word(0)));
        to.quads(b, looked_up(&KVALUES, block.sixteen(2)));
    }

    fn mxfp4(block, to, b) {
        let exponent = _mm512_and_si512(block.word(0), _mm512_set1_epi32(0xff));
        // 2^(e − 128), of which the two smallest are subnormal.
        let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponent, _mm512_set1_epi32(1)));
        let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), exponent);
        let tiny = _mm512_cmplt_epi32_mask(exponent, _mm512_set1_epi32(2));
        to.scale(b, _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, tiny, subnormal)));
        to.quads(b, looked_up(&E2M1, block.sixteen(1)));
    }

    fn iq4_xs(block, to) {
        let (head, low_bits) = (block.word(0), block.word(4));
        let d = low_half(head);
        for group in 0..8 {
            let low = _mm512_and_si512(shifted(low_bits, 4 * group), _mm512_set1_epi32(15));
            let high = _mm512_and_si512(shifted(head, 16 + 2 * group), _mm512_set1_epi32(3));
            let scale = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32::<4>(high)), _mm512_set1_epi32(32));
            let group = group as usize;
            to.scale(group, _mm512_mul_ps(d, _mm512_cvtepi32_ps(scale)));
            to.quads(group, looked_up(&KVALUES, block.sixteen(8 + 16 * group)));
        }
    }

    fn q2_k(block, to) {
        let head = block.word(80);
        let (d, minimum) = (low_half(head), _mm512_sub_ps(_mm512_setzero_ps(), high_half(head)));
        for (i, scales) in block.sixteen(0).into_iter().enumerate() {
            for byte in 0..4 {
                to.scale(4 * i + byte, _mm512_mul_ps(d, bits(scales, 8 * byte as u32, 15)));
                to.minimum(4 * i + byte, _mm512_mul_ps(minimum, bits(scales, 8 * byte as u32 + 4, 15)));
            }
        }
        for half in 0..4 {
            let pairs = block.sixteen(16 + 16 * half);
            for j in 0..4 {
                let quants = each(pairs, |pairs| _mm512_and_si512(shifted(pairs, 2 * j as u32), _mm512_set1_epi8(3)));
                to.quads(8 * (half / 2) + 2 * j + half % 2, quants);
            }
        }
    }

    fn q3_k(block, to) {
        let d = high_half(block.word(106));
        let (a, b, c) = (block.word(96), block.word(100), block.word(104));
        let (low, two) = (_mm512_set1_epi8(15), _mm512_set1_epi8(3));
        for k in 0..4 {
            let nibbles = _mm512_and_si512(shifted(if k % 2 == 0 { a } else { b }, k / 2 * 4), low);
            let high = _mm512_slli_epi32::<4>(_mm512_and_si512(shifted(c, 2 * k), two));
            let scales = _mm512_sub_epi8(_mm512_or_si512(nibbles, high), _mm512_set1_epi8(32));
            for byte in 0..4 {
                to.scale((4 * k + byte) as usize, _mm512_mul_ps(d, signed_byte(scales, byte)));
            }
        }
        let masks = block.thirty_two(0);
        for half in 0..4 {
            let (n, which) = (half / 2, half % 2);
            let pairs = block.sixteen(32 + 16 * half);
            let mask = if which == 0 { [masks[0], masks[1], masks[2], masks[3]] } else { [masks[4], masks[5], masks[6], masks[7]] };
            for j in 0..4 {
                let mut quants = each(pairs, |pairs| _mm512_and_si512(shifted(pairs, 2 * j as u32), two));
                for (quants, mask) in quants.iter_mut().zip(mask) {
                    let third = _mm512_and_si512(shifted(mask, (4 * n + j) as u32), _mm512_set1_epi8(1));
                    *quants = _mm512_or_si512(*quants, _mm512_slli_epi32::<2>(third));
                }
                to.quads(8 * n + 2 * j + which, quants);
            }
        }
    }

    fn q4_k(block, to) {
        six_bit_pairs(block.sixteen(0), to);
        for j in 0..4 {
            let (low, high) = nibbles(block.thirty_two(16 + 32 * j));
            to.quads(2 * j, low);
            to.quads(2 * j + 1, high);
        }
    }

    fn q5_k(block, to) {
        six_bit_pairs(block.sixteen(0), to);
        let fifths = block.thirty_two(16);
        for j in 0..4 {
            let (mut low, mut high) = nibbles(block.thirty_two(48 + 32 * j));
            for i in 0..8 {
                let pair = shifted(fifths[i], 2 * j as u32);
                low[i] = or_masked(low[i], _mm512_slli_epi32::<4>(pair), 16);
                high[i] = or_masked(high[i], _mm512_slli_epi32::<3>(pair), 16);
            }
            to.quads(2 * j, low);
            to.quads(2 * j + 1, high);
        }
    }

    fn q6_k(block, to) {
        let d = high_half(block.word(206));
        for (i, scales) in block.sixteen(192).into_iter().enumerate() {
            for byte in 0..4 {
                to.scale(4 * i + byte, _mm512_mul_ps(d, signed_byte(scales, byte as u32)));
            }
        }
        for half in 0..4 {
            let (n, which) = (half / 2, half % 2);
            let pairs = block.sixteen(128 + 16 * half);
            let first = 8 * n + which;
            let (mut low, mut high) = nibbles(block.sixteen(64 * n + 16 * which));
            for i in 0..4 {
                low[i] = or_masked(low[i], _mm512_slli_epi32::<4>(pairs[i]), 48);
                high[i] = or_masked(high[i], pairs[i], 48);
            }
            to.quads(first, low);
            to.quads(first + 4, high);
            let (mut low, mut high) = nibbles(block.sixteen(64 * n + 32 + 16 * which));
            for i in 0..4 {
                low[i] = or_masked(low[i], _mm512_slli_epi32::<2>(pairs[i]), 48);
                high[i] = or_masked(high[i], _mm512_srli_epi32::<2>(pairs[i]), 48);
            }
            to.quads(first + 2, low);
            to.quads(first + 6, high);
        }
    }
}

/// Splits bytes into their low and high four bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn nibbles<const Q: usize>(words: [__m512i; Q]) -> ([__m512i; Q], [__m512i; Q]) {
    let mask = _mm512_set1_epi32(0x0f0f_0f0f);
    let (mut low, mut high) = (words, words);
    for i in 0..Q {
        low[i] = _mm512_and_si512(words[i], mask);
        high[i] = _mm512_and_si512(_mm512_srli_epi32::<4>(words[i]), mask);
    }
    (low, high)
}

/// Applies `f` to each of the words.
#[inline(always)]
fn each<const Q: usize>(mut words: [__m512i; Q], f: impl Fn(__m512i) -> __m512i) -> [__m512i; Q] {
    for word in &mut words {
        *word = f(*word);
    }
    words
}

#[inline(always)]
fn joined([a, b, c, d]: [__m512i; 4], [e, f, g, h]: [__m512i; 4]) -> [__m512i; 8] {
    [a, b, c, d, e, f, g, h]
}

/// Unpacks a group whose sixteen bytes hold two elements each, sixteen apart, as numbers in a table.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn looked_up(table: &[u8; 16], words: [__m512i; 4]) -> [__m512i; 8] {
    // SAFETY: sixteen bytes are readable.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) });
    let (low, high) = nibbles(words);
    each(joined(low, high), |quad| _mm512_shuffle_epi8(table, quad))
}

/// Unpacks such a group with a fifth bit for each element in a word of its own.
#[inline]
#[target_feature(enable = "avx512f")]
fn fives(fifths: __m512i, words: [__m512i; 4]) -> [__m512i; 8] {
    let (low, high) = nibbles(words);
    let mut quads = joined(low, high);
    for (i, quad) in quads.iter_mut().enumerate() {
        *quad = _mm512_or_si512(*quad, spread_fifths(fifths, 4 * i as u32));
    }
    quads
}

/// Brings bits `from..from + 4` to bit 4 of a byte each.
#[inline]
#[target_feature(enable = "avx512f")]
fn spread_fifths(bits: __m512i, from: u32) -> __m512i {
    let four = _mm512_and_si512(shifted(bits, from), _mm512_set1_epi32(15));
    // Bit i times 2^(7j) is bit i + 7j, which is the lowest of byte i where i = j, and never for others.
    let apart = _mm512_mullo_epi32(four, _mm512_set1_epi32(0x0020_4081));
    _mm512_slli_epi32::<4>(_mm512_and_si512(apart, _mm512_set1_epi8(1)))
}

/// Sets scales and minimums from the sixteen bytes that Q4_K and Q5_K begin with: two halves, and eight pairs of six bits,
/// of which the last four pairs have their high two bits above the first four.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn six_bit_pairs([head, first, second, third]: [__m512i; 4], to: &mut impl Sink) {
    let (d, minimum) = (low_half(head), _mm512_sub_ps(_mm512_setzero_ps(), high_half(head)));
    let (six, four) = (_mm512_set1_epi32(0x3f3f_3f3f), _mm512_set1_epi32(0x0f0f_0f0f));
    let late = |low: __m512i, high: __m512i| or_masked(_mm512_and_si512(low, four), _mm512_srli_epi32::<2>(high), 48);
    let scales = [_mm512_and_si512(first, six), late(third, first)];
    let minimums = [_mm512_and_si512(second, six), late(_mm512_srli_epi32::<4>(third), second)];
    for (i, (scales, minimums)) in scales.into_iter().zip(minimums).enumerate() {
        for byte in 0..4 {
            to.scale(4 * i + byte, _mm512_mul_ps(d, bits(scales, 8 * byte as u32, 0xff)));
            to.minimum(4 * i + byte, _mm512_mul_ps(minimum, bits(minimums, 8 * byte as u32, 0xff)));
        }
    }
}

/// Returns `a | (b & mask)`, the mask being the same for all bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn or_masked(a: __m512i, b: __m512i, mask: i8) -> __m512i {
    _mm512_ternarylogic_epi32::<0xf8>(a, b, _mm512_set1_epi32(i32::from_ne_bytes([mask.cast_unsigned(); 4])))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn shifted(words: __m512i, by: u32) -> __m512i {
    _mm512_srl_epi32(words, _mm_cvtsi32_si128(by.cast_signed()))
}

/// Returns some bits of each word as numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn bits(words: __m512i, from: u32, mask: i32) -> __m512 {
    _mm512_cvtepi32_ps(_mm512_and_si512(shifted(words, from), _mm512_set1_epi32(mask)))
}

/// Returns a signed byte of each word as a number.
#[inline]
#[target_feature(enable = "avx512f")]
fn signed_byte(words: __m512i, byte: u32) -> __m512 {
    let top = _mm512_sll_epi32(words, _mm_cvtsi32_si128((24 - 8 * byte).cast_signed()));
    _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
}

/// Returns the half-precision number in the low half of each word.
#[inline]
#[target_feature(enable = "avx512f")]
fn low_half(words: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words))
}

/// Returns the half-precision number in the high half of each word.
#[inline]
#[target_feature(enable = "avx512f")]
fn high_half(words: __m512i) -> __m512 {
    low_half(_mm512_srli_epi32::<16>(words))
}
