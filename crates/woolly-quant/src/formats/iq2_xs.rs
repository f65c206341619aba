//! IQ2_XS: 256 elements in groups of 8 from a grid of 512 magnitudes, 7 sign bits a group, 4-bit scales of 16
//! elements. Block: d f16, 32 u16 of a grid index below a sign index, 8 bytes of two scales.

use crate::grids::{IQ2_XS, even_signs};
use crate::layout::{f16_at, field, put_signed};

#[inline]
pub(crate) fn decode(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let groups: &[u8; 64] = field::<2, _, _>(block);
    let scales: &[u8; 8] = field::<66, _, _>(block);
    for (i, (out, group)) in out.as_chunks_mut::<8>().0.iter_mut().zip(groups.as_chunks::<2>().0).enumerate() {
        let scale = scales[i / 4] >> (4 * (i / 2 % 2)) & 15;
        let scale = d * (0.5 + f32::from(scale)) * 0.25;
        let group = u16::from_le_bytes(*group);
        put_signed(&IQ2_XS[usize::from(group & 511)], even_signs((group >> 9) as u8), scale, out);
    }
}
