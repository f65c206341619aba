//! Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL and MXFP4: blocks of 32 weights with a scale in front; and IQ4_XS, eight of them.

use super::driver::Format;
use super::input::{Of, Operand, Slot};
use super::{Input, driver};
use crate::isa::Bytes;

/// `(q − 8) · d`.
pub(super) struct Q40;
/// `q · d + m`.
pub(super) struct Q41;
/// Q4_0 and a fifth bit.
pub(super) struct Q50;
/// Q4_1 and a fifth bit.
pub(super) struct Q51;
/// `K[q] · d`.
pub(super) struct Iq4Nl;
/// `K[q] · d · scale` in blocks of 256.
pub(super) struct Iq4Xs;
/// `M[q]` times a power of two.
pub(super) struct Mxfp4;
/// Signed bytes.
pub(super) struct Q80;

/// The values of IQ4_NL and IQ4_XS.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of E2M1.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

impl Format for Q80 {
    type Block = [u8; 68];
    type Step<O: Operand> = Of<O, 1, 16>;
    const ZERO: Self::Block = [0; 68];

    driver::split!();
    driver::slot!(natural);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 1, 16>; C], sums: &mut [S::F; C]) {
        for half in (0..64).step_by(S::WIDTH) {
            let blocks = &w[half / 32 * 34..];
            let weights = s.pieces32::<34, 2>(blocks);
            let d = s.halves::<34, 0, 8>(blocks);
            for c in 0..C {
                let x = &x[c].0;
                let dot = O::dot_i8(s, weights, &x.v[0], half);
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], O::signed_bias::<S>());
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

impl Format for Q40 {
    type Block = [u8; 72];
    type Step<O: Operand> = Of<O, 2, 16>;
    const ZERO: Self::Block = [0; 72];

    driver::split!();
    driver::slot!(nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 2, 16>; C], sums: &mut [S::F; C]) {
        for half in (0..64).step_by(S::WIDTH) {
            let blocks = &w[half / 16 * 18..];
            let nibbles = s.pieces16::<18, 2>(blocks);
            let (low, high) = (s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles));
            let d = s.halves::<18, 0, 4>(blocks);
            for c in 0..C {
                let x = &x[c].0;
                let dot = s.add(O::dot_u8(s, low, &x.v[0], half), O::dot_u8(s, high, &x.v[1], half));
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], 8.0);
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

impl Format for Q41 {
    type Block = [u8; 80];
    type Step<O: Operand> = Of<O, 2, 16>;
    const ZERO: Self::Block = [0; 80];

    driver::split!();
    driver::slot!(nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 2, 16>; C], sums: &mut [S::F; C]) {
        for half in (0..64).step_by(S::WIDTH) {
            let blocks = &w[half / 16 * 20..];
            let nibbles = s.pieces16::<20, 4>(blocks);
            let (low, high) = (s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles));
            let (d, m) = (s.halves::<20, 0, 4>(blocks), s.halves::<20, 2, 4>(blocks));
            for c in 0..C {
                let x = &x[c].0;
                let dot = s.add(O::dot_u8(s, low, &x.v[0], half), O::dot_u8(s, high, &x.v[1], half));
                sums[c] = s.mul_add(s.mul(d, s.load(&x.scale[half / 4..])), dot, sums[c]);
                sums[c] = s.mul_add(m, s.load(&x.sum[half / 4..]), sums[c]);
            }
        }
    }
}

impl Format for Iq4Nl {
    type Block = [u8; 72];
    type Step<O: Operand> = Of<O, 2, 16>;
    const ZERO: Self::Block = [0; 72];

    driver::split!();
    driver::slot!(nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 2, 16>; C], sums: &mut [S::F; C]) {
        for half in (0..64).step_by(S::WIDTH) {
            let blocks = &w[half / 16 * 18..];
            let nibbles = s.pieces16::<18, 2>(blocks);
            let low = s.lookup(&NON_LINEAR, s.and(nibbles, s.splat_byte(15)));
            let high = s.lookup(&NON_LINEAR, s.high_nibbles(nibbles));
            let d = s.halves::<18, 0, 4>(blocks);
            for c in 0..C {
                let x = &x[c].0;
                let dot = s.add(O::dot_i8(s, low, &x.v[0], half), O::dot_i8(s, high, &x.v[1], half));
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], O::signed_bias::<S>());
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

impl Format for Q50 {
    type Block = [u8; 88];
    type Step<O: Operand> = Of<O, 2, 16>;
    const ZERO: Self::Block = [0; 88];

    driver::split!();
    driver::slot!(nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 2, 16>; C], sums: &mut [S::F; C]) {
        for half in (0..64).step_by(S::WIDTH) {
            let blocks = &w[half / 16 * 22..];
            let nibbles = s.pieces16::<22, 6>(blocks);
            let (low, high) = s.fifth_bits_of::<22, 2>(blocks);
            let low = s.or(s.and(nibbles, s.splat_byte(15)), low);
            let high = s.or(s.high_nibbles(nibbles), high);
            let d = s.halves::<22, 0, 4>(blocks);
            for c in 0..C {
                let x = &x[c].0;
                let dot = s.add(O::dot_u8(s, low, &x.v[0], half), O::dot_u8(s, high, &x.v[1], half));
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], 16.0);
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

impl Format for Q51 {
    type Block = [u8; 96];
    type Step<O: Operand> = Of<O, 2, 16>;
    const ZERO: Self::Block = [0; 96];

    driver::split!();
    driver::slot!(nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 2, 16>; C], sums: &mut [S::F; C]) {
        for half in (0..64).step_by(S::WIDTH) {
            let blocks = &w[half / 16 * 24..];
            let nibbles = s.pieces16::<24, 8>(blocks);
            let (low, high) = s.fifth_bits_of::<24, 4>(blocks);
            let low = s.or(s.and(nibbles, s.splat_byte(15)), low);
            let high = s.or(s.high_nibbles(nibbles), high);
            let (d, m) = (s.halves::<24, 0, 4>(blocks), s.halves::<24, 2, 4>(blocks));
            for c in 0..C {
                let x = &x[c].0;
                let dot = s.add(O::dot_u8(s, low, &x.v[0], half), O::dot_u8(s, high, &x.v[1], half));
                sums[c] = s.mul_add(s.mul(d, s.load(&x.scale[half / 4..])), dot, sums[c]);
                sums[c] = s.mul_add(m, s.load(&x.sum[half / 4..]), sums[c]);
            }
        }
    }
}

impl Format for Mxfp4 {
    type Block = [u8; 68];
    type Step<O: Operand> = Of<O, 2, 16>;
    const ZERO: Self::Block = [0; 68];

    driver::split!();
    driver::slot!(nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 2, 16>; C], sums: &mut [S::F; C]) {
        // 2^(e − 128), of which the two smallest are subnormal.
        let power = |e: u8| f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 });
        let powers: [f32; 4] = std::array::from_fn(|i| power(w[17 * i]));
        // An odd stride has no shuffle of words: the nibbles are brought together by plain copies.
        let mut together = [0; 64];
        for (i, piece) in together.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            piece.copy_from_slice(&w[17 * i + 1..17 * i + 17]);
        }
        for half in (0..64).step_by(S::WIDTH) {
            let nibbles = s.bytes(&together[half..]);
            let low = s.lookup(&E2M1, s.and(nibbles, s.splat_byte(15)));
            let high = s.lookup(&E2M1, s.high_nibbles(nibbles));
            let d = s.fours(&powers[half / 16..]);
            for c in 0..C {
                let x = &x[c].0;
                let dot = s.add(O::dot_i8(s, low, &x.v[0], half), O::dot_i8(s, high, &x.v[1], half));
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], O::signed_bias::<S>());
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

impl Format for Iq4Xs {
    type Block = [u8; 136];
    type Step<O: Operand> = [Of<O, 2, 16>; 2];
    const ZERO: Self::Block = [0; 136];

    driver::split!();
    driver::slot!(nibble_pairs);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(
        s: S,
        w: &Self::Block,
        x: [&[Of<O, 2, 16>; 2]; C],
        sums: &mut [S::F; C],
    ) {
        let d = s.half([w[0], w[1]]);
        let high_bits = u16::from_le_bytes([w[2], w[3]]);
        let scales: [f32; 8] = std::array::from_fn(|j| {
            let low = w[4 + j / 2] >> (4 * (j % 2)) & 15;
            let high = (high_bits >> (2 * j) & 3) as u8;
            d * (f32::from(low | high << 4) - 32.0)
        });
        for first in (0..128).step_by(S::WIDTH) {
            let (pair, half) = (first / 64, first % 64);
            let nibbles = s.bytes(&w[8 + first..]);
            let low = s.lookup(&NON_LINEAR, s.and(nibbles, s.splat_byte(15)));
            let high = s.lookup(&NON_LINEAR, s.high_nibbles(nibbles));
            let d = s.fours(&scales[first / 16..]);
            for c in 0..C {
                let x = &x[c][pair].0;
                let dot = s.add(O::dot_i8(s, low, &x.v[0], half), O::dot_i8(s, high, &x.v[1], half));
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], O::signed_bias::<S>());
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

/// Scales a lane's products and takes off what an offset of its weights has added.
#[inline(always)]
fn with_offset<S: Bytes>(s: S, dot: S::F, scale: &[f32], sum: &[f32], offset: f32) -> S::F {
    if offset == 0.0 {
        return s.mul(dot, s.load(scale));
    }
    s.mul_add(dot, s.load(scale), s.mul(s.splat(-offset), s.load(sum)))
}
