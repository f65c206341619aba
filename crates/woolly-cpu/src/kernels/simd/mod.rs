//! What register tiles need beyond [`crate::isa::Simd`]: integer vectors, byte products, transposition, unchecked loads.
//!
//! [`dispatch`] runs a [`TileKernel`] with the vectors of a level. Also here: the exponential function. This module knows
//! nothing of weights, caches or shapes.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::transposed;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::transposed16;

use crate::isa::{Level, Scalar, Simd};

/// How weights of more than seven bits are multiplied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wide {
    /// As unsigned bytes.
    Whole,
    /// As signed bytes, by [`TileSimd::dots_signed`].
    Signed,
    /// As two halves of four bits each, whose products can be summed for longer.
    Halves,
}

/// The operations of register tiles. Holding a value is the proof that the CPU has the instructions.
///
/// Every method is `#[inline(always)]` in its implementations: called from a function without the instruction set
/// enabled, it would still be correct, but slow.
pub(crate) trait TileSimd: Simd {
    /// Most rows of a register tile of two vectors in the integer product, so that accumulators stay in registers.
    const INT_TILE: usize;
    /// Whether [`dot`](Self::dot) is exact only for weights up to 127.
    const NARROW_DOT: bool;
    /// How weights above 127 are multiplied.
    const WIDE: Wide = Wide::Whole;
    /// Whether [`dots`](Self::dots) takes quads two at a time: of each two that follow each other, weights as
    /// [`paired`](Self::paired) leaves them, and activations as `[pair of tokens][token][quad]`.
    const PAIRED: bool = false;
    /// A vector of `i32`, or of four bytes in each element.
    type I: Copy;

    /// Returns `a` with the elements for which `x < limit` replaced by 0.
    fn zero_below(self, a: Self::F, x: Self::F, limit: f32) -> Self::F;

    fn splat_int(self, x: i32) -> Self::I;
    /// Adds to each element of `acc` the product of its four bytes: unsigned `w` times signed `a`.
    ///
    /// Exact for `w` ≤ 127, and for every `w` when [`NARROW_DOT`](Self::NARROW_DOT) is false.
    fn dot(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// As [`dot`](Self::dot), with signed bytes on both sides, `a` never being -128.
    fn dot_signed(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I;
    /// Brings two quads of the same weight rows into the order in which [`dots`](Self::dots) reads them, whose places are
    /// theirs.
    #[inline(always)]
    fn paired(self, quads: [Self::I; 2]) -> [Self::I; 2] {
        quads
    }
    fn to_float(self, a: Self::I) -> Self::F;
    /// Rounds to the nearest integer, ties to even.
    fn to_int(self, a: Self::F) -> Self::I;

    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn xor(self, a: Self::I, b: Self::I) -> Self::I;
    /// Shifts each element left; `by` is below 32, here and for the other shifts.
    fn shift_left(self, a: Self::I, by: u32) -> Self::I;
    /// Shifts zeros in.
    fn shift_right(self, a: Self::I, by: u32) -> Self::I;
    /// Shifts copies of the sign in.
    fn shift_right_signed(self, a: Self::I, by: u32) -> Self::I;
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// Subtracts each of the four bytes of an element by itself.
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I;
    /// Returns the low 32 bits of the products.
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// Replaces each byte, which is below 16, by the entry of `table` that it names.
    fn look_up(self, table: &[u8; 16], a: Self::I) -> Self::I;
    /// Returns the floats with these bits.
    fn bits_to_float(self, a: Self::I) -> Self::F;
    /// Widens the half-precision number in the low half of each element.
    fn low_half(self, a: Self::I) -> Self::F;

    /// Loads four bytes from each of [`Simd::LANES`] rows that are `stride` bytes apart.
    ///
    /// # Safety
    /// All of them must be valid for reading.
    unsafe fn load_word_of_rows(self, start: *const u8, stride: usize) -> Self::I;
    /// Loads sixteen bytes from each of these rows: vector `i` holds bytes `4i..4i + 4` of all rows.
    ///
    /// # Safety
    /// All of them must be valid for reading.
    unsafe fn load_four_of_rows(self, start: *const u8, stride: usize) -> [Self::I; 4];

    /// # Safety
    /// `p` must be valid for reading a vector.
    unsafe fn load_at(self, p: *const f32) -> Self::F;
    /// Loads half-precision numbers of native byte order and widens them.
    ///
    /// # Safety
    /// `p` must be valid for reading as many `u16`s as a vector has elements.
    unsafe fn load_half_at(self, p: *const u16) -> Self::F;
    /// Widens a half-precision number and repeats it in every element.
    fn splat_half(self, bits: u16) -> Self::F;
    /// Loads fours of signed bytes and converts byte `quarter` of each.
    ///
    /// # Safety
    /// `p` must be valid for reading a vector of fours.
    unsafe fn load_quarter_at(self, p: *const i32, quarter: usize) -> Self::F;
    /// Loads the low or the high four bits of bytes, 0 to 15, and converts them.
    ///
    /// # Safety
    /// `p` must be valid for reading as many bytes as a vector has elements.
    unsafe fn load_nibbles_at(self, p: *const u8, high: bool) -> Self::F;
    /// # Safety
    /// `p` must be valid for writing a vector.
    unsafe fn store_at(self, a: Self::F, p: *mut f32);
    /// # Safety
    /// `p` must be valid for reading a vector.
    unsafe fn load_int_at(self, p: *const i32) -> Self::I;
    /// # Safety
    /// `p` must be valid for writing a vector.
    unsafe fn store_int_at(self, a: Self::I, p: *mut i32);

    /// Stores the low byte of each element's low half at `low`, and its high byte at `high`.
    ///
    /// # Safety
    /// Both must be valid for writing as many bytes as a vector has elements.
    #[inline(always)]
    unsafe fn store_split_at(self, a: Self::I, high: *mut u8, low: *mut u8) {
        let mut elements = [0_i32; MAX_LANES];
        // SAFETY: the array holds a vector; the caller vouches for as many bytes on both sides.
        unsafe {
            self.store_int_at(a, elements.as_mut_ptr());
            for (i, element) in elements[..Self::LANES].iter().enumerate() {
                let [first, second, ..] = element.to_le_bytes();
                (*low.add(i), *high.add(i)) = (first, second);
            }
        }
    }

    /// Adds to `acc[t][v]` the products of `QUADS` consecutive pairs of vectors of unsigned weights, of which none is above
    /// `LARGEST`, with the quads `t` of as many tiles of activations, `stride` elements apart.
    ///
    /// # Safety
    /// `weights` is valid for reading `QUADS` pairs of vectors, `quads` for `T` elements at each multiple of `stride`; where
    /// operands are [`PAIRED`](Self::PAIRED), `T` is rounded up to an even number.
    #[inline(always)]
    unsafe fn dots<const T: usize, const QUADS: usize, const LARGEST: u8>(
        self,
        acc: &mut [[Self::I; 2]; T],
        weights: *const i32,
        quads: *const i32,
        stride: usize,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { each_quad::<Self, T, QUADS, false>(self, acc, weights, quads, stride) }
    }

    /// As [`TileSimd::dots`], with signed weights.
    ///
    /// # Safety
    /// As [`TileSimd::dots`].
    #[inline(always)]
    unsafe fn dots_signed<const T: usize, const QUADS: usize>(
        self,
        acc: &mut [[Self::I; 2]; T],
        weights: *const i32,
        quads: *const i32,
        stride: usize,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { each_quad::<Self, T, QUADS, true>(self, acc, weights, quads, stride) }
    }

    /// Asks for the cache line at `p`, which may be any address.
    fn prefetch_at(self, p: *const u8);
    /// As [`prefetch_at`](Self::prefetch_at), into the second level of the cache where that can be said.
    fn prefetch_beyond_at(self, p: *const u8);

    /// Transposes a square of `LANES x LANES` 32-bit elements.
    ///
    /// # Safety
    /// `from` must be valid for reading `LANES` elements at each multiple of `from_stride` elements, and `to` for
    /// writing likewise, for `LANES` rows.
    unsafe fn transpose(self, from: *const i32, from_stride: usize, to: *mut i32, to_stride: usize);

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
        self.store(&mut padded, a);
        s.copy_from_slice(&padded[..s.len()]);
    }
}

/// [`TileSimd::dots`] or [`TileSimd::dots_signed`], product by product.
///
/// # Safety
/// As [`TileSimd::dots`].
#[inline(always)]
unsafe fn each_quad<S: TileSimd, const T: usize, const QUADS: usize, const SIGNED: bool>(
    s: S,
    acc: &mut [[S::I; 2]; T],
    weights: *const i32,
    quads: *const i32,
    stride: usize,
) {
    for q in 0..QUADS {
        // SAFETY: passed on from the caller.
        unsafe {
            let w = weights.add(2 * q * S::LANES);
            let w = [s.load_int_at(w), s.load_int_at(w.add(S::LANES))];
            for (t, acc) in acc.iter_mut().enumerate() {
                let a = s.splat_int(*quads.add(q * stride + t));
                for v in 0..2 {
                    acc[v] = if SIGNED { s.dot_signed(acc[v], w[v], a) } else { s.dot(acc[v], w[v], a) };
                }
            }
        }
    }
}

/// Most elements a vector of any level has.
pub(crate) const MAX_LANES: usize = 16;

/// An operation that is compiled for every level.
pub(crate) trait TileKernel {
    /// What it returns.
    type Output;

    /// Whether it multiplies bytes: only then is it compiled once more for levels that differ in this alone.
    #[cfg_attr(
        not(any(target_arch = "x86_64", target_arch = "aarch64")),
        expect(dead_code, reason = "no other processor has a level just for such products")
    )]
    const PRODUCTS: bool = false;

    /// Runs with the vectors of one level; must be `#[inline(always)]`, and so must everything it calls.
    fn run<S: TileSimd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` at `level`, or at the best level below it that this CPU has.
pub(crate) fn dispatch<K: TileKernel>(level: Level, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::isa::{Avx2, Avx512};
        if level >= Level::Avx512
            && let Some(token) = Avx512::new()
        {
            // SAFETY: the token proves that the CPU has the instructions.
            return unsafe { run_avx512(token, kernel) };
        }
        if K::PRODUCTS
            && level >= Level::AvxVnni
            && let Some(token) = Avx2::<true>::new()
        {
            // SAFETY: the token proves that the CPU has the instructions.
            return unsafe { run_avx_vnni(token, kernel) };
        }
        if level >= Level::Avx2
            && let Some(token) = Avx2::<false>::new()
        {
            // SAFETY: the token proves that the CPU has the instructions.
            return unsafe { run_avx2(token, kernel) };
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        use crate::isa::{Neon, SDOT, SMMLA, WIDENED};
        if K::PRODUCTS
            && level >= Level::I8mm
            && let Some(token) = Neon::<SMMLA>::new()
        {
            return kernel.run(token);
        }
        if level >= Level::Dotprod
            && let Some(token) = Neon::<SDOT>::new()
        {
            return kernel.run(token);
        }
        if level >= Level::Neon
            && let Some(token) = Neon::<WIDENED>::new()
        {
            return kernel.run(token);
        }
    }
    let _ = level;
    kernel.run(Scalar)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn run_avx512<K: TileKernel>(token: crate::isa::Avx512, kernel: K) -> K::Output {
    kernel.run(token)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn run_avx2<K: TileKernel>(token: crate::isa::Avx2<false>, kernel: K) -> K::Output {
    kernel.run(token)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn run_avx_vnni<K: TileKernel>(token: crate::isa::Avx2<true>, kernel: K) -> K::Output {
    kernel.run(token)
}

/// The `x` below which `eˣ` is taken to be zero: the result would be subnormal.
const SMALLEST: f32 = -87.336_54;

/// Returns `eˣ` with a relative error below 2⁻²¹; 0 below -87.3, `e⁸⁸` above 88, NaN for NaN.
///
/// Reduces to `2ⁿ · eʳ` with |r| ≤ ln 2 / 2 and takes the Taylor series to r⁷, whose remainder is below 2⁻²⁷.
#[inline(always)]
pub(crate) fn exp<S: TileSimd>(s: S, x: S::F) -> S::F {
    // The high part has few bits, so that its products with n are exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // With the bounds first, a NaN passes through.
    let clamped = s.min(s.splat(88.0), s.max(s.splat(SMALLEST), x));
    let n = s.round(s.mul(clamped, s.splat(std::f32::consts::LOG2_E)));
    let r = s.mul_add(n, s.splat(-LN2_HIGH), clamped);
    let r = s.mul_add(n, s.splat(-LN2_LOW), r);
    let mut p = s.splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    s.zero_below(s.mul(p, s.exp2_int(n)), x, SMALLEST)
}

/// Returns `2ˣ` for `x` up to 0 with a relative error below 2⁻²¹; 0 below -126, NaN for NaN.
///
/// Reduces to `2ⁿ · 2ʳ` with |r| ≤ 1/2 and takes the Taylor series to r⁶, whose remainder is below 2⁻²².
#[inline(always)]
pub(crate) fn exp2_negative<S: TileSimd>(s: S, x: S::F) -> S::F {
    const LOWEST: f32 = -126.0;
    let clamped = s.max(s.splat(LOWEST), x);
    let n = s.round(clamped);
    let r = s.sub(clamped, n);
    let mut p = s.splat(1.540_353e-4);
    for coefficient in [1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, std::f32::consts::LN_2, 1.0] {
        p = s.mul_add(p, r, s.splat(coefficient));
    }
    s.zero_below(s.mul(p, s.exp2_int(n)), x, LOWEST)
}

/// Returns `tanh x` with an absolute error below 2⁻²¹.
#[inline(always)]
pub(crate) fn tanh<S: TileSimd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let bounded = s.min(s.splat(20.0), s.max(s.splat(-20.0), x));
    let e = exp(s, s.add(bounded, bounded));
    s.div(s.sub(e, one), s.add(e, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp<'a>(&'a mut [f32]);

    impl TileKernel for Exp<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: TileSimd>(self, s: S) {
            // Another lane each time.
            for (i, x) in self.0.iter_mut().enumerate() {
                let mut lanes = [0.0; MAX_LANES];
                s.store(&mut lanes, exp(s, s.splat(*x)));
                *x = lanes[i % S::LANES];
            }
        }
    }

    #[test]
    fn exponentials_are_right_to_two_units() {
        for level in Level::available() {
            let inputs: Vec<f32> = (-9000..=8800).map(|i| i as f32 * 0.01 + 0.001).collect();
            let mut outputs = inputs.clone();
            dispatch(level, Exp(&mut outputs));
            for (&x, &y) in inputs.iter().zip(&outputs).filter(|&(&x, _)| x < 88.0) {
                let exact = if x < SMALLEST { 0.0 } else { f64::from(x).exp() };
                let bound = exact * 2.0_f64.powi(-21);
                assert!((f64::from(y) - exact).abs() <= bound, "{level:?} exp({x}) = {y}, not {exact}");
            }
            let mut extremes = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY];
            dispatch(level, Exp(&mut extremes));
            assert!(extremes[0].is_nan() && extremes[1] == 0.0 && extremes[2] > 1e38, "{level:?} {extremes:?}");
        }
    }

    struct Exp2<'a>(&'a mut [f32]);

    impl TileKernel for Exp2<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: TileSimd>(self, s: S) {
            // Another lane each time.
            for (i, x) in self.0.iter_mut().enumerate() {
                let mut lanes = [0.0; MAX_LANES];
                s.store(&mut lanes, exp2_negative(s, s.splat(*x)));
                *x = lanes[i % S::LANES];
            }
        }
    }

    #[test]
    fn powers_of_two_are_right_to_four_units() {
        for level in Level::available() {
            let inputs: Vec<f32> = (-13000..=0).map(|i| i as f32 * 0.01 + 0.0001).filter(|&x| x <= 0.0).collect();
            let mut outputs = inputs.clone();
            dispatch(level, Exp2(&mut outputs));
            for (&x, &y) in inputs.iter().zip(&outputs) {
                let exact = if x < -126.0 { 0.0 } else { f64::from(x).exp2() };
                assert!((f64::from(y) - exact).abs() <= exact * 2.0_f64.powi(-21), "{level:?} 2^{x} = {y}");
            }
            let mut extremes = [f32::NAN, f32::NEG_INFINITY, 0.0];
            dispatch(level, Exp2(&mut extremes));
            assert!(extremes[0].is_nan() && extremes[1..] == [0.0, 1.0], "{level:?} {extremes:?}");
        }
    }

    struct Square<'a>(&'a [i32], &'a mut [i32]);

    impl TileKernel for Square<'_> {
        type Output = usize;

        #[inline(always)]
        fn run<S: TileSimd>(self, s: S) -> usize {
            assert!(self.0.len() >= MAX_LANES * 17 && self.1.len() >= MAX_LANES * 19);
            // SAFETY: both hold sixteen rows of their strides.
            unsafe { s.transpose(self.0.as_ptr(), 17, self.1.as_mut_ptr(), 19) };
            S::LANES
        }
    }

    #[test]
    fn transposition_moves_every_element() {
        for level in Level::available() {
            let from: Vec<i32> = (0..16 * 17).collect();
            let mut to = vec![-1; 16 * 19];
            let lanes = dispatch(level, Square(&from, &mut to));
            for (row, column) in (0..lanes).flat_map(|r| (0..lanes).map(move |c| (r, c))) {
                assert_eq!(to[column * 19 + row], from[row * 17 + column], "{level:?} ({row}, {column})");
            }
        }
    }

    /// Products of weights that differ from lane to lane: unsigned and signed ones.
    struct Dots<'a>(&'a mut Vec<[[i32; MAX_LANES]; 2]>);

    impl TileKernel for Dots<'_> {
        type Output = (usize, bool);

        const PRODUCTS: bool = true;

        #[inline(always)]
        fn run<S: TileSimd>(self, s: S) -> (usize, bool) {
            let a = [127_i8, 127, -127, 5].map(|a| a as u8);
            for first in 0..=255_u8 {
                let mut weights = [0; MAX_LANES];
                for (i, weight) in weights.iter_mut().enumerate() {
                    let w = first.wrapping_add(i as u8);
                    *weight = i32::from_ne_bytes([w, w, 255 - w, 3]);
                }
                let mut out = [[0_i32; MAX_LANES]; 2];
                // SAFETY: each array holds a vector.
                unsafe {
                    let (weights, a) = (s.load_int_at(weights.as_ptr()), s.splat_int(i32::from_ne_bytes(a)));
                    s.store_int_at(s.dot(s.splat_int(7), weights, a), out[0].as_mut_ptr());
                    s.store_int_at(s.dot_signed(s.splat_int(7), weights, a), out[1].as_mut_ptr());
                }
                self.0.push(out);
            }
            (S::LANES, S::NARROW_DOT)
        }
    }

    #[test]
    fn byte_products_are_exact_up_to_the_largest_weights() {
        for level in Level::available() {
            let mut found = Vec::new();
            let (lanes, narrow) = dispatch(level, Dots(&mut found));
            for (first, [unsigned, signed]) in (0..=255_u8).zip(&found) {
                for (i, (&signed, &unsigned)) in signed.iter().zip(unsigned).enumerate().take(lanes) {
                    let w = first.wrapping_add(i as u8);
                    let product = |w: [i32; 4]| 7 + 127 * w[0] + 127 * w[1] - 127 * w[2] + 5 * w[3];
                    let as_i8 = |w: u8| i32::from(w as i8);
                    let expected = product([as_i8(w), as_i8(w), as_i8(255 - w), 3]);
                    assert_eq!(signed, expected, "{level:?} signed {w}");
                    if !narrow {
                        let u = i32::from(w);
                        assert_eq!(unsigned, product([u, u, 255 - u, 3]), "{level:?} unsigned {w}");
                    }
                }
            }
        }
    }
}
