//! The numbers a cache is made of: rounded when they are stored, widened when a vector of them is loaded.

use woolly_quant::half::f32_to_f16;

use super::simd::TileSimd;
use crate::pages::Plain;

/// A type in which keys and values are stored.
pub(crate) trait Element: Plain + Send + Sync {
    /// Converts from `f32`, rounding to nearest.
    fn from_f32(x: f32) -> Self;

    /// Loads a vector and widens it.
    ///
    /// # Safety
    /// `p` must be valid for reading as many elements as a vector has.
    unsafe fn load<S: TileSimd>(s: S, p: *const Self) -> S::F;
}

impl Element for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }

    #[inline(always)]
    unsafe fn load<S: TileSimd>(s: S, p: *const Self) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { s.load_at(p) }
    }
}

/// Half precision, as bits.
impl Element for u16 {
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f32_to_f16(x)
    }

    #[inline(always)]
    unsafe fn load<S: TileSimd>(s: S, p: *const Self) -> S::F {
        // SAFETY: passed on from the caller.
        unsafe { s.load_half_at(p) }
    }
}
