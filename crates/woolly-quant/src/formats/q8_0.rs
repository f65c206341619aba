//! Q8_0: 32 signed bytes times a scale. Block: d f16, 32 codes.

use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::simple::{inverse, largest_magnitude};

#[inline]
pub(crate) fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at::<0, _>(block);
    let codes: &[u8; 32] = field::<2, _, _>(block);
    for i in 0..32 {
        out[i] = f32::from(codes[i] as i8) * d;
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 32], _: Option<&[f32; 32]>, out: &mut [u8; 34]) {
    let d = largest_magnitude(x) / 127.0;
    put_f16::<0, _>(out, d);
    *field_mut::<2, _, _>(out) = codes(x, d).map(|q| q as u8);
}

/// The codes of `x` for scale `d`, which is not yet rounded to binary16; `Q8_1` has the same.
pub(super) fn codes(x: &[f32; 32], d: f32) -> [i8; 32] {
    let inverse = inverse(d);
    x.map(|x| (x * inverse).round() as i8)
}
