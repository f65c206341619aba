//! F64: IEEE binary64; decoding rounds to the nearest `f32`.

#[inline]
pub(crate) fn decode(block: &[u8; 8], [out]: &mut [f32; 1]) {
    *out = f64::from_le_bytes(*block) as f32;
}

#[inline(always)]
pub(crate) fn encode([value]: &[f32; 1], _: Option<&[f32; 1]>, out: &mut [u8; 8]) {
    *out = f64::from(*value).to_le_bytes();
}
