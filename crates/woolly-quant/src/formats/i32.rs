//! I32: signed 32-bit integers; decoding rounds to the nearest `f32`. Decode only, as `I8`.

#[inline]
pub(crate) fn decode(block: &[u8; 4], [out]: &mut [f32; 1]) {
    *out = i32::from_le_bytes(*block) as f32;
}
