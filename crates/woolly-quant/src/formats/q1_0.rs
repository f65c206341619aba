//! Q1_0: 128 signs times a scale. Block: d f16, 16 bytes of 8 bits; a set bit is plus.

use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::search::or_uniform;

#[inline]
pub(crate) fn decode(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at::<0, _>(block);
    let bits: &[u8; 16] = field::<2, _, _>(block);
    for (run, bits) in out.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        for i in 0..8 {
            run[i] = if bits >> i & 1 == 1 { d } else { -d };
        }
    }
}

/// The mean magnitude is the scale of least error.
#[inline(always)]
pub(crate) fn encode(x: &[f32; 128], importance: Option<&[f32; 128]>, out: &mut [u8; 18]) {
    let weights = or_uniform(importance);
    let total: f32 = x.iter().zip(&weights).map(|(x, w)| w * x.abs()).sum();
    put_f16::<0, _>(out, total / weights.iter().sum::<f32>());
    let bits: &mut [u8; 16] = field_mut::<2, _, _>(out);
    for (bits, run) in bits.iter_mut().zip(x.as_chunks::<8>().0) {
        *bits = run.iter().rev().fold(0, |bits, &x| bits << 1 | u8::from(x >= 0.0));
    }
}
