//! IQ4_XS: 256 codes of 4 bits into the table of `IQ4_NL`, with 6-bit scales of 32 elements. Block: d f16, the upper
//! 2 bits of the 8 scales as u16, their lower 4 bits in 4 bytes, 8 runs of 16 bytes of two codes.

use crate::grids::IQ4_NL;
use crate::layout::{f16_at, field, nibbles, u16_at};

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
