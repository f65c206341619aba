//! Q2_0: 64 codes of 2 bits about 1, times a scale. Block: d f16, 16 bytes of four codes.

use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::search::symmetric::{self, Integers};
use crate::search::{as_f16, or_uniform};

#[inline]
pub(crate) fn decode(block: &[u8; 18], out: &mut [f32; 64]) {
    let d = f16_at::<0, _>(block);
    let packed: &[u8; 16] = field::<2, _, _>(block);
    for (run, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
        for i in 0..4 {
            run[i] = (i32::from(byte >> (2 * i) & 3) - 1) as f32 * d;
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 64], importance: Option<&[f32; 64]>, out: &mut [u8; 18]) {
    type Codes = Integers<-1, 2>;
    let d = as_f16(symmetric::best_scale::<Codes, 64>(x, &or_uniform(importance)));
    put_f16::<0, _>(out, d);
    let codes = symmetric::codes::<Codes, 64>(x, d);
    let packed: &mut [u8; 16] = field_mut::<2, _, _>(out);
    for (byte, [a, b, c, d]) in packed.iter_mut().zip(codes.as_chunks::<4>().0) {
        *byte = a | b << 2 | c << 4 | d << 6;
    }
}
