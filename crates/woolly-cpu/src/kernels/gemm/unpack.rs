//! Integer forms of the tensor types: each block as unsigned bytes, with a scale and perhaps a minimum a group.
//!
//! An element is `scale · (byte − offset) + minimum`. The loops are plain Rust that compilers vectorise; they inline into
//! [`super::super::simd::dispatch`]. Layouts: the formats of `woolly-quant`, which are the oracle of the tests here.

use woolly_quant::TensorType;
use woolly_quant::half::f16_to_f32;

/// Elements unpacked at once: the block of the K-quants, or eight blocks of 32.
pub(super) const PIECE: usize = 256;

/// How a type's integers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Elements that share a scale: 16 or 32.
    pub(super) group: usize,
    /// Subtracted from every byte.
    pub(super) offset: u8,
    /// Whether groups have a minimum.
    pub(super) minimum: bool,
}

/// Up to [`PIECE`] elements of one row.
#[repr(C, align(64))]
pub(super) struct Piece {
    pub(super) bytes: [u8; PIECE],
    pub(super) scales: [f32; 16],
    pub(super) minimums: [f32; 16],
}

impl Piece {
    pub(super) const ZERO: Self = Self { bytes: [0; PIECE], scales: [0.0; 16], minimums: [0.0; 16] };
}

/// Returns the integer form of `ty`, or `None` when it has none here and is multiplied as `f32`.
pub(super) const fn form(ty: TensorType) -> Option<Form> {
    let (group, offset, minimum) = match ty {
        TensorType::Q4_0 => (32, 8, false),
        TensorType::Q5_0 => (32, 16, false),
        TensorType::Q8_0 | TensorType::IQ4_NL | TensorType::IQ4_XS => (32, 128, false),
        TensorType::MXFP4 => (32, 12, false),
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => (32, 0, true),
        TensorType::Q2_K => (16, 0, true),
        TensorType::Q3_K => (16, 4, false),
        TensorType::Q6_K => (16, 32, false),
        _ => return None,
    };
    Some(Form { group, offset, minimum })
}

/// Returns a bound on the bytes that `ty` is unpacked to.
pub(super) const fn largest(ty: TensorType) -> u8 {
    match ty {
        TensorType::Q2_K => 3,
        TensorType::Q3_K => 7,
        TensorType::Q4_0 | TensorType::Q4_1 | TensorType::Q4_K => 15,
        TensorType::MXFP4 => 24,
        TensorType::Q5_0 | TensorType::Q5_1 | TensorType::Q5_K => 31,
        TensorType::Q6_K => 63,
        _ => u8::MAX,
    }
}

/// Unpacks whole blocks of `ty`, at most [`PIECE`] elements; the rest of `piece` keeps its contents.
#[inline(always)]
pub(super) fn unpack(ty: TensorType, blocks: &[u8], piece: &mut Piece) {
    match ty {
        TensorType::Q4_0 => each_32::<18>(blocks, piece, |b, q| (nibbles(&b[2..], q), half(b, 0), 0.0)),
        TensorType::Q4_1 => each_32::<20>(blocks, piece, |b, q| (nibbles(&b[4..], q), half(b, 0), half(b, 2))),
        TensorType::Q5_0 => each_32::<22>(blocks, piece, |b, q| (fives(&b[2..], q), half(b, 0), 0.0)),
        TensorType::Q5_1 => each_32::<24>(blocks, piece, |b, q| (fives(&b[4..], q), half(b, 0), half(b, 2))),
        TensorType::Q8_0 => each_32::<34>(blocks, piece, |b, q| (flipped(&b[2..], q), half(b, 0), 0.0)),
        TensorType::IQ4_NL => each_32::<18>(blocks, piece, |b, q| (looked_up(&b[2..], &KVALUES, q), half(b, 0), 0.0)),
        TensorType::MXFP4 => {
            each_32::<17>(blocks, piece, |b, q| (looked_up(&b[1..], &E2M1, q), power_of_two(b[0]), 0.0));
        }
        TensorType::Q2_K => q2_k(blocks, piece),
        TensorType::Q3_K => q3_k(blocks, piece),
        TensorType::Q4_K => q4_k(blocks, piece),
        TensorType::Q5_K => q5_k(blocks, piece),
        TensorType::Q6_K => q6_k(blocks, piece),
        TensorType::IQ4_XS => iq4_xs(blocks, piece),
        _ => {}
    }
}

/// `K[q] + 128` of IQ4_NL and IQ4_XS.
pub(super) const KVALUES: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Twice the E2M1 values, plus 12.
pub(super) const E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Returns `2^(e − 128)`, the subnormal powers included.
#[inline(always)]
fn power_of_two(e: u8) -> f32 {
    let e = u32::from(e);
    f32::from_bits(if e >= 2 { (e - 1) << 23 } else { 0x0020_0000 << e })
}

/// Unpacks blocks of 32 elements in `BYTES` bytes; `one` fills the elements and returns scale and minimum.
#[inline(always)]
fn each_32<const BYTES: usize>(
    blocks: &[u8],
    piece: &mut Piece,
    one: impl Fn(&[u8; BYTES], &mut [u8; 32]) -> ((), f32, f32),
) {
    let (elements, _) = piece.bytes.as_chunks_mut::<32>();
    for (g, (block, q)) in blocks.as_chunks::<BYTES>().0.iter().zip(elements).enumerate() {
        ((), piece.scales[g], piece.minimums[g]) = one(block, q);
    }
}

#[inline(always)]
fn nibbles(qs: &[u8], q: &mut [u8; 32]) {
    for i in 0..16 {
        q[i] = qs[i] & 15;
        q[16 + i] = qs[i] >> 4;
    }
}

#[inline(always)]
fn fives(qs: &[u8], q: &mut [u8; 32]) {
    let high = u32::from_le_bytes([qs[0], qs[1], qs[2], qs[3]]);
    nibbles(&qs[4..], q);
    for (i, q) in q.iter_mut().enumerate() {
        *q |= (((high >> i) & 1) << 4) as u8;
    }
}

#[inline(always)]
fn flipped(qs: &[u8], q: &mut [u8; 32]) {
    for (q, &s) in q.iter_mut().zip(qs) {
        *q = s ^ 0x80;
    }
}

#[inline(always)]
fn looked_up(qs: &[u8], table: &[u8; 16], q: &mut [u8; 32]) {
    for i in 0..16 {
        q[i] = table[usize::from(qs[i] & 15)];
        q[16 + i] = table[usize::from(qs[i] >> 4)];
    }
}

#[inline(always)]
fn q2_k(blocks: &[u8], piece: &mut Piece) {
    let Some(block) = blocks.first_chunk::<84>() else { return };
    let (d, minimum) = (half(block, 80), half(block, 82));
    for (g, &s) in block[..16].iter().enumerate() {
        piece.scales[g] = d * f32::from(s & 15);
        piece.minimums[g] = -(minimum * f32::from(s >> 4));
    }
    for (n, half) in piece.bytes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let qs = &block[16 + 32 * n..48 + 32 * n];
        for l in 0..32 {
            half[l] = qs[l] & 3;
            half[32 + l] = (qs[l] >> 2) & 3;
            half[64 + l] = (qs[l] >> 4) & 3;
            half[96 + l] = qs[l] >> 6;
        }
    }
}

#[inline(always)]
fn q3_k(blocks: &[u8], piece: &mut Piece) {
    let Some(block) = blocks.first_chunk::<110>() else { return };
    let d = half(block, 108);
    let packed = &block[96..108];
    for k in 0..16 {
        let low = if k < 8 { packed[k] & 15 } else { packed[k - 8] >> 4 };
        let high = (packed[8 + k % 4] >> (2 * (k / 4))) & 3;
        piece.scales[k] = d * f32::from((low | (high << 4)) as i8 - 32);
    }
    let mask = &block[..32];
    for (n, half) in piece.bytes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let qs = &block[32 + 32 * n..64 + 32 * n];
        for (j, quarter) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for l in 0..32 {
                let high = (mask[l] >> (4 * n + j)) & 1;
                quarter[l] = ((qs[l] >> (2 * j)) & 3) | (high << 2);
            }
        }
    }
}

/// Sets scales and minimums from the twelve bytes that Q4_K and Q5_K pack eight pairs of 6-bit numbers into.
///
/// One by one: four at a time in a 32-bit integer halved the speed at 16 rows, for the bytes then go through memory.
#[inline(always)]
fn six_bit_pairs(d: f32, minimum: f32, packed: &[u8], piece: &mut Piece) {
    for j in 0..4 {
        let (a, b, c) = (packed[j], packed[j + 4], packed[j + 8]);
        piece.scales[j] = d * f32::from(a & 63);
        piece.minimums[j] = -(minimum * f32::from(b & 63));
        piece.scales[j + 4] = d * f32::from((c & 15) | ((a >> 6) << 4));
        piece.minimums[j + 4] = -(minimum * f32::from((c >> 4) | ((b >> 6) << 4)));
    }
}

#[inline(always)]
fn q4_k(blocks: &[u8], piece: &mut Piece) {
    let Some(block) = blocks.first_chunk::<144>() else { return };
    six_bit_pairs(half(block, 0), half(block, 2), &block[4..16], piece);
    for (j, pair) in piece.bytes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let qs = &block[16 + 32 * j..48 + 32 * j];
        for l in 0..32 {
            pair[l] = qs[l] & 15;
            pair[32 + l] = qs[l] >> 4;
        }
    }
}

#[inline(always)]
fn q5_k(blocks: &[u8], piece: &mut Piece) {
    let Some(block) = blocks.first_chunk::<176>() else { return };
    six_bit_pairs(half(block, 0), half(block, 2), &block[4..16], piece);
    let high = &block[16..48];
    for (j, pair) in piece.bytes.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let qs = &block[48 + 32 * j..80 + 32 * j];
        for l in 0..32 {
            let bits = high[l] >> (2 * j);
            pair[l] = (qs[l] & 15) | ((bits & 1) << 4);
            pair[32 + l] = (qs[l] >> 4) | ((bits & 2) << 3);
        }
    }
}

#[inline(always)]
fn q6_k(blocks: &[u8], piece: &mut Piece) {
    let Some(block) = blocks.first_chunk::<210>() else { return };
    let d = half(block, 208);
    for (scale, &s) in piece.scales.iter_mut().zip(&block[192..208]) {
        *scale = d * f32::from(s as i8);
    }
    for (n, half) in piece.bytes.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        let (low, high) = (&block[64 * n..64 * n + 64], &block[128 + 32 * n..160 + 32 * n]);
        for l in 0..32 {
            half[l] = (low[l] & 15) | ((high[l] & 3) << 4);
            half[32 + l] = (low[32 + l] & 15) | ((high[l] & 12) << 2);
            half[64 + l] = (low[l] >> 4) | (high[l] & 48);
            half[96 + l] = (low[32 + l] >> 4) | ((high[l] >> 6) << 4);
        }
    }
}

#[inline(always)]
fn iq4_xs(blocks: &[u8], piece: &mut Piece) {
    let Some(block) = blocks.first_chunk::<136>() else { return };
    let d = half(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (j, q) in piece.bytes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = (block[4 + j / 2] >> (4 * (j % 2))) & 15;
        let scale = low | ((((high >> (2 * j)) & 3) as u8) << 4);
        piece.scales[j] = d * f32::from(scale as i8 - 32);
        looked_up(&block[8 + 16 * j..24 + 16 * j], &KVALUES, q);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::{blocks, noise};

    #[test]
    fn every_integer_form_means_what_the_codec_says() {
        let mut seen = 0;
        for &ty in TensorType::ALL {
            let Some(form) = form(ty) else { continue };
            seen += 1;
            let bytes = blocks(ty, PIECE, 1, 7);
            let mut expected = [0.0; PIECE];
            ty.decode(&bytes, &mut expected).unwrap();
            let mut piece = Piece::ZERO;
            unpack(ty, &bytes, &mut piece);
            for (e, &want) in expected.iter().enumerate() {
                let g = e / form.group;
                assert!(piece.bytes[e] <= largest(ty), "{ty}: {} above the largest", piece.bytes[e]);
                let q = i32::from(piece.bytes[e]) - i32::from(form.offset);
                let found = piece.scales[g] * q as f32 + if form.minimum { piece.minimums[g] } else { 0.0 };
                assert!((found - want).abs() <= want.abs() * 1e-6, "{ty} element {e}: {found}, codec {want}");
            }
        }
        assert!(seen >= 13, "only {seen} types have an integer form");
    }

    #[test]
    fn powers_of_two_reach_down_to_subnormals() {
        for e in 0..=254_u8 {
            let bytes: Vec<u8> = std::iter::once(e).chain([0x22; 16]).collect();
            let mut expected = [0.0; 32];
            TensorType::MXFP4.decode(&bytes, &mut expected).unwrap();
            assert_eq!(power_of_two(e) * 2.0, expected[0], "exponent {e}");
        }
    }

    #[test]
    fn fewer_blocks_than_a_piece_leave_the_rest_alone() {
        let mut piece = Piece::ZERO;
        piece.bytes[64] = 99;
        unpack(TensorType::Q8_0, &blocks(TensorType::Q8_0, 64, 1, 3), &mut piece);
        assert!(piece.bytes[64] == 99 && piece.scales[2] == 0.0 && noise(1, 1)[0] != 0.0);
    }
}
