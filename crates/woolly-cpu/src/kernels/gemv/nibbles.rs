//! Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL and Q8_0: blocks of 32 weights with a scale in front.

use super::driver::Format;
use super::input::{Of, Operand, Slot};
use super::{Input, driver};
use crate::isa::Bytes;

/// `(q − 8) · d`.
pub(super) struct Q40;
/// `q · d + m`.
pub(super) struct Q41;
/// `K[q] · d`.
pub(super) struct Iq4Nl;
/// Signed bytes.
pub(super) struct Q80;

/// The values of IQ4_NL and IQ4_XS.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

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

/// Scales a lane's products and takes off what an offset of its weights has added.
#[inline(always)]
fn with_offset<S: Bytes>(s: S, dot: S::F, scale: &[f32], sum: &[f32], offset: f32) -> S::F {
    if offset == 0.0 {
        return s.mul(dot, s.load(scale));
    }
    s.mul_add(dot, s.load(scale), s.mul(s.splat(-offset), s.load(sum)))
}
