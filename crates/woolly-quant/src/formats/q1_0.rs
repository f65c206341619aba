//! Q1_0: 128 signs times a scale. Block: d f16, 16 bytes of 8 bits; a set bit is plus.

use crate::layout::{f16_at, field};

#[inline]
pub(crate) fn decode(block: &[u8; 18], out: &mut [f32; 128]) {
    let d = f16_at::<0, _>(block);
    let bits: &[u8; 16] = field::<2, _, _>(block);
    for (run, bits) in out.as_chunks_mut::<8>().0.iter_mut().zip(bits) {
        for i in 0..8 {
            run[i] = if bits >> i & 1 == 1 { d } else { -d };
        }
    }
}
