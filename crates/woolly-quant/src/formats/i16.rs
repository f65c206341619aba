//! I16: signed 16-bit integers. Decode only, as `I8`.

#[inline]
pub(crate) fn decode(block: &[u8; 2], [out]: &mut [f32; 1]) {
    *out = f32::from(i16::from_le_bytes(*block));
}
