//! TQ1_0: 256 ternary digits, five a byte, times a scale. Block: 48 bytes of five digits, 4 bytes of four, d f16.
//!
//! A byte holds the fraction 0.c0c1c2c3c4 in base 3, times 256 and rounded up: multiplying by 3 brings the next digit
//! above the binary point.

use super::tq2_0;
use crate::layout::{f16_at, field, field_mut, put_f16};

#[inline]
pub(crate) fn decode(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = f16_at::<52, _>(block);
    let (first, rest) = out.split_at_mut(160);
    let (second, third) = rest.split_at_mut(80);
    unpack(field::<0, 32, _>(block), d, first);
    unpack(field::<32, 16, _>(block), d, second);
    unpack(field::<48, 4, _>(block), d, third);
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 54]) {
    let (d, digits) = tq2_0::digits(x, importance);
    *field_mut::<0, _, _>(out) = pack::<32>(&digits[..160]);
    *field_mut::<32, _, _>(out) = pack::<16>(&digits[160..240]);
    *field_mut::<48, _, _>(out) = pack::<4>(&digits[240..]);
    put_f16::<52, _>(out, d);
}

/// Unpacks digit k of every byte to the k-th run of `WIDTH` values.
#[inline(always)]
fn unpack<const WIDTH: usize>(packed: &[u8; WIDTH], d: f32, out: &mut [f32]) {
    let mut fractions = *packed;
    for run in out.as_chunks_mut::<WIDTH>().0 {
        for i in 0..WIDTH {
            let digit = u16::from(fractions[i]) * 3;
            run[i] = d * (i32::from(digit >> 8) - 1) as f32;
            fractions[i] = digit as u8;
        }
    }
}

/// Packs the runs of `WIDTH` digits, each 0 to 2; absent runs count as zeros.
fn pack<const WIDTH: usize>(digits: &[u8]) -> [u8; WIDTH] {
    let (runs, _) = digits.as_chunks::<WIDTH>();
    std::array::from_fn(|i| {
        let number = (0..5).fold(0, |n, k| 3 * n + runs.get(k).map_or(0, |run| u16::from(run[i])));
        (number * 256).div_ceil(243) as u8
    })
}
