//! I8: signed bytes. Decode only: rounding to integers is not a quantisation of weights.

#[inline]
pub(crate) fn decode(block: &[u8; 1], [out]: &mut [f32; 1]) {
    *out = f32::from(i8::from_le_bytes(*block));
}
