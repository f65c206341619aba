//! TQ2_0: 256 ternary digits of 2 bits, times a scale. Block: 64 bytes of four digits (as in `Q2_K`), d f16.

use crate::layout::{f16_at, field, field_mut, pack_two_bits, put_f16, two_bits};
use crate::search::as_f16;
use crate::search::symmetric::{self, Integers};
use crate::simple::{inverse, largest_magnitude};

#[inline]
pub(crate) fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at::<64, _>(block);
    let codes = two_bits(field::<0, _, _>(block));
    for i in 0..256 {
        out[i] = d * (i32::from(codes[i]) - 1) as f32;
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 66]) {
    let (d, digits) = digits(x, importance);
    pack_two_bits(&digits, field_mut::<0, _, _>(out));
    put_f16::<64, _>(out, d);
}

/// The scale and the digits, 0 to 2, of `TQ1_0` and `TQ2_0`. Without weights they are those of the reference, which is
/// meant for values that are ternary already: the largest magnitude is the scale.
pub(super) fn digits(x: &[f32; 256], importance: Option<&[f32; 256]>) -> (f32, [u8; 256]) {
    type Codes = Integers<-1, 1>;
    match importance {
        None => {
            let d = largest_magnitude(x);
            let inverse = inverse(d);
            (d, x.map(|x| ((x * inverse).round() + 1.0) as u8))
        }
        Some(weights) => {
            let d = as_f16(symmetric::best_scale::<Codes, 256>(x, weights)).abs();
            (d, symmetric::codes::<Codes, 256>(x, d))
        }
    }
}
