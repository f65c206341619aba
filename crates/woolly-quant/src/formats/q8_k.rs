//! Q8_K: 256 signed bytes times a binary32 scale. Block: d f32, 256 codes, the sums of every 16 codes as i16, which
//! integer dot products with the K-quants need. Decoding does not read the sums.

use crate::layout::{field, field_mut};
use crate::simple::of_largest_magnitude;

#[inline]
pub(crate) fn decode(block: &[u8; 292], out: &mut [f32; 256]) {
    let d = f32::from_le_bytes(*field::<0, _, _>(block));
    let codes: &[u8; 256] = field::<4, _, _>(block);
    for i in 0..256 {
        out[i] = d * f32::from(codes[i] as i8);
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], _: Option<&[f32; 256]>, out: &mut [u8; 292]) {
    let scale = -127.0 / of_largest_magnitude(x);
    *out = [0; 292];
    // Also true for magnitudes so small that their inverse overflows: they count as zero.
    if !scale.is_finite() {
        return;
    }
    let codes = x.map(|x| (scale * x).round_ties_even().min(127.0) as i8);
    *field_mut::<0, _, _>(out) = (1.0 / scale).to_le_bytes();
    *field_mut::<4, _, _>(out) = codes.map(|q| q as u8);
    let sums: &mut [u8; 32] = field_mut::<260, _, _>(out);
    for (run, sum) in codes.as_chunks::<16>().0.iter().zip(sums.as_chunks_mut::<2>().0) {
        *sum = run.iter().map(|&q| i16::from(q)).sum::<i16>().to_le_bytes();
    }
}
