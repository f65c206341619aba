//! Q4_K: 256 codes of 4 bits, with 6-bit scales and minima of 32 elements. Block: d f16, dmin f16, 12 bytes of scales
//! and minima, 4 runs of 32 bytes of two codes (the low halves are 32 elements, then the high halves).

use super::six_bit;
use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::search::affine;

#[inline]
pub(crate) fn decode(block: &[u8; 144], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let dmin = f16_at::<2, _>(block);
    let (scales, mins) = six_bit::unpack(field::<4, _, _>(block));
    let packed: &[u8; 128] = field::<16, _, _>(block);
    for (j, run) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let packed = &packed.as_chunks::<32>().0[j / 2];
        let scale = d * f32::from(scales[j]);
        let min = dmin * f32::from(mins[j]);
        for i in 0..32 {
            run[i] = scale * f32::from(packed[i] >> (4 * (j % 2)) & 15) - min;
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 144]) {
    let runs = x.as_chunks::<32>().0;
    let lines = affine::two_level::<32, 8>(runs, importance.map(|weights| weights.as_chunks().0), 15.0, 63.0);
    put_f16::<0, _>(out, lines.d);
    put_f16::<2, _>(out, lines.dmin);
    *field_mut::<4, _, _>(out) = six_bit::pack(&lines.scales, &lines.mins);
    let packed: &mut [u8; 128] = field_mut::<16, _, _>(out);
    for (j, packed) in packed.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let low = lines.line(2 * j).codes(&runs[2 * j], 15.0);
        let high = lines.line(2 * j + 1).codes(&runs[2 * j + 1], 15.0);
        *packed = std::array::from_fn(|i| low[i] | high[i] << 4);
    }
}
