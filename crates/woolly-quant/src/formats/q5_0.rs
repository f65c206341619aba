//! Q5_0: 32 codes of 5 bits about 16, times a scale. Block: d f16, the fifth bits as u32, 16 bytes of two codes.

use crate::layout::{f16_at, field, field_mut, five_bits, pack_five_bits, put_f16};
use crate::search::as_f16;
use crate::search::symmetric::{self, Integers};
use crate::simple::{inverse, of_largest_magnitude};

#[inline]
pub(crate) fn decode(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16_at::<0, _>(block);
    let codes = five_bits(field::<2, _, _>(block));
    for i in 0..32 {
        out[i] = (i32::from(codes[i]) - 16) as f32 * d;
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 32], importance: Option<&[f32; 32]>, out: &mut [u8; 22]) {
    let (d, codes) = match importance {
        None => by_rule(x),
        Some(weights) => {
            let d = as_f16(symmetric::best_scale::<Codes, 32>(x, weights));
            (d, symmetric::codes::<Codes, 32>(x, d))
        }
    };
    put_f16::<0, _>(out, d);
    *field_mut::<2, _, _>(out) = pack_five_bits(&codes);
}

type Codes = Integers<-16, 15>;

/// The encoding of the reference: the element of largest magnitude gets the code -16.
fn by_rule(x: &[f32; 32]) -> (f32, [u8; 32]) {
    let d = of_largest_magnitude(x) / -16.0;
    let inverse = inverse(d);
    (d, x.map(|x| ((x * inverse + 16.5) as u8).min(31)))
}
