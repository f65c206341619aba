//! Q6_K: 256 codes of 6 bits about 32, with 8-bit scales of 16 elements. Block: 128 bytes of two lower halves, 64
//! bytes of four upper 2 bits, 16 signed scales, d f16.

use crate::layout::{f16_at, field, field_mut, put_f16};
use crate::search::symmetric::{self, Integers};

#[inline]
pub(crate) fn decode(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16_at::<208, _>(block);
    let scales: &[u8; 16] = field::<192, _, _>(block);
    let codes = codes(block);
    for (k, (run, codes)) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0).enumerate() {
        let scale = d * f32::from(scales[k] as i8);
        for i in 0..16 {
            run[i] = scale * (i32::from(codes[i]) - 32) as f32;
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 210]) {
    type Codes = Integers<-32, 31>;
    let runs = x.as_chunks::<16>().0;
    let found =
        symmetric::two_level::<Codes, 16, 16>(runs, importance.map(|weights| weights.as_chunks().0), [-128, 127]);
    let mut codes = [0; 256];
    for (j, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        *codes = symmetric::codes::<Codes, 16>(&runs[j], found.d * f32::from(found.scales[j]));
    }
    pack_codes(&codes, out);
    *field_mut::<192, _, _>(out) = found.scales.map(|scale| scale as u8);
    put_f16::<208, _>(out, found.d);
}

/// The inverse of [`codes`].
fn pack_codes(codes: &[u8; 256], out: &mut [u8; 210]) {
    let (runs, _) = codes.as_chunks::<32>();
    let low: &mut [u8; 128] = field_mut::<0, _, _>(out);
    for (k, low) in low.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let first = 4 * (k / 2) + k % 2;
        *low = std::array::from_fn(|i| runs[first][i] & 15 | runs[first + 2][i] << 4);
    }
    let high: &mut [u8; 64] = field_mut::<128, _, _>(out);
    for (half, high) in high.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        *high = std::array::from_fn(|i| (0..4).fold(0, |byte, j| byte | runs[4 * half + j][i] >> 4 << (2 * j)));
    }
}

/// The 256 codes, 0 to 63. Each half of the block has 4 runs of 32: the low halves of two runs of bytes, then their
/// high halves; run j takes the upper bits from place 2j.
#[inline(always)]
fn codes(block: &[u8; 210]) -> [u8; 256] {
    let low: &[u8; 128] = field::<0, _, _>(block);
    let high: &[u8; 64] = field::<128, _, _>(block);
    let mut codes = [0; 256];
    for (k, run) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (half, j) = (k / 4, k % 4);
        let low = &low.as_chunks::<32>().0[2 * half + j % 2];
        let high = &high.as_chunks::<32>().0[half];
        for i in 0..32 {
            run[i] = low[i] >> (4 * (j / 2)) & 15 | (high[i] >> (2 * j) & 3) << 4;
        }
    }
    codes
}
