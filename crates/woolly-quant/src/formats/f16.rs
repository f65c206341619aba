//! F16: IEEE binary16.

use crate::half::{f16_to_f32, f32_to_f16};

#[inline]
pub(crate) fn decode(block: &[u8; 2], [out]: &mut [f32; 1]) {
    *out = f16_to_f32(u16::from_le_bytes(*block));
}

#[inline(always)]
pub(crate) fn encode([value]: &[f32; 1], _: Option<&[f32; 1]>, out: &mut [u8; 2]) {
    *out = f32_to_f16(*value).to_le_bytes();
}
