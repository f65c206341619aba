//! NVFP4: E2M1 numbers times unsigned E4M3 scales of 16 elements. Block: 4 scales, then 8 bytes of two codes for each.

use crate::grids::E2M1_DOUBLED;
use crate::layout::field;

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

/// Half the value of an unsigned E4M3 number, because the table holds twice the values of E2M1. The pattern that is
/// NaN in OCP FP8 counts as zero, as in ggml; the sign bit is ignored.
#[inline(always)]
fn half_scale(e4m3: u8) -> f32 {
    let exponent = e4m3 >> 3 & 15;
    let mantissa = f32::from(e4m3 & 7);
    match (exponent, e4m3) {
        (_, 0x7f) => 0.0,
        (0, _) => mantissa / 1024.0,
        _ => (1.0 + mantissa / 8.0) * f32::from_bits(u32::from(exponent + 127 - 8) << 23),
    }
}
