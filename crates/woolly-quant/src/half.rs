//! Conversions between `f32` and the two 16-bit floats, on their bits.
//!
//! Integer arithmetic and selects only, so that loops over these functions vectorise, and no operation on a subnormal
//! `f32`, so that the results do not depend on a thread's flush-to-zero setting. Sources: IEEE 754-2019 (binary16);
//! bfloat16 is the upper half of a binary32.

/// The largest finite binary16 number.
pub(crate) const F16_MAX: f32 = 65504.0;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_survives_the_way_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            assert_eq!(f32_to_f16(f16_to_f32(bits)), bits, "{bits:#06x}");
        }
    }

    #[test]
    fn every_bf16_survives_the_way_to_f32_and_back() {
        for bits in 0..=u16::MAX {
            assert_eq!(f32_to_bf16(bf16_to_f32(bits)), bits, "{bits:#06x}");
        }
    }

    /// The definition: sign, 5 bits of exponent with bias 15, 10 bits of fraction.
    #[test]
    fn every_finite_f16_has_the_value_of_its_fields() {
        for bits in (0..=u16::MAX).filter(|bits| bits >> 10 & 31 != 31) {
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023) / 1024.0);
            let magnitude = match exponent {
                0 => fraction * 2f64.powi(-14),
                _ => (1.0 + fraction) * 2f64.powi(exponent - 15),
            };
            let expected = if bits >> 15 == 1 { -magnitude } else { magnitude };
            assert_eq!(f64::from(f16_to_f32(bits)), expected, "{bits:#06x}");
            assert_eq!(f16_to_f32(bits).is_sign_negative(), bits >> 15 == 1, "{bits:#06x}");
        }
    }

    /// Between two neighbours of `widen`, the nearer one must be chosen, and the even one from the middle.
    fn assert_rounds_to_nearest_even(widen: fn(u16) -> f32, narrow: fn(f32) -> u16, infinity: u16) {
        for low in 0..infinity - 1 {
            let (a, b) = (widen(low), widen(low + 1));
            let middle = a + (b - a) / 2.0;
            let even = low + (low & 1);
            let cases = [(middle.next_down(), low), (middle, even), (middle.next_up(), low + 1)];
            for (x, expected) in cases {
                assert_eq!(narrow(x), expected, "{x:e}, between {a:e} and {b:e}");
                assert_eq!(narrow(-x), expected | 0x8000, "{:e}", -x);
            }
        }
    }

    #[test]
    fn f16_rounds_to_nearest_even() {
        assert_rounds_to_nearest_even(f16_to_f32, f32_to_f16, 0x7c00);
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        // The neighbours of the smallest subnormals have no f32 between them and their middle: start with the normals.
        for low in 0x0080..0x7f7f_u16 {
            let middle = u32::from(low) << 16 | 0x8000;
            let even = low + (low & 1);
            for (bits, expected) in [(middle - 1, low), (middle, even), (middle + 1, low + 1)] {
                assert_eq!(f32_to_bf16(f32::from_bits(bits)), expected, "{bits:#010x}");
                assert_eq!(f32_to_bf16(f32::from_bits(bits | 1 << 31)), expected | 0x8000, "{bits:#010x}");
            }
        }
    }

    #[test]
    fn edges_of_the_16_bit_floats() {
        let f16: &[(f32, u16, &str)] = &[
            (65504.0, 0x7bff, "the largest finite number"),
            (65519.99, 0x7bff, "rounds down to it"),
            (65520.0, 0x7c00, "the middle to 2^16 goes to even: infinity"),
            (f32::MAX, 0x7c00, "overflow"),
            (f32::INFINITY, 0x7c00, "infinity stays"),
            (5.960_464_5e-8, 0x0001, "the smallest subnormal"),
            (2.980_232_2e-8, 0x0000, "half of it goes to even: zero"),
            (-1e-30, 0x8000, "underflow keeps the sign"),
            (f32::from_bits(1), 0x0000, "a subnormal f32"),
        ];
        for &(x, bits, why) in f16 {
            assert_eq!(f32_to_f16(x), bits, "{why}");
        }
        assert_eq!(f32_to_bf16(f32::MAX), 0x7f80, "the nearest bfloat16 is infinity");
        assert_eq!(f32_to_bf16(f32::from_bits(0x0000_8001)), 0x0001, "subnormals round too");
    }

    #[test]
    fn nan_stays_nan() {
        for bits in [0x7f80_0001_u32, 0x7fc0_0000, 0xff80_0001, 0xffff_ffff] {
            let x = f32::from_bits(bits);
            assert!(f16_to_f32(f32_to_f16(x)).is_nan(), "{bits:#x}");
            assert!(bf16_to_f32(f32_to_bf16(x)).is_nan(), "{bits:#x}");
        }
    }
}
