//! Q2_K: 256 codes of 2 bits, with 4-bit scales and minima of 16 elements. Block: 16 bytes of a scale and a minimum,
//! 64 bytes of four codes, d f16, dmin f16.

use crate::layout::{f16_at, field, field_mut, pack_two_bits, put_f16, two_bits};
use crate::search::{affine, amplification, emphasised};

#[inline]
pub(crate) fn decode(block: &[u8; 84], out: &mut [f32; 256]) {
    let scales: &[u8; 16] = field::<0, _, _>(block);
    let d = f16_at::<80, _>(block);
    let dmin = f16_at::<82, _>(block);
    let codes = two_bits(field::<16, _, _>(block));
    for (k, (run, codes)) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0).enumerate() {
        let scale = d * f32::from(scales[k] & 15);
        let min = dmin * f32::from(scales[k] >> 4);
        for i in 0..16 {
            run[i] = scale * f32::from(codes[i]) - min;
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 84]) {
    let weights = emphasised(x, importance, 1.0);
    let runs = x.as_chunks::<16>().0;
    let lines = affine::two_level::<16, 16>(runs, Some(weights.as_chunks().0), 3.0, 15.0);
    let mut codes = [0; 256];
    for (j, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        *codes = lines.line(j).codes(&runs[j], 3.0);
        out[j] = lines.scales[j] | lines.mins[j] << 4;
    }
    pack_two_bits(&codes, field_mut::<16, _, _>(out));
    put_f16::<80, _>(out, lines.d);
    put_f16::<82, _>(out, lines.dmin);
    let mut decoded = [0.0; 256];
    decode(out, &mut decoded);
    let by = amplification(x, importance, &decoded, 0.6);
    put_f16::<80, _>(out, by * f16_at::<80, _>(out));
    put_f16::<82, _>(out, by * f16_at::<82, _>(out));
}
