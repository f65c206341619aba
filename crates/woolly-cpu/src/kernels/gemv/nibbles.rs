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
pub(super) const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

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
                let dot = O::dot2_u8(s, [low, high], [&x.v[0], &x.v[1]], half);
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
                let dot = O::dot2_u8(s, [low, high], [&x.v[0], &x.v[1]], half);
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
            let index = [s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles)];
            let d = s.halves::<18, 0, 4>(blocks);
            for c in 0..C {
                let x = &x[c].0;
                let dot = O::dot2_table(s, &NON_LINEAR, index, [&x.v[0], &x.v[1]], half);
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
            let weights = [s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles)];
            let weights = s.fifth_bits_of::<22, 2>(weights, blocks);
            let d = s.halves::<22, 0, 4>(blocks);
            for c in 0..C {
                let x = &x[c].0;
                let dot = O::dot2_u8(s, weights, [&x.v[0], &x.v[1]], half);
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
            let weights = [s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles)];
            let weights = s.fifth_bits_of::<24, 4>(weights, blocks);
            let (d, m) = (s.halves::<24, 0, 4>(blocks), s.halves::<24, 2, 4>(blocks));
            for c in 0..C {
                let x = &x[c].0;
                let dot = O::dot2_u8(s, weights, [&x.v[0], &x.v[1]], half);
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
        let powers = [w[0], w[17], w[34], w[51]].map(power_of_two);
        for half in (0..64).step_by(S::WIDTH) {
            let nibbles = s.pieces16::<17, 1>(&w[half / 16 * 17..]);
            let index = [s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles)];
            let d = s.fours(&powers[half / 16..]);
            for c in 0..C {
                let x = &x[c].0;
                let dot = O::dot2_table(s, &E2M1, index, [&x.v[0], &x.v[1]], half);
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
    const WORDS: bool = true;

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
        let scales = six_bits_less_32(u32::from_le_bytes([w[4], w[5], w[6], w[7]]), u16::from_le_bytes([w[2], w[3]]));
        let scales = scales.to_le_bytes().map(|scale| d * f32::from(scale.cast_signed()));
        for first in (0..128).step_by(S::WIDTH) {
            let (pair, half) = (first / 64, first % 64);
            let nibbles = s.bytes(&w[8 + first..]);
            let index = [s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles)];
            let d = s.fours(&scales[first / 16..]);
            for c in 0..C {
                let x = &x[c][pair].0;
                let dot = O::dot2_table(s, &NON_LINEAR, index, [&x.v[0], &x.v[1]], half);
                let scaled = with_offset(s, dot, &x.scale[half / 4..], &x.sum[half / 4..], O::signed_bias::<S>());
                sums[c] = s.mul_add(d, scaled, sums[c]);
            }
        }
    }
}

/// 2^(e − 128), of which the two smallest are subnormal.
#[inline(always)]
fn power_of_two(e: u8) -> f32 {
    let e = u32::from(e);
    f32::from_bits((e.max(1) - 1) << 23 | if e < 2 { 0x0020_0000 << e } else { 0 })
}

/// Eight bytes of six bits, less 32: the low four of each in `low`, the high two in `high`.
#[inline(always)]
pub(super) fn six_bits_less_32(low: u32, high: u16) -> u64 {
    let low = u64::from(low);
    let low = (low | low << 16) & 0x0000_ffff_0000_ffff;
    let low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
    let low = (low | low << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let high = u64::from(high);
    let high = (high | high << 24) & 0x0000_00ff_0000_00ff;
    let high = (high | high << 12) & 0x000f_000f_000f_000f;
    let high = (high | high << 6) & 0x0303_0303_0303_0303;
    // Bytes below 64: subtracting 32 with bit 7 set in advance borrows nothing from the next one; that bit is then undone.
    ((low | high << 4 | 0x8080_8080_8080_8080) - 0x2020_2020_2020_2020) ^ 0x8080_8080_8080_8080
}

/// Scales a lane's products and takes off what an offset of its weights has added.
#[inline(always)]
fn with_offset<S: Bytes>(s: S, dot: S::F, scale: &[f32], sum: &[f32], offset: f32) -> S::F {
    if offset == 0.0 {
        return s.mul(dot, s.load(scale));
    }
    s.mul_add(dot, s.load(scale), s.mul(s.splat(-offset), s.load(sum)))
}
