//! Access to the fields of a block at offsets known at compile time, and the packings that several formats share.
//!
//! An offset outside the block does not compile, so the accessors cannot panic and leave no check in the machine code.

use crate::half::{f16_to_f32, f32_to_f16};

/// The `LEN` bytes from `AT` on.
#[inline(always)]
pub(crate) fn field<const AT: usize, const LEN: usize, const N: usize>(block: &[u8; N]) -> &[u8; LEN] {
    const { assert!(AT + LEN <= N, "the field lies outside the block") };
    block[AT..].first_chunk().expect("asserted at compile time")
}

/// The `LEN` bytes from `AT` on, to write to.
#[inline(always)]
pub(crate) fn field_mut<const AT: usize, const LEN: usize, const N: usize>(block: &mut [u8; N]) -> &mut [u8; LEN] {
    const { assert!(AT + LEN <= N, "the field lies outside the block") };
    block[AT..].first_chunk_mut().expect("asserted at compile time")
}

/// The little-endian `u16` at `AT`.
#[inline(always)]
pub(crate) fn u16_at<const AT: usize, const N: usize>(block: &[u8; N]) -> u16 {
    u16::from_le_bytes(*field::<AT, 2, N>(block))
}

/// The value of the binary16 number at `AT`.
#[inline(always)]
pub(crate) fn f16_at<const AT: usize, const N: usize>(block: &[u8; N]) -> f32 {
    f16_to_f32(u16_at::<AT, N>(block))
}

/// Stores `value` as binary16 at `AT`.
#[inline(always)]
pub(crate) fn put_f16<const AT: usize, const N: usize>(block: &mut [u8; N], value: f32) {
    *field_mut::<AT, 2, N>(block) = f32_to_f16(value).to_le_bytes();
}

/// Unpacks 32 codes of 4 bits: element i is the low half of byte i, element i + 16 its high half.
#[inline(always)]
pub(crate) fn nibbles(packed: &[u8; 16]) -> [u8; 32] {
    let mut codes = [0; 32];
    for i in 0..16 {
        codes[i] = packed[i] & 15;
        codes[i + 16] = packed[i] >> 4;
    }
    codes
}

/// The inverse of [`nibbles`], for codes below 16.
#[inline(always)]
pub(crate) fn pack_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] | codes[i + 16] << 4)
}

/// Packs codes below 16, two to a byte, the first in the low half.
#[inline(always)]
pub(crate) fn pack_pairs<const N: usize, const HALF: usize>(codes: &[u8; N]) -> [u8; HALF] {
    const { assert!(2 * HALF == N, "two codes make a byte") };
    std::array::from_fn(|i| codes[2 * i] | codes[2 * i + 1] << 4)
}

/// Unpacks 32 codes of 5 bits: a bit of a `u32` for each element, then the codes' lower halves as [`nibbles`].
#[inline(always)]
pub(crate) fn five_bits(packed: &[u8; 20]) -> [u8; 32] {
    let high = u32::from_le_bytes(*field::<0, _, _>(packed));
    let mut codes = nibbles(field::<4, _, _>(packed));
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((high >> i & 1) as u8) << 4;
    }
    codes
}

/// The inverse of [`five_bits`], for codes below 32.
#[inline(always)]
pub(crate) fn pack_five_bits(codes: &[u8; 32]) -> [u8; 20] {
    let high = codes.iter().rev().fold(0_u32, |bits, code| bits << 1 | u32::from(code >> 4));
    let mut packed = [0; 20];
    *field_mut::<0, _, _>(&mut packed) = high.to_le_bytes();
    *field_mut::<4, _, _>(&mut packed) = pack_nibbles(&codes.map(|code| code & 15));
    packed
}

/// Unpacks 256 codes of 2 bits. Each half of the block has 32 bytes, whose lowest 2 bits are its first 32 elements.
#[inline(always)]
pub(crate) fn two_bits(packed: &[u8; 64]) -> [u8; 256] {
    let mut codes = [0; 256];
    for (k, run) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let packed = &packed.as_chunks::<32>().0[k / 4];
        for i in 0..32 {
            run[i] = packed[i] >> (2 * (k % 4)) & 3;
        }
    }
    codes
}

/// The inverse of [`two_bits`], for codes below 4.
#[inline(always)]
pub(crate) fn pack_two_bits(codes: &[u8; 256], packed: &mut [u8; 64]) {
    let (runs, _) = codes.as_chunks::<32>();
    for (half, packed) in packed.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for i in 0..32 {
            packed[i] = (0..4).fold(0, |byte, j| byte | runs[4 * half + j][i] << (2 * j));
        }
    }
}

/// Writes the magnitudes of a codeword times `scale`; bit i of `signs` makes element i negative.
#[inline(always)]
pub(crate) fn put_signed<const WIDTH: usize>(word: &[i8; WIDTH], signs: u8, scale: f32, out: &mut [f32; WIDTH]) {
    for i in 0..WIDTH {
        let sign = if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
        out[i] = scale * f32::from(word[i]) * sign;
    }
}

/// Writes the values of a codeword, moved by `shift`, times `scale`.
#[inline(always)]
pub(crate) fn put_shifted(word: &[i8; 8], shift: f32, scale: f32, out: &mut [f32; 8]) {
    for i in 0..8 {
        out[i] = scale * (f32::from(word[i]) + shift);
    }
}
