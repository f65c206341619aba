//! IQ3_S: 256 elements in groups of 4 from a grid of 512 magnitudes, a sign bit each, 4-bit scales of 32 elements.
//! Block: d f16, 64 lower bytes of the grid indices, 8 bytes of ninth bits, 32 bytes of signs, 4 bytes of two scales.

use crate::grids::IQ3_S;
use crate::layout::{f16_at, field, put_signed};

#[inline]
pub(crate) fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let low: &[u8; 64] = field::<2, _, _>(block);
    let high: &[u8; 8] = field::<66, _, _>(block);
    let signs: &[u8; 32] = field::<74, _, _>(block);
    let scales: &[u8; 4] = field::<106, _, _>(block);
    for (k, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let scale = scales[k / 16] >> (4 * (k / 8 % 2)) & 15;
        let scale = d * f32::from(1 + 2 * scale);
        let index = usize::from(low[k]) | usize::from(high[k / 8] >> (k % 8) & 1) << 8;
        put_signed(&IQ3_S[index], signs[k / 2] >> (4 * (k % 2)), scale, out);
    }
}
