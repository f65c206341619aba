//! IQ4_NL: 32 codes of 4 bits into a table of 16 values, times a scale. Block: as `Q4_0`.

use crate::grids::IQ4_NL;
use crate::layout::{f16_at, field, nibbles};

#[inline]
pub(crate) fn decode(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16_at::<0, _>(block);
    let codes = nibbles(field::<2, _, _>(block));
    for i in 0..32 {
        out[i] = d * f32::from(IQ4_NL[usize::from(codes[i])]);
    }
}
