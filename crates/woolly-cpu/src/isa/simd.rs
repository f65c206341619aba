//! The primitives that kernels are written in.
//!
//! Every method is meant to become one or two instructions. Methods that read or write slices check their lengths; with
//! the fixed-size arrays that kernels pass, the checks vanish at compile time. Summation order is fixed by the kernel
//! and by [`Simd::LANES`], so results differ between levels, never between runs.

/// An algorithm that [`crate::isa::Level::run`] compiles once for each instruction set.
///
/// Implementations mark `run` and everything it calls `#[inline(always)]`: code that is not inlined into the entry point
/// of its level is compiled without that level's instructions.
pub trait Kernel {
    /// What the kernel returns.
    type Output;

    /// Computes; `simd` is the proof that the processor has the instructions.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Vectors of `LANES` 32-bit floats and the operations on them.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Floats in a vector.
    const LANES: usize;
    /// Vectors that a kernel may keep in registers as accumulators without spilling.
    const ACCUMULATORS: usize;
    /// A vector of `LANES` floats.
    type F: Copy;

    /// Returns `LANES` copies of `x`.
    fn splat(self, x: f32) -> Self::F;
    /// Reads the first `LANES` elements; panics when there are fewer.
    fn load(self, from: &[f32]) -> Self::F;
    /// Writes the first `LANES` elements; panics when there are fewer.
    fn store(self, to: &mut [f32], x: Self::F);
    /// Widens the first `LANES` half-precision numbers (little-endian bytes); panics when there are fewer.
    fn load_f16(self, from: &[u8]) -> Self::F;
    /// Widens the first `LANES` bfloat16 numbers (little-endian bytes); panics when there are fewer.
    fn load_bf16(self, from: &[u8]) -> Self::F;
    /// Reads the first `LANES` floats from little-endian bytes of any alignment; panics when there are fewer.
    fn load_f32_bytes(self, from: &[u8]) -> Self::F;
    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a − b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger of each pair; the second when one is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The smaller of each pair; the second when one is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`, rounded once (on the scalar level: twice).
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The nearest integers, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for lanes that hold whole numbers from −126 to 127.
    fn exp2_int(self, n: Self::F) -> Self::F;
    /// The sum of all lanes, as a balanced tree.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane.
    fn max_lane(self, a: Self::F) -> f32;
    /// Asks for the cache line `offset` bytes after the start of `base`, which may lie outside of it.
    fn prefetch(self, base: &[u8], offset: usize);
}

/// Byte vectors for quantised weights, with the dot products that turn them into floats.
///
/// A dot product leaves lane `i` of the result with the elements `4i..4i + 4` of its operands, on every level.
pub trait Bytes: Simd {
    /// Bytes in a vector: `4 · LANES`.
    const WIDTH: usize;
}
