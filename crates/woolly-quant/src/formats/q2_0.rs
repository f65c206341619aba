//! Q2_0: 64 codes of 2 bits about 1, times a scale. Block: d f16, 16 bytes of four codes.

use crate::layout::{f16_at, field};

#[inline]
pub(crate) fn decode(block: &[u8; 18], out: &mut [f32; 64]) {
    let d = f16_at::<0, _>(block);
    let packed: &[u8; 16] = field::<2, _, _>(block);
    for (run, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
        for i in 0..4 {
            run[i] = (i32::from(byte >> (2 * i) & 3) - 1) as f32 * d;
        }
    }
}
