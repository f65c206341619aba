//! IQ4_XS: 256 codes of 4 bits into the table of `IQ4_NL`, with 6-bit scales of 32 elements. Block: d f16, the upper
//! 2 bits of the 8 scales as u16, their lower 4 bits in 4 bytes, 8 runs of 16 bytes of two codes.

use crate::grids::IQ4_NL;
use crate::layout::{f16_at, field, field_mut, nibbles, pack_nibbles, put_f16, u16_at};
use crate::search::symmetric::{self, Iq4};

#[inline]
pub(crate) fn decode(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = f16_at::<0, _>(block);
    let scales = scales(block);
    let packed: &[u8; 128] = field::<8, _, _>(block);
    for (j, (run, packed)) in out.as_chunks_mut::<32>().0.iter_mut().zip(packed.as_chunks().0).enumerate() {
        let d = d * f32::from(scales[j]);
        let codes = nibbles(packed);
        for i in 0..32 {
            run[i] = d * f32::from(IQ4_NL[usize::from(codes[i])]);
        }
    }
}

#[inline(always)]
pub(crate) fn encode(x: &[f32; 256], importance: Option<&[f32; 256]>, out: &mut [u8; 136]) {
    let runs = x.as_chunks::<32>().0;
    let found = symmetric::two_level::<Iq4, 32, 8>(runs, importance.map(|weights| weights.as_chunks().0), [-32, 31]);
    put_f16::<0, _>(out, found.d);
    put_scales(&found.scales, out);
    let packed: &mut [u8; 128] = field_mut::<8, _, _>(out);
    for (j, packed) in packed.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let scale = found.d * f32::from(found.scales[j]);
        *packed = pack_nibbles(&symmetric::codes::<Iq4, 32>(&runs[j], scale));
    }
}

/// The inverse of [`scales`].
fn put_scales(scales: &[i8; 8], out: &mut [u8; 136]) {
    let codes = scales.map(|scale| (scale + 32) as u8);
    let high = codes.iter().rev().fold(0_u16, |bits, code| bits << 2 | u16::from(code >> 4));
    *field_mut::<2, _, _>(out) = high.to_le_bytes();
    let low: &mut [u8; 4] = field_mut::<4, _, _>(out);
    *low = std::array::from_fn(|i| codes[2 * i] & 15 | codes[2 * i + 1] << 4);
}

/// The scales of the 8 runs, -32 to 31.
#[inline(always)]
fn scales(block: &[u8; 136]) -> [i8; 8] {
    let high = u16_at::<2, _>(block);
    let low: &[u8; 4] = field::<4, _, _>(block);
    std::array::from_fn(|j| {
        let low = low[j / 2] >> (4 * (j % 2)) & 15;
        let high = (high >> (2 * j) & 3) as u8;
        (low | high << 4) as i8 - 32
    })
}
