//! Types whose blocks are unpacked to bytes in memory, row by row, before they are multiplied: those with tables of
//! codewords, which no vector instruction looks up, and the rarer small ones.
//!
//! Unpacking is plain code on arrays: what is alike for all words of a block becomes vector instructions by itself. Bytes
//! are magnitudes with signs apart, or have an offset that the sums take off.

use std::array;

use woolly_quant::half::f16_to_f32;
use woolly_quant::{TensorType, grids};

use crate::isa::Bytes;

/// Magnitudes of eight weights by 256 codewords, even signs, a scale for each 32.
pub(crate) struct Iq2Xxs;
/// Magnitudes of eight weights by 512 codewords, even signs, a scale for each 16.
pub(crate) struct Iq2Xs;
/// Magnitudes of eight weights by 1024 codewords, signs, a scale for each 16.
pub(crate) struct Iq2S;
/// Magnitudes of four weights by 256 codewords, even signs, a scale for each 32.
pub(crate) struct Iq3Xxs;
/// Magnitudes of four weights by 512 codewords, signs, a scale for each 32.
pub(crate) struct Iq3S;
/// Ternary codewords of eight weights, a scale and a shift for each 32.
pub(crate) struct Iq1S;
/// Ternary codewords of eight weights with a shift each, a scale for each 16.
pub(crate) struct Iq1M;
/// Five ternary digits in a byte.
pub(crate) struct Tq10;
/// E2M1 numbers with a scale for each 16.
pub(crate) struct Nvfp4;
/// Signs.
pub(crate) struct Q10;
/// Codes of two bits less 1.
pub(crate) struct Q20;

/// A byte of 1 for each of eight weights.
const ONES: u64 = 0x0101_0101_0101_0101;

/// Weights of a step.
pub(crate) const STEP: usize = 256;

/// The bytes of a step.
#[repr(C, align(64))]
pub(crate) struct Unpacked(pub(crate) [u8; STEP]);

impl Unpacked {
    /// Writes codeword `i` by an instruction of its own.
    ///
    /// Left to itself, the compiler joins codewords to vectors, by instructions that take longer than memory does:
    /// gathering, or insertions on the one port that shuffles.
    #[inline(always)]
    fn put_eight(&mut self, i: usize, codeword: &[i8; 8]) {
        let to = self.0[8 * i..][..8].as_mut_ptr();
        // SAFETY: eight bytes are writable, at a multiple of eight from the start, which is aligned.
        unsafe { to.cast::<u64>().write_volatile(u64::from_ne_bytes(codeword.map(i8::cast_unsigned))) };
    }

    /// As [`Unpacked::put_eight`]; two at a time were no faster.
    #[inline(always)]
    fn put_four(&mut self, i: usize, codeword: &[i8; 4]) {
        let to = self.0[4 * i..][..4].as_mut_ptr();
        // SAFETY: four bytes are writable, at a multiple of four from the start, which is aligned.
        unsafe { to.cast::<u32>().write_volatile(u32::from_ne_bytes(codeword.map(i8::cast_unsigned))) };
    }
}

/// Converts numbers of half precision: [`Bytes`] by an instruction, [`Portable`] without.
pub(crate) trait Halves: Copy {
    /// The half-precision number in two little-endian bytes.
    fn half_at(self, from: [u8; 2]) -> f32;
}

impl<S: Bytes> Halves for S {
    #[inline(always)]
    fn half_at(self, from: [u8; 2]) -> f32 {
        self.half(from)
    }
}

/// Converts on any processor.
#[derive(Clone, Copy)]
struct Portable;

impl Halves for Portable {
    #[inline(always)]
    fn half_at(self, from: [u8; 2]) -> f32 {
        f16_to_f32(u16::from_le_bytes(from))
    }
}

/// How the 256 weights of a step become bytes.
pub(crate) trait Unpack: 'static {
    /// Bytes of a step: one block, or several small ones.
    type Block: Copy + AsRef<[u8]> + AsMut<[u8]>;
    /// A step of zero bytes.
    const ZERO: Self::Block;
    /// Weights that share a scale, 16 or 32.
    const GROUP: usize;
    /// Whether all of a step share one, and so do activations ([`crate::kernels::rounding`]).
    const ONE_SCALE: bool = false;
    /// Whether bytes are magnitudes, and [`Unpack::signs`] has the signs.
    const SIGNS: bool = false;
    /// What bytes are too large by; where the signs are apart, no magnitude is larger.
    const OFFSET: u8;
    /// A bound on the bytes with the offset.
    const LARGEST: u8;
    /// What the bytes stand for, unless they are the weights themselves.
    const TABLE: Option<[i8; 16]> = None;

    /// Splits a row into whole steps and the rest.
    fn split(row: &[u8]) -> (&[Self::Block], &[u8]);
    /// Writes the bytes in natural order; all are below 128.
    fn unpack(w: &Self::Block, to: &mut Unpacked);
    /// The signs: bit `i` of word `g` is set where element `32 g + i` is negative.
    #[inline(always)]
    fn signs(_: &Self::Block) -> [u32; 8] {
        [0; 8]
    }
    /// A scale for each 16 weights.
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16];
}

/// How the bytes of a type with [`Unpack`] are to be read.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Weights that share a scale, 16 or 32.
    pub(crate) group: usize,
    /// What bytes are too large by.
    pub(crate) offset: u8,
    /// A bound on them.
    pub(crate) largest: u8,
}

/// Runs `$body` with `$format` naming the [`Unpack`] of a tensor type, or `$other` where it has none: the list of them.
macro_rules! with_unpack {
    ($ty:expr, $format:ident => $body:expr, _ => $other:expr) => {
        with_unpack!(@list $ty, $format, $body, $other;
            IQ1_S: Iq1S, IQ1_M: Iq1M, IQ2_XXS: Iq2Xxs, IQ2_XS: Iq2Xs, IQ2_S: Iq2S, IQ3_XXS: Iq3Xxs, IQ3_S: Iq3S,
            TQ1_0: Tq10, NVFP4: Nvfp4, Q1_0: Q10, Q2_0: Q20)
    };
    (@list $ty:expr, $format:ident, $body:expr, $other:expr; $($name:ident: $path:ident),+) => {
        match $ty {
            $(TensorType::$name => { type $format = $crate::kernels::unpacked::$path; $body })+
            _ => $other,
        }
    };
}

pub(crate) use with_unpack;

/// Returns how bytes of `ty` are to be read, or `None` where it has vector code of its own or is no block type.
pub(crate) const fn layout(ty: TensorType) -> Option<Layout> {
    with_unpack!(ty, F => Some(Layout { group: F::GROUP, offset: F::OFFSET, largest: F::LARGEST }), _ => None)
}

/// Unpacks up to [`STEP`] weights of `ty` to bytes that are [`Layout::offset`] too large, and a scale for each 16.
///
/// Compiled once, for any processor: looking up codewords is most of it.
///
/// # Panics
/// When `ty` has no [`layout`], or `blocks` are more than a step.
pub(crate) fn to_bytes(ty: TensorType, blocks: &[u8], bytes: &mut Unpacked, scales: &mut [f32; 16]) {
    with_unpack!(ty, F => step_to_bytes::<F>(blocks, bytes, scales), _ => unreachable!("{ty} is not unpacked here"));
}

/// Decodes up to [`STEP`] weights of any type: as the codec, and faster for most that have a [`layout`].
///
/// # Panics
/// When `blocks` are not the bytes of `out.len()` weights.
#[inline(always)]
pub(crate) fn decode(ty: TensorType, blocks: &[u8], out: &mut [f32]) {
    // Their codecs take one or two bits a weight and look nothing up.
    let plain = matches!(ty, TensorType::Q1_0 | TensorType::Q2_0);
    let Some(Layout { offset, .. }) = layout(ty).filter(|_| !plain) else {
        return ty.decode(blocks, out).expect("the caller brings whole blocks and room for them");
    };
    assert_eq!(blocks.len() * ty.block_elements(), out.len() * ty.block_bytes(), "{ty}: bytes and weights");
    let (mut bytes, mut scales) = (Unpacked([0; STEP]), [0.0; 16]);
    to_bytes(ty, blocks, &mut bytes, &mut scales);
    for ((out, bytes), scale) in out.chunks_mut(16).zip(bytes.0.as_chunks::<16>().0).zip(scales) {
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = scale * f32::from(i16::from(*byte) - i16::from(offset));
        }
    }
}

fn step_to_bytes<F: Unpack>(blocks: &[u8], bytes: &mut Unpacked, scales: &mut [f32; 16]) {
    let mut w = F::ZERO;
    w.as_mut()[..blocks.len()].copy_from_slice(blocks);
    F::unpack(&w, bytes);
    *scales = F::scales(Portable, &w);
    if let Some(table) = F::TABLE {
        bytes.0 = bytes.0.map(|code| table[usize::from(code & 15)].cast_unsigned());
    }
    if !F::SIGNS {
        return;
    }
    let signs = F::signs(&w);
    for (i, eight) in bytes.0.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        // Each sign fills a byte: the bits of a copy each, then carried to the top and down again.
        let copies = (u64::from(signs[i / 4] >> (8 * (i % 4)) & 255) * ONES) & 0x8040_2010_0804_0201;
        let negative = ((copies + 0x7f * ONES) >> 7 & ONES) * 255;
        let magnitudes = u64::from_le_bytes(*eight);
        // No byte borrows: the offset is no smaller than any magnitude.
        let above = u64::from(F::OFFSET) * ONES + (magnitudes & !negative);
        *eight = (above - (magnitudes & negative)).to_le_bytes();
    }
}

/// Implements what names the number of bytes of a step.
macro_rules! steps {
    ($bytes:literal) => {
        type Block = [u8; $bytes];
        const ZERO: Self::Block = [0; $bytes];

        #[inline(always)]
        fn split(row: &[u8]) -> (&[Self::Block], &[u8]) {
            row.as_chunks()
        }
    };
}

impl Unpack for Iq2Xxs {
    steps!(66);
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    const OFFSET: u8 = 64;
    const LARGEST: u8 = Self::OFFSET + 43;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, run) in w[2..].as_chunks::<8>().0.iter().enumerate() {
            for (k, index) in run[..4].iter().enumerate() {
                to.put_eight(4 * g + k, &grids::IQ2_XXS[usize::from(*index)]);
            }
        }
    }

    #[inline(always)]
    fn signs(w: &Self::Block) -> [u32; 8] {
        with_eighth_signs(spread_sevens(upper_words(w[2..].as_array().expect("64 bytes"))))
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        let words = upper_words(w[2..].as_array().expect("64 bytes"));
        odd_twice(words.map(|word| word >> 28), 0.125 * h.half_at([w[0], w[1]]))
    }
}

impl Unpack for Iq2Xs {
    steps!(74);
    const GROUP: usize = 16;
    const SIGNS: bool = true;
    const OFFSET: u8 = 64;
    const LARGEST: u8 = Self::OFFSET + 43;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, groups) in w[2..66].as_chunks::<8>().0.iter().enumerate() {
            for k in 0..4 {
                to.put_eight(4 * g + k, &grids::IQ2_XS[usize::from(half_word(groups, 2 * k) & 511)]);
            }
        }
    }

    #[inline(always)]
    fn signs(w: &Self::Block) -> [u32; 8] {
        // The upper seven bits of each half word.
        let mut sevens = [0; 32];
        for (seven, group) in sevens.iter_mut().zip(w[2..66].as_chunks::<2>().0) {
            *seven = group[1] >> 1;
        }
        let sevens = array::from_fn(|g| word(&sevens, 4 * g));
        with_eighth_signs(sevens)
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        odd([word(w, 66), word(w, 70)], 0.125 * h.half_at([w[0], w[1]]))
    }
}

impl Unpack for Iq2S {
    steps!(82);
    const GROUP: usize = 16;
    const SIGNS: bool = true;
    const OFFSET: u8 = 64;
    const LARGEST: u8 = Self::OFFSET + 43;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, (low, high)) in w[2..34].as_chunks::<4>().0.iter().zip(&w[66..74]).enumerate() {
            for (k, low) in low.iter().enumerate() {
                let high = usize::from(*high) << (8 - 2 * k) & 0x300;
                to.put_eight(4 * g + k, &grids::IQ2_S[usize::from(*low) | high]);
            }
        }
    }

    #[inline(always)]
    fn signs(w: &Self::Block) -> [u32; 8] {
        array::from_fn(|g| word(w, 34 + 4 * g))
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        odd([word(w, 74), word(w, 78)], 0.125 * h.half_at([w[0], w[1]]))
    }
}

impl Unpack for Iq3Xxs {
    steps!(98);
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    const OFFSET: u8 = 64;
    const LARGEST: u8 = Self::OFFSET + 62;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, indices) in w[2..66].as_chunks::<8>().0.iter().enumerate() {
            for (k, index) in indices.iter().enumerate() {
                to.put_four(8 * g + k, &grids::IQ3_XXS[usize::from(*index)]);
            }
        }
    }

    #[inline(always)]
    fn signs(w: &Self::Block) -> [u32; 8] {
        with_eighth_signs(spread_sevens(array::from_fn(|g| word(w, 66 + 4 * g))))
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        odd_twice(array::from_fn(|g| word(w, 66 + 4 * g) >> 28), 0.25 * h.half_at([w[0], w[1]]))
    }
}

impl Unpack for Iq3S {
    steps!(110);
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    const OFFSET: u8 = 16;
    const LARGEST: u8 = Self::OFFSET + 15;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, (low, high)) in w[2..66].as_chunks::<8>().0.iter().zip(&w[66..74]).enumerate() {
            for (k, low) in low.iter().enumerate() {
                let high = usize::from(*high) << (8 - k) & 0x100;
                to.put_four(8 * g + k, &grids::IQ3_S[usize::from(*low) | high]);
            }
        }
    }

    #[inline(always)]
    fn signs(w: &Self::Block) -> [u32; 8] {
        array::from_fn(|g| word(w, 74 + 4 * g))
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        let nibbles = word(w, 106);
        odd_twice(array::from_fn(|g| nibbles >> (4 * g) & 15), h.half_at([w[0], w[1]]))
    }
}

/// What the bytes of [`TERNARY`] are too large by: enough that a shift borrows nothing from the byte above.
pub(crate) const TERNARY_OFFSET: u8 = 16;
/// Eight times the values of the IQ1 codewords, plus 16: a shift of an eighth is 1 then.
pub(crate) static TERNARY: [[i8; 8]; 2048] = {
    let mut table = [[0; 8]; 2048];
    let mut i = 0;
    while i < 2048 {
        let mut k = 0;
        while k < 8 {
            table[i][k] = TERNARY_OFFSET.cast_signed() + 8 * grids::IQ1[i][k];
            k += 1;
        }
        i += 1;
    }
    table
};

/// A codeword plus `shift` in every byte.
#[inline(always)]
fn shifted(index: usize, shift: u64) -> [i8; 8] {
    let codeword = u64::from_le_bytes(TERNARY[index & 2047].map(i8::cast_unsigned));
    codeword.wrapping_add(shift).to_le_bytes().map(u8::cast_signed)
}

impl Unpack for Iq1S {
    steps!(50);
    const GROUP: usize = 32;
    const OFFSET: u8 = TERNARY_OFFSET;
    const LARGEST: u8 = Self::OFFSET + 9;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, low) in w[2..34].as_chunks::<4>().0.iter().enumerate() {
            let high = usize::from(half_word(w, 34 + 2 * g));
            let shift = if high >> 15 == 1 { ONES.wrapping_neg() } else { ONES };
            for (k, low) in low.iter().enumerate() {
                to.put_eight(4 * g + k, &shifted(usize::from(*low) | (high >> (3 * k) & 7) << 8, shift));
            }
        }
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        let scales = array::from_fn(|g| u32::from(half_word(w, 34 + 2 * g)) >> 12 & 7);
        odd_twice(scales, 0.125 * h.half_at([w[0], w[1]]))
    }
}

impl Unpack for Iq1M {
    steps!(56);
    const GROUP: usize = 16;
    const OFFSET: u8 = TERNARY_OFFSET;
    const LARGEST: u8 = Self::OFFSET + 9;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (g, low) in w[..32].as_chunks::<4>().0.iter().enumerate() {
            let high = usize::from(half_word(w, 32 + 2 * g));
            for (k, low) in low.iter().enumerate() {
                let own = high >> (4 * k);
                let shift = if own & 8 == 8 { ONES.wrapping_neg() } else { ONES };
                to.put_eight(4 * g + k, &shifted(usize::from(*low) | (own & 7) << 8, shift));
            }
        }
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        // The upper four bits of the four words are the block's scale.
        let words: [u16; 4] = array::from_fn(|i| half_word(w, 48 + 2 * i));
        let d = words[0] >> 12 | words[1] >> 12 << 4 | words[2] >> 12 << 8 | words[3] >> 12 << 12;
        let d = 0.125 * h.half_at(d.to_le_bytes());
        let mut scales = [0.0; 16];
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = d * f32::from(2 * (words[i / 4] >> (3 * (i % 4)) & 7) + 1);
        }
        scales
    }
}

impl Unpack for Tq10 {
    steps!(54);
    const GROUP: usize = 32;
    const ONE_SCALE: bool = true;
    const OFFSET: u8 = 1;
    const LARGEST: u8 = 2;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        digits::<32>(&w[..32], &mut to.0[..160]);
        digits::<16>(&w[32..48], &mut to.0[160..240]);
        digits::<4>(&w[48..52], &mut to.0[240..]);
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        [h.half_at([w[52], w[53]]); 16]
    }
}

/// Writes digit `k` of every byte to run `k`: a byte is a fraction in base 3, and times 3 its next digit is carried out.
#[inline(always)]
fn digits<const WIDTH: usize>(from: &[u8], to: &mut [u8]) {
    let mut fractions: [u8; WIDTH] = *from.as_array().expect("as many bytes as the run is wide");
    for run in to.as_chunks_mut::<WIDTH>().0 {
        for (digit, fraction) in run.iter_mut().zip(&mut fractions) {
            *digit = u8::from(*fraction >= 86) + u8::from(*fraction >= 171);
            *fraction = fraction.wrapping_mul(3);
        }
    }
}

/// What the values of E2M1 in a table are too large by.
const E2M1_OFFSET: u8 = 12;

impl Unpack for Nvfp4 {
    steps!(144);
    const GROUP: usize = 16;
    const OFFSET: u8 = E2M1_OFFSET;
    const LARGEST: u8 = 2 * E2M1_OFFSET;
    const TABLE: Option<[i8; 16]> = Some({
        let mut table = grids::E2M1_DOUBLED;
        let mut code = 0;
        while code < 16 {
            table[code] += E2M1_OFFSET.cast_signed();
            code += 1;
        }
        table
    });

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (i, run) in to.0.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let packed: &[u8; 8] = w[i / 4 * 36 + 4 + i % 4 * 8..][..8].as_array().expect("8 bytes");
            for k in 0..8 {
                (run[k], run[k + 8]) = (packed[k] & 15, packed[k] >> 4);
            }
        }
    }

    #[inline(always)]
    fn scales<H: Halves>(_: H, w: &Self::Block) -> [f32; 16] {
        array::from_fn(|i| grids::E4M3_HALVES[usize::from(w[i / 4 * 36 + i % 4])])
    }
}

impl Unpack for Q10 {
    steps!(36);
    const GROUP: usize = 32;
    const SIGNS: bool = true;
    const OFFSET: u8 = 1;
    const LARGEST: u8 = 2;

    #[inline(always)]
    fn unpack(_: &Self::Block, to: &mut Unpacked) {
        to.0 = [1; STEP];
    }

    #[inline(always)]
    fn signs(w: &Self::Block) -> [u32; 8] {
        array::from_fn(|g| !word(w, g / 4 * 18 + 2 + g % 4 * 4))
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        let d = [h.half_at([w[0], w[1]]), h.half_at([w[18], w[19]])];
        array::from_fn(|i| d[i / 8])
    }
}

impl Unpack for Q20 {
    steps!(72);
    const GROUP: usize = 32;
    const OFFSET: u8 = 1;
    const LARGEST: u8 = 3;

    #[inline(always)]
    fn unpack(w: &Self::Block, to: &mut Unpacked) {
        for (i, to) in to.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let byte = w[i / 16 * 18 + 2 + i % 16];
            *to = [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6];
        }
    }

    #[inline(always)]
    fn scales<H: Halves>(h: H, w: &Self::Block) -> [f32; 16] {
        let mut scales = [0.0; 16];
        for (scales, block) in scales.as_chunks_mut::<4>().0.iter_mut().zip(w.as_chunks::<18>().0) {
            *scales = [h.half_at([block[0], block[1]]); 4];
        }
        scales
    }
}

/// The little-endian word at `at`.
#[inline(always)]
fn word(w: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([w[at], w[at + 1], w[at + 2], w[at + 3]])
}

/// The little-endian half word at `at`.
#[inline(always)]
fn half_word(w: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([w[at], w[at + 1]])
}

/// The upper half of each of eight double words.
#[inline(always)]
fn upper_words(from: &[u8; 64]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(from.as_chunks().0) {
        *word = (u64::from_le_bytes(*bytes) >> 32) as u32;
    }
    words
}

/// Moves the four fields of seven bits of each word to a byte each.
#[inline(always)]
fn spread_sevens(mut words: [u32; 8]) -> [u32; 8] {
    for word in &mut words {
        *word = (*word & 0x3fff) | (*word & 0x0fff_c000) << 2;
        *word = (*word & 0x007f_007f) | (*word & 0x3f80_3f80) << 1;
    }
    words
}

/// Sets the eighth bit of bytes in which the number of bits is odd: [`grids::even_signs`] of each.
#[inline(always)]
fn with_eighth_signs(mut words: [u32; 8]) -> [u32; 8] {
    for word in &mut words {
        let pairs = *word ^ *word >> 4;
        let pairs = pairs ^ pairs >> 2;
        *word |= ((pairs ^ pairs >> 1) & 0x0101_0101) << 7;
    }
    words
}

/// Twice the sixteen nibbles plus 1, times `d`.
#[inline(always)]
fn odd(nibbles: [u32; 2], d: f32) -> [f32; 16] {
    let mut scales = [0.0; 16];
    for (scales, nibbles) in scales.as_chunks_mut::<8>().0.iter_mut().zip(nibbles) {
        for (i, scale) in scales.iter_mut().enumerate() {
            *scale = d * (2 * (nibbles >> (4 * i) & 15) + 1).cast_signed() as f32;
        }
    }
    scales
}

/// Twice eight numbers plus 1, times `d`, each for two groups of 16.
#[inline(always)]
fn odd_twice(numbers: [u32; 8], d: f32) -> [f32; 16] {
    let mut scales = [0.0; 8];
    for (scale, number) in scales.iter_mut().zip(numbers) {
        *scale = d * (2 * number + 1).cast_signed() as f32;
    }
    array::from_fn(|i| scales[i / 2])
}
