//! Conversions between `f32` and the two 16-bit floats, on their bits.
//!
//! Integer arithmetic and selects only, so that loops over these functions vectorise, and no operation on a subnormal
//! `f32`, so that the results do not depend on a thread's flush-to-zero setting. Sources: IEEE 754-2019 (binary16);
//! bfloat16 is the upper half of a binary32.

/// The difference of the exponent biases of binary32 and binary16, in the place of a binary32 exponent.
const BIAS_STEP: u32 = (127 - 15) << 23;

/// One half as binary32: the grid of the numbers from here to 1 has the spacing of the binary16 subnormals, 2⁻²⁴.
const SUBNORMAL_ANCHOR: u32 = 0x3f00_0000;

/// Converts IEEE binary16 bits to the equal `f32`. Exact, including subnormals; the payload of a NaN is kept.
#[inline]
pub const fn f16_to_f32(bits: u16) -> f32 {
    let sign = ((bits & 0x8000) as u32) << 16;
    let magnitude = (bits & 0x7fff) as u32;
    let normal = (magnitude << 13) + BIAS_STEP;
    let subnormal = (f32::from_bits(SUBNORMAL_ANCHOR + magnitude) - 0.5).to_bits();
    let finite = if magnitude < 0x0400 { subnormal } else { normal };
    let value = if magnitude < 0x7c00 { finite } else { normal + BIAS_STEP };
    f32::from_bits(sign | value)
}

/// Converts `x` to IEEE binary16 bits, rounding to nearest, ties to even.
///
/// Magnitudes of 65520 and more become an infinity. A NaN stays a NaN; every NaN that came from [`f16_to_f32`] gets
/// its old bits back.
#[inline]
pub const fn f32_to_f16(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    // Adding the anchor makes the hardware round at 2^-24; the anchor's bits then come off exactly.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(SUBNORMAL_ANCHOR);
    let to_even = 0x0fff + ((magnitude >> 13) & 1);
    let normal = magnitude.wrapping_sub(BIAS_STEP).wrapping_add(to_even) >> 13;
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let ordered = if magnitude < 0x4780_0000 { finite } else { 0x7c00 };
    let payload = (magnitude >> 13) & 0x03ff;
    let nan = 0x7c00 | if payload == 0 { 0x0200 } else { payload };
    sign | (if magnitude > 0x7f80_0000 { nan } else { ordered }) as u16
}

/// Converts bfloat16 bits to the equal `f32`. Exact for every pattern.
#[inline]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// Converts `x` to bfloat16 bits, rounding to nearest, ties to even.
///
/// A finite `x` beyond the largest finite bfloat16 becomes an infinity. A NaN stays a NaN.
#[inline]
pub const fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    let upper = bits >> 16;
    let nan = if upper & 0x7f == 0 { upper | 0x40 } else { upper };
    let rounded = bits.wrapping_add(0x7fff + (upper & 1)) >> 16;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { nan } else { rounded }) as u16
}
