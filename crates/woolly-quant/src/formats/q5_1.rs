//! Q5_1: 32 codes of 5 bits times a scale, plus a minimum. Block: d f16, m f16, the fifth bits as u32, 16 bytes of two
//! codes.

use crate::half::F16_MAX;
use crate::layout::{f16_at, field, field_mut, five_bits, pack_five_bits, put_f16};
use crate::search::{affine, as_f16};
use crate::simple::{bounds, inverse};

#[inline]
pub(crate) fn decode(block: &[u8; 24], out: &mut [f32; 32]) {
    let d = f16_at::<0, _>(block);
    let m = f16_at::<2, _>(block);
    let codes = five_bits(field::<4, _, _>(block));
    for i in 0..32 {
        out[i] = f32::from(codes[i]) * d + m;
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 32], importance: Option<&[f32; 32]>, out: &mut [u8; 24]) {
    let (d, m, codes) = match importance {
        None => by_rule(x),
        Some(weights) => {
            let line = affine::best_line(x, weights, affine::Codes { highest: 31.0, positive: false });
            // Code 0 may lie outside the values, and then outside binary16; codes that are fitted to two elements alone may be
            // as far apart.
            let [scale, min] = [line.scale, line.min].map(|x| as_f16(x.clamp(-F16_MAX, F16_MAX)));
            let line = affine::Line { scale, min };
            (line.scale, -line.min, line.codes(x, 31.0))
        }
    };
    put_f16::<0, _>(out, d);
    put_f16::<2, _>(out, m);
    *field_mut::<4, _, _>(out) = pack_five_bits(&codes);
}

/// The encoding of the reference: the codes span the values.
fn by_rule(x: &[f32; 32]) -> (f32, f32, [u8; 32]) {
    let (min, max) = bounds(x);
    let d = (max - min) / 31.0;
    let inverse = inverse(d);
    (d, min, x.map(|x| (((x - min) * inverse + 0.5) as u8).min(31)))
}
