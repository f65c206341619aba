//! Vectors of `f32` and `i32` behind one trait, so that a kernel is written once and compiled for every level.
//!
//! A kernel is a struct of its operands that implements [`Kernel`]; [`dispatch`] runs it with the vectors of a level
//! inside a function that has the level's instructions enabled, into which everything must inline. This module holds
//! primitives and the exponential function, and knows nothing of weights, caches or shapes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use crate::isa::Level;

/// Vectors of one instruction set. Holding a value is the proof that the CPU has it.
///
/// Every method is `#[inline(always)]` in its implementations: called from a function without the instruction set
/// enabled, it would still be correct, but slow.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// Number of 32-bit elements in a vector: at most [`MAX_LANES`].
    const LANES: usize;
    /// Most rows of a register tile of two vectors in the integer product, so that accumulators stay in registers.
    const INT_TILE: usize;
    /// Whether [`dot`](Self::dot) is exact only for weights up to 127, so that wider ones need
    /// [`dot_signed`](Self::dot_signed).
    const NARROW_DOT: bool;
    /// A vector of `f32`.
    type F: Copy;
    /// A vector of `i32`, or of four bytes in each element.
    type I: Copy;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// Returns the larger of each pair; which of two when one is NaN is unspecified.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Returns `a · b + c`.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    fn round_even(self, a: Self::F) -> Self::F;
    /// Returns `a · 2ⁿ` for whole `n` with -126 ≤ n ≤ 127.
    fn scale_by_power(self, a: Self::F, n: Self::F) -> Self::F;
    /// Returns `a` with the elements for which `x < limit` replaced by 0.
    fn zero_below(self, a: Self::F, x: Self::F, limit: f32) -> Self::F;
    fn sum(self, a: Self::F) -> f32;
    fn maximum(self, a: Self::F) -> f32;

    fn splat_int(self, x: i32) -> Self::I;
    /// Adds to each element of `acc` the product of its four bytes: unsigned `w` times signed `a`.
    ///
    /// Exact for `w` ≤ 127, and for every `w` when [`NARROW_DOT`](Self::NARROW_DOT) is false.
    fn dot(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// As [`dot`](Self::dot), with signed bytes on both sides, `a` never being -128.
    fn dot_signed(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    fn to_float(self, a: Self::I) -> Self::F;
    /// Rounds to the nearest integer, ties to even.
    fn to_int(self, a: Self::F) -> Self::I;

    /// # Safety
    /// `p` must be valid for reading a vector.
    unsafe fn load_at(self, p: *const f32) -> Self::F;
    /// Loads half-precision numbers and widens them.
    ///
    /// # Safety
    /// `p` must be valid for reading [`LANES`](Self::LANES) `u16`s.
    unsafe fn load_half_at(self, p: *const u16) -> Self::F;
    /// # Safety
    /// `p` must be valid for writing a vector.
    unsafe fn store_at(self, a: Self::F, p: *mut f32);
    /// # Safety
    /// `p` must be valid for reading a vector.
    unsafe fn load_int_at(self, p: *const i32) -> Self::I;
    /// # Safety
    /// `p` must be valid for writing a vector.
    unsafe fn store_int_at(self, a: Self::I, p: *mut i32);

    /// Transposes a square of `LANES x LANES` 32-bit elements.
    ///
    /// # Safety
    /// `from` must be valid for reading `LANES` elements at each multiple of `from_stride` elements, and `to` for
    /// writing likewise, for `LANES` rows.
    unsafe fn transpose(self, from: *const i32, from_stride: usize, to: *mut i32, to_stride: usize);

    /// Asks for the cache line of `p`, which may be any address.
    fn prefetch(self, p: *const u8);

    /// Loads the first [`LANES`](Self::LANES) elements of `s`.
    #[inline(always)]
    fn load(self, s: &[f32]) -> Self::F {
        assert!(s.len() >= Self::LANES);
        // SAFETY: the slice holds at least a vector.
        unsafe { self.load_at(s.as_ptr()) }
    }

    /// Stores to the first [`LANES`](Self::LANES) elements of `s`.
    #[inline(always)]
    fn store(self, a: Self::F, s: &mut [f32]) {
        assert!(s.len() >= Self::LANES);
        // SAFETY: the slice holds at least a vector.
        unsafe { self.store_at(a, s.as_mut_ptr()) }
    }

    /// Loads fewer elements than a vector has and fills the rest.
    #[inline(always)]
    fn load_partial(self, s: &[f32], fill: f32) -> Self::F {
        let mut padded = [fill; MAX_LANES];
        padded[..s.len()].copy_from_slice(s);
        self.load(&padded)
    }

    /// Stores as many elements as `s` holds, fewer than a vector has.
    #[inline(always)]
    fn store_partial(self, a: Self::F, s: &mut [f32]) {
        let mut padded = [0.0; MAX_LANES];
        self.store(a, &mut padded);
        s.copy_from_slice(&padded[..s.len()]);
    }
}

/// Most elements a vector of any level has.
pub(crate) const MAX_LANES: usize = 16;

/// An operation that is compiled for every level.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// Runs with the vectors of one level; must be `#[inline(always)]`, and so must everything it calls.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` at `level`, or at the best level below it that this CPU has.
pub(crate) fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::isa::{Avx2, Avx512};
        if level >= Level::Avx512
            && let Some(token) = Avx512::new()
        {
            // SAFETY: the token proves that the CPU has the instructions.
            return unsafe { run_avx512(token, kernel) };
        }
        if level >= Level::Avx2
            && let Some(token) = Avx2::new()
        {
            // SAFETY: the token proves that the CPU has the instructions.
            return unsafe { run_avx2(token, kernel) };
        }
    }
    let _ = level;
    kernel.run(portable::Portable)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn run_avx512<K: Kernel>(token: crate::isa::Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: Kernel>(token: crate::isa::Avx2, kernel: K) -> K::Output {
    kernel.run(token)
}

/// Returns `eˣ` with a relative error below 2⁻²²; 0 below -87.3, where the result would be subnormal, and `e^88` above.
///
/// Reduces to `2ⁿ · eʳ` with |r| ≤ ln 2 / 2 and takes the Taylor series to r⁷, whose remainder is below 2⁻²⁷.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = s.min(s.max(x, s.splat(-87.336_54)), s.splat(88.0));
    let n = s.round_even(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), clamped);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    s.zero_below(s.scale_by_power(p, n), x, -87.336_54)
}

/// Returns `tanh x` with an absolute error below 2⁻²².
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let bounded = s.min(s.max(x, s.splat(-20.0)), s.splat(20.0));
    let e = exp(s, s.add(bounded, bounded));
    s.div(s.sub(e, one), s.add(e, one))
}
