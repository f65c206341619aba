//! IQ2_S: 256 elements in groups of 8 from a grid of 1024 magnitudes, 8 sign bits a group, 4-bit scales of 16
//! elements. Block: d f16, 32 lower bytes of the grid indices, 32 bytes of signs, 8 bytes of four upper 2 bits, 8
//! bytes of two scales.

use crate::grids::IQ2_S;
use crate::layout::{f16_at, field, put_signed};

#[inline]
pub(crate) fn decode(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let low: &[u8; 32] = field::<2, _, _>(block);
    let signs: &[u8; 32] = field::<34, _, _>(block);
    let high: &[u8; 8] = field::<66, _, _>(block);
    let scales: &[u8; 8] = field::<74, _, _>(block);
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = scales[i / 4] >> (4 * (i / 2 % 2)) & 15;
        let scale = d * (0.5 + f32::from(scale)) * 0.25;
        let index = usize::from(low[i]) | usize::from(high[i / 4] >> (2 * (i % 4)) & 3) << 8;
        put_signed(&IQ2_S[index], signs[i], scale, out);
    }
}
