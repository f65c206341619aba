//! Q3_K: 256 codes of 3 bits about 4, with 6-bit scales of 16 elements. Block: 32 bytes of third bits (set: no 4 is
//! taken off), 64 bytes of four lower halves, 12 bytes of scales, d f16.

use crate::layout::{f16_at, field, field_mut, pack_two_bits, put_f16, two_bits};
use crate::search::symmetric::{self, Integers};
use crate::search::{amplification, emphasised};

#[inline]
pub(crate) fn decode(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = f16_at::<108, _>(block);
    let scales = scales(field::<96, _, _>(block));
    let codes = codes(block);
    for (k, (run, codes)) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes.as_chunks::<16>().0).enumerate() {
        let scale = d * f32::from(scales[k]);
        for i in 0..16 {
            run[i] = scale * (i32::from(codes[i]) - 4) as f32;
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 110]) {
    type Codes = Integers<-4, 3>;
    let weights = emphasised(x, importance, 6.0);
    let runs = x.as_chunks::<16>().0;
    let found = symmetric::two_level::<Codes, 16, 16>(runs, Some(weights.as_chunks().0), [-32, 31]);
    let mut codes = [0; 256];
    for (j, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        *codes = symmetric::codes::<Codes, 16>(&runs[j], found.d * f32::from(found.scales[j]));
    }
    *field_mut::<0, _, _>(out) = third_bits(&codes);
    pack_two_bits(&codes.map(|code| code & 3), field_mut::<32, _, _>(out));
    *field_mut::<96, _, _>(out) = pack_scales(&found.scales);
    put_f16::<108, _>(out, found.d);
    let mut decoded = [0.0; 256];
    decode(out, &mut decoded);
    let by = amplification(x, importance, &decoded, 0.8);
    put_f16::<108, _>(out, by * f16_at::<108, _>(out));
}

/// Bit j of byte i is the third bit of element i of run j of 32.
fn third_bits(codes: &[u8; 256]) -> [u8; 32] {
    let (runs, _) = codes.as_chunks::<32>();
    std::array::from_fn(|i| (0..8).fold(0, |byte, j| byte | (runs[j][i] >> 2) << j))
}

/// The inverse of [`scales`].
fn pack_scales(scales: &[i8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for k in 0..16 {
        let scale = (scales[k] + 32) as u8;
        packed[k % 8] |= (scale & 15) << (4 * (k / 8));
        packed[8 + k % 4] |= (scale >> 4) << (2 * (k / 4));
    }
    packed
}

/// The 256 codes, 0 to 7.
#[inline(always)]
fn codes(block: &[u8; 110]) -> [u8; 256] {
    let high: &[u8; 32] = field::<0, _, _>(block);
    let mut codes = two_bits(field::<32, _, _>(block));
    for (bit, run) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for i in 0..32 {
            run[i] |= (high[i] >> bit & 1) << 2;
        }
    }
    codes
}

/// The scales of the 16 runs, -32 to 31.
#[inline(always)]
fn scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|k| {
        let low = packed[k % 8] >> (4 * (k / 8)) & 15;
        let high = packed[8 + k % 4] >> (2 * (k / 4)) & 3;
        (low | high << 4) as i8 - 32
    })
}
