//! I64: signed 64-bit integers; decoding rounds to the nearest `f32`. Decode only, as `I8`.

#[inline]
pub(crate) fn decode(block: &[u8; 8], [out]: &mut [f32; 1]) {
    *out = i64::from_le_bytes(*block) as f32;
}
