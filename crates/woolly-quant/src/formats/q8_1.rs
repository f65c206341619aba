//! Q8_1: `Q8_0` with the sum of the decoded values, which integer dot products with `Q4_1` and `Q5_1` need. Block:
//! d f16, d times the sum of the codes as f16, 32 codes. Decoding does not read the sum.

use super::q8_0;
use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::simple::largest_magnitude;

#[inline]
pub(crate) fn decode(block: &[u8; 36], out: &mut [f32; 32]) {
    let d = f16_at::<0, _>(block);
    let codes: &[u8; 32] = field::<4, _, _>(block);
    for i in 0..32 {
        out[i] = f32::from(codes[i] as i8) * d;
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 32], _: Option<&[f32; 32]>, out: &mut [u8; 36]) {
    let d = largest_magnitude(x) / 127.0;
    let codes = q8_0::codes(x, d);
    let sum: i32 = codes.iter().map(|&q| i32::from(q)).sum();
    put_f16::<0, _>(out, d);
    put_f16::<2, _>(out, sum as f32 * d);
    *field_mut::<4, _, _>(out) = codes.map(|q| q as u8);
}
