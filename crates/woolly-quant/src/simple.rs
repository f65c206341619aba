//! What the encoders without a search share: the extremes of a block.

/// The largest magnitude of `x`.
#[inline(always)]
pub(crate) fn largest_magnitude<const N: usize>(x: &[f32; N]) -> f32 {
    x.iter().fold(0.0, |largest, x| x.abs().max(largest))
}

/// The first element of largest magnitude, with its sign; zero when all are zero.
#[inline(always)]
pub(crate) fn of_largest_magnitude<const N: usize>(x: &[f32; N]) -> f32 {
    x.iter().fold(0.0, |largest: f32, &x| if x.abs() > largest.abs() { x } else { largest })
}

/// The smallest and the largest element.
#[inline(always)]
pub(crate) fn bounds<const N: usize>(x: &[f32; N]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &x| (min.min(x), max.max(x)))
}

/// 1/d, or 0 when d is 0.
#[inline(always)]
pub(crate) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}
