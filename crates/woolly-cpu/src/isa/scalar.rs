//! The level of plain Rust: four lanes in an array, which compilers map to whatever baseline vectors there are.

use std::array;

use woolly_quant::half::{bf16_to_f32, f16_to_f32};

use super::Simd;

/// Proof that needs no processor feature.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

const LANES: usize = 4;

impl Simd for Scalar {
    const LANES: usize = LANES;
    const ACCUMULATORS: usize = 8;
    type F = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        array::from_fn(|i| from[i])
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], x: Self::F) {
        to[..LANES].copy_from_slice(&x);
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8]) -> Self::F {
        array::from_fn(|i| f16_to_f32(u16::from_le_bytes([from[2 * i], from[2 * i + 1]])))
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8]) -> Self::F {
        array::from_fn(|i| bf16_to_f32(u16::from_le_bytes([from[2 * i], from[2 * i + 1]])))
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8]) -> Self::F {
        array::from_fn(|i| f32::from_le_bytes([from[4 * i], from[4 * i + 1], from[4 * i + 2], from[4 * i + 3]]))
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        array::from_fn(|i| a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        array::from_fn(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        array::from_fn(|i| a[i] / b[i])
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        array::from_fn(|i| a[i] * b[i] + c[i])
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }

    #[inline(always)]
    fn max_lane(self, a: Self::F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }

    #[inline(always)]
    fn prefetch(self, _base: &[u8], _offset: usize) {}

    #[inline(always)]
    fn prefetch_beyond(self, _base: &[u8], _offset: usize) {}
}
