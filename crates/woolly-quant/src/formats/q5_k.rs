//! Q5_K: 256 codes of 5 bits, with 6-bit scales and minima of 32 elements. Block: as `Q4_K`, with 32 bytes before the
//! codes whose bit j is the fifth bit of run j.

use super::six_bit;
use crate::layout::{f16_at, field};

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
