//! NVFP4: E2M1 numbers times unsigned E4M3 scales of 16 elements. Block: 4 scales, then 8 bytes of two codes for each.

use crate::grids::{E2M1_DOUBLED, E4M3_HALVES};
use crate::layout::{field, field_mut};
use crate::search::or_uniform;
use crate::search::symmetric::{self, E2m1};
use crate::simple::largest_magnitude;

#[inline]
pub(crate) fn decode(block: &[u8; 36], out: &mut [f32; 64]) {
    let scales: &[u8; 4] = field::<0, _, _>(block);
    let packed: &[u8; 32] = field::<4, _, _>(block);
    for (s, (run, packed)) in out.as_chunks_mut::<16>().0.iter_mut().zip(packed.as_chunks::<8>().0).enumerate() {
        let d = E4M3_HALVES[usize::from(scales[s])];
        for l in 0..8 {
            run[l] = d * f32::from(E2M1_DOUBLED[usize::from(packed[l] & 15)]);
            run[l + 8] = d * f32::from(E2M1_DOUBLED[usize::from(packed[l] >> 4)]);
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 64], importance: Option<&[f32; 64]>, out: &mut [u8; 36]) {
    let weights = or_uniform(importance);
    for (s, (run, w)) in x.as_chunks::<16>().0.iter().zip(weights.as_chunks::<16>().0).enumerate() {
        let scale = best_scale(run, w);
        let codes = symmetric::codes::<E2m1, 16>(run, E4M3_HALVES[scale]);
        let packed: &mut [u8; 32] = field_mut::<4, _, _>(out);
        packed.as_chunks_mut::<8>().0[s] = std::array::from_fn(|l| codes[l] | codes[l + 8] << 4);
        out[s] = scale as u8;
    }
}

/// The codes in ascending order of their scales end before the pattern that counts as zero again.
const ORDERED: usize = 127;

/// The code of the scale of least error. Tried are all that bring the largest magnitude to between 7/12 and 20/12 of
/// the largest value, or the nearest ones where there are none.
fn best_scale(x: &[f32; 16], w: &[f32; 16]) -> usize {
    let peak = largest_magnitude(x);
    let scales = &E4M3_HALVES[..ORDERED];
    let first = scales.partition_point(|&d| d < peak / 20.0).saturating_sub(1);
    let last = scales.partition_point(|&d| d <= peak / 7.0).min(ORDERED - 1);
    first + symmetric::best_of::<E2m1, 16>(x, w, &scales[first..=last])
}
