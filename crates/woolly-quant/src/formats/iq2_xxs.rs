//! IQ2_XXS: 256 elements in groups of 8 from a grid of 256 magnitudes, 7 sign bits a group, 4-bit scales of 32
//! elements. Block: d f16, then for each of 8 runs: 4 grid indices, and a u32 of four sign indices below the scale.

use crate::grids::{IQ2_XXS, even_signs};
use crate::layout::{f16_at, field, put_signed};

#[inline]
pub(crate) fn decode(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let runs: &[u8; 64] = field::<2, _, _>(block);
    for (out, run) in out.as_chunks_mut::<32>().0.iter_mut().zip(runs.as_chunks::<8>().0) {
        let indices: &[u8; 4] = field::<0, _, _>(run);
        let bits = u32::from_le_bytes(*field::<4, _, _>(run));
        let scale = d * (0.5 + (bits >> 28) as f32) * 0.25;
        for (k, group) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let signs = even_signs((bits >> (7 * k) & 127) as u8);
            put_signed(&IQ2_XXS[usize::from(indices[k])], signs, scale, group);
        }
    }
}
