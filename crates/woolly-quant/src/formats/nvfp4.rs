//! NVFP4: E2M1 numbers times unsigned E4M3 scales of 16 elements. Block: 4 scales, then 8 bytes of two codes for each.

use crate::grids::E2M1_DOUBLED;
use crate::layout::{field, field_mut};
use crate::search::or_uniform;
use crate::search::symmetric::{self, E2m1};
use crate::simple::largest_magnitude;

#[inline]
pub(crate) fn decode(block: &[u8; 36], out: &mut [f32; 64]) {
    let scales: &[u8; 4] = field::<0, _, _>(block);
    let packed: &[u8; 32] = field::<4, _, _>(block);
    for (s, (run, packed)) in out.as_chunks_mut::<16>().0.iter_mut().zip(packed.as_chunks::<8>().0).enumerate() {
        let d = half_scale(scales[s]);
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
        let codes = symmetric::codes::<E2m1, 16>(run, HALF_SCALES[scale]);
        let packed: &mut [u8; 32] = field_mut::<4, _, _>(out);
        packed.as_chunks_mut::<8>().0[s] = std::array::from_fn(|l| codes[l] | codes[l + 8] << 4);
        out[s] = scale as u8;
    }
}

/// The scales by their code, in ascending order, without the patterns that count as zero again.
const HALF_SCALES: [f32; 127] = {
    let mut scales = [0.0; 127];
    let mut code = 0;
    while code < 127 {
        scales[code] = half_scale(code as u8);
        code += 1;
    }
    scales
};

/// The code of the scale of least error. Tried are all that bring the largest magnitude to between 7/12 and 20/12 of
/// the largest value, or the nearest ones where there are none.
fn best_scale(x: &[f32; 16], w: &[f32; 16]) -> usize {
    let peak = largest_magnitude(x);
    let first = HALF_SCALES.partition_point(|&d| d < peak / 20.0).saturating_sub(1);
    let last = HALF_SCALES.partition_point(|&d| d <= peak / 7.0).min(126);
    first + symmetric::best_of::<E2m1, 16>(x, w, &HALF_SCALES[first..=last])
}

/// Half the value of an unsigned E4M3 number, because the table holds twice the values of E2M1. The pattern that is
/// NaN in OCP FP8 counts as zero, as in ggml; the sign bit is ignored.
#[inline(always)]
const fn half_scale(e4m3: u8) -> f32 {
    let exponent = e4m3 >> 3 & 15;
    let mantissa = (e4m3 & 7) as f32;
    match (exponent, e4m3) {
        (_, 0x7f) => 0.0,
        (0, _) => mantissa / 1024.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((exponent as u32 + 127 - 8) << 23),
    }
}
