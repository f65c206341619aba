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
    /// The same, into the second-level cache only.
    fn prefetch_beyond(self, base: &[u8], offset: usize);
}

/// An algorithm on quantised weights; as [`Kernel`], for the levels that have [`Bytes`].
pub trait ByteKernel {
    /// What the kernel returns.
    type Output;

    /// Whether it multiplies bytes: only then is it compiled once more for levels that differ in this alone.
    const PRODUCTS: bool = true;

    /// Computes; `simd` is the proof that the processor has the instructions.
    fn run<S: Bytes>(self, simd: S) -> Self::Output;
}

/// Byte vectors for quantised weights, with the dot products that turn them into floats.
///
/// A dot product leaves lane `i` of the result with the elements `4i..4i + 4` of its operands, on every level, so that
/// one arrangement of the activations serves all. Vectors are 64 bytes, or 32: then a kernel takes each 64 in halves.
pub trait Bytes: Simd {
    /// Bytes in a vector: `4 · LANES`.
    const WIDTH: usize;
    /// What [`Bytes::dot_i8`] adds to each signed weight.
    const SIGNED_BIAS: f32;
    /// A vector of `WIDTH` bytes.
    type I: Copy;
    /// Eight floats: a scale for each 32 of 256 weights.
    type F8: Copy;
    /// Sixteen floats: a scale for each 16 of 256 weights.
    type F16: Copy;

    /// Reads the first `WIDTH` bytes; panics when there are fewer.
    fn bytes(self, from: &[u8]) -> Self::I;
    /// Reads `WIDTH / 16` pieces of 16 bytes, piece `i` at `STRIDE · i + OFFSET`; best when both are even.
    fn pieces16<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> Self::I;
    /// Reads `WIDTH / 32` pieces of 32 bytes, piece `i` at `STRIDE · i + OFFSET`; both are even.
    fn pieces32<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> Self::I;
    /// Reads half-precision numbers at `STRIDE · i + OFFSET` (even) and repeats each in `PER` lanes until all are filled.
    fn halves<const STRIDE: usize, const OFFSET: usize, const PER: usize>(self, from: &[u8]) -> Self::F;
    /// Returns `WIDTH` copies of `x`.
    fn splat_byte(self, x: u8) -> Self::I;
    /// `a & b`.
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a | b`.
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// The high four bits of every byte.
    fn high_nibbles(self, a: Self::I) -> Self::I;
    /// `(a >> bits) & 3` of every byte, for `bits` 0, 2, 4 or 6.
    fn two_bits(self, a: Self::I, bits: usize) -> Self::I;
    /// Adds 16 to every byte of `w` where bit `first` of the 32 bytes `flags` is set; beyond 32 bytes, bit `first + 2`.
    fn fifth_bits(self, w: Self::I, flags: &[u8; 32], first: usize) -> Self::I;
    /// For blocks whose 32 bits lie at `STRIDE · i + OFFSET`: adds 16 to every byte below 16 whose bit is set, of the first vector
    /// by the low 16 bits of each of `WIDTH / 16` blocks, of the second by the high ones.
    fn fifth_bits_of<const STRIDE: usize, const OFFSET: usize>(self, w: [Self::I; 2], from: &[u8]) -> [Self::I; 2];
    /// Adds 4 to every byte of `w` where bit `first` of the 32 bytes `flags` is set; beyond 32 bytes, bit `first + 4`.
    fn third_bits(self, w: Self::I, flags: &[u8; 32], first: usize) -> Self::I;
    /// The first `LANES / 4` floats, each in four lanes.
    fn fours(self, from: &[f32]) -> Self::F;
    /// Bits `2 · first` and the next of the 32 bytes `pairs`, at bits 4 and 5; beyond 32 bytes, those two places higher.
    fn upper_bits(self, pairs: &[u8], first: usize) -> Self::I;
    /// Entry `index & 15` of `table` for every byte below 16.
    fn lookup(self, table: &[i8; 16], index: Self::I) -> Self::I;
    /// Sums of four products of unsigned `w` (below 128 where `WIDTH` is 32) with `a`, as floats.
    fn dot_u8(self, w: Self::I, a: &[i8]) -> Self::F;
    /// Sums of four products of signed `w`, plus [`Bytes::SIGNED_BIAS`], with `a` (above −128), as floats.
    fn dot_i8(self, w: Self::I, a: &[i8]) -> Self::F;
    /// `w` with the sign of byte `i` changed where bit `i` of `signs` is set.
    fn negated(self, w: Self::I, signs: u64) -> Self::I;
    /// Sums of four products of `a` (above −128) with unsigned `w` (below 128), negative where bit `i` of `signs` is set.
    fn dot_signs(self, w: Self::I, signs: u64, a: &[i8]) -> Self::F;
    /// The sum of [`Bytes::dot_u8`] of two pairs, of whose weights none is above 32.
    #[inline(always)]
    fn dot2_u8(self, w: [Self::I; 2], a: [&[i8]; 2]) -> Self::F {
        self.add(self.dot_u8(w[0], a[0]), self.dot_u8(w[1], a[1]))
    }
    /// The sum of [`Bytes::dot_i8`] of two pairs.
    #[inline(always)]
    fn dot2_i8(self, w: [Self::I; 2], a: [&[i8]; 2]) -> Self::F {
        self.add(self.dot_i8(w[0], a[0]), self.dot_i8(w[1], a[1]))
    }
    /// [`Bytes::dot2_i8`] of the entries of `table` that two vectors of bytes below 16 name.
    #[inline(always)]
    fn dot2_table(self, table: &[i8; 16], index: [Self::I; 2], a: [&[i8]; 2]) -> Self::F {
        self.dot2_i8([self.lookup(table, index[0]), self.lookup(table, index[1])], a)
    }
    /// Byte `q` of every four, unsigned, as floats.
    fn quarter_u8(self, w: Self::I, q: usize) -> Self::F;
    /// Byte `q` of every four, signed, as floats.
    fn quarter_i8(self, w: Self::I, q: usize) -> Self::F;

    /// The half-precision number in two little-endian bytes.
    fn half(self, from: [u8; 2]) -> f32;
    /// Eight bytes as floats, times `by`.
    fn scales8(self, from: u64, by: f32) -> Self::F8;
    /// `a · b` with the eight floats `b`.
    fn mul8(self, a: Self::F8, b: &[f32; 8]) -> Self::F8;
    /// `c − a · b` in the first eight lanes of `c`.
    fn sub_mul8(self, a: Self::F8, b: &[f32; 8], c: Self::F) -> Self::F;
    /// Scale `i` in the first eight lanes, scale `i + 2` in further eight.
    fn spread8(self, a: Self::F8, i: usize) -> Self::F;
    /// Sixteen signed bytes as floats, times `by`.
    fn scales16(self, from: &[u8; 16], by: f32) -> Self::F16;
    /// `a · b` with the sixteen floats `b`.
    fn mul16(self, a: Self::F16, b: &[f32; 16]) -> Self::F16;
    /// `c − a · b`, the sixteen products added to the lanes there are.
    fn sub_mul16(self, a: Self::F16, b: &[f32; 16], c: Self::F) -> Self::F;
    /// Scales `i`, `i + 1`, and in further eight lanes `i + STEP`, `i + STEP + 1`, each in four lanes; `i` is even.
    fn spread16<const STEP: usize>(self, a: Self::F16, i: usize) -> Self::F;
}
