//! Q5_K: 256 codes of 5 bits, with 6-bit scales and minima of 32 elements. Block: as `Q4_K`, with 32 bytes before the
//! codes whose bit j is the fifth bit of run j.

use super::six_bit;
use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::search::affine;

#[inline]
pub(crate) fn decode(block: &[u8; 176], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let dmin = f16_at::<2, _>(block);
    let (scales, mins) = six_bit::unpack(field::<4, _, _>(block));
    let high: &[u8; 32] = field::<16, _, _>(block);
    let packed: &[u8; 128] = field::<48, _, _>(block);
    for (j, run) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let packed = &packed.as_chunks::<32>().0[j / 2];
        let scale = d * f32::from(scales[j]);
        let min = dmin * f32::from(mins[j]);
        for i in 0..32 {
            let code = packed[i] >> (4 * (j % 2)) & 15 | (high[i] >> j & 1) << 4;
            run[i] = scale * f32::from(code) - min;
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 176]) {
    let runs = x.as_chunks::<32>().0;
    let lines = affine::two_level::<32, 8>(runs, importance.map(|weights| weights.as_chunks().0), 31.0, 63.0);
    let codes: [[u8; 32]; 8] = std::array::from_fn(|j| lines.line(j).codes(&runs[j], 31.0));
    put_f16::<0, _>(out, lines.d);
    put_f16::<2, _>(out, lines.dmin);
    *field_mut::<4, _, _>(out) = six_bit::pack(&lines.scales, &lines.mins);
    let high: &mut [u8; 32] = field_mut::<16, _, _>(out);
    *high = std::array::from_fn(|i| (0..8).fold(0, |byte, j| byte | (codes[j][i] >> 4) << j));
    let packed: &mut [u8; 128] = field_mut::<48, _, _>(out);
    for (packed, pair) in packed.as_chunks_mut::<32>().0.iter_mut().zip(codes.as_chunks::<2>().0) {
        *packed = std::array::from_fn(|i| pair[0][i] & 15 | pair[1][i] << 4);
    }
}
