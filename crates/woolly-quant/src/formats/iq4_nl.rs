//! IQ4_NL: 32 codes of 4 bits into a table of 16 values, times a scale. Block: as `Q4_0`.

use crate::grids::IQ4_NL;
use crate::layout::{f16_at, field, field_mut, nibbles, pack_nibbles, put_f16};
use crate::search::symmetric::{self, Iq4};
use crate::search::{as_f16, or_uniform};

#[inline]
pub(crate) fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at::<0, _>(block);
    let codes = nibbles(field::<2, _, _>(block));
    for i in 0..32 {
        out[i] = d * f32::from(IQ4_NL[usize::from(codes[i])]);
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 32], importance: Option<&[f32; 32]>, out: &mut [u8; 18]) {
    let d = as_f16(symmetric::best_scale::<Iq4, 32>(x, &or_uniform(importance)));
    put_f16::<0, _>(out, d);
    *field_mut::<2, _, _>(out) = pack_nibbles(&symmetric::codes::<Iq4, 32>(x, d));
}
