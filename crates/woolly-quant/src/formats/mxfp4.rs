//! MXFP4: 32 E2M1 numbers times a power of two (OCP Microscaling Formats 1.0). Block: the exponent, 16 bytes of two
//! codes.

use crate::grids::E2M1_DOUBLED;
use crate::layout::{field, field_mut, nibbles, pack_nibbles};
use crate::simple::largest_magnitude;

#[inline]
pub(crate) fn decode(block: &[u8; 17], out: &mut [f32; 32]) {
    let d = half_scale(block[0]);
    let codes = nibbles(field::<1, _, _>(block));
    for i in 0..32 {
        out[i] = f32::from(E2M1_DOUBLED[usize::from(codes[i])]) * d;
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 32], _: Option<&[f32; 32]>, out: &mut [u8; 17]) {
    let exponent = exponent(largest_magnitude(x));
    let d = half_scale(exponent);
    out[0] = exponent;
    *field_mut::<1, _, _>(out) = pack_nibbles(&x.map(|x| nearest(x, d)));
}

/// 2^(e - 128): half of the scale of E8M0, because the table holds twice the values of E2M1.
#[inline(always)]
fn half_scale(e: u8) -> f32 {
    match e {
        0 | 1 => f32::from_bits(0x0020_0000 << e),
        _ => f32::from_bits(u32::from(e - 1) << 23),
    }
}

/// The exponent that brings `largest` to between 4 and 8, of which E2M1 holds 4 and 6.
fn exponent(largest: f32) -> u8 {
    if largest > 0.0 { (largest.log2().floor() - 2.0 + 127.0) as u8 } else { 0 }
}

/// The first code whose value is nearest to `x`.
fn nearest(x: f32, d: f32) -> u8 {
    let mut best = 0;
    let mut least = f32::INFINITY;
    for (code, &value) in (0..16).zip(&E2M1_DOUBLED) {
        let error = (f32::from(value) * d - x).abs();
        if error < least {
            (best, least) = (code, error);
        }
    }
    best
}
