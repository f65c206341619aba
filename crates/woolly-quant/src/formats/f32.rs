//! F32: IEEE binary32, stored as it is.

#[inline]
pub(crate) fn decode(block: &[u8; 4], [out]: &mut [f32; 1]) {
    *out = f32::from_le_bytes(*block);
}

#[inline(always)]
pub(crate) fn encode([value]: &[f32; 1], _: Option<&[f32; 1]>, out: &mut [u8; 4]) {
    *out = value.to_le_bytes();
}
