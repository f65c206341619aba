//! Primitives of AVX2 with FMA and F16C: 256-bit vectors, 16 registers.
//!
//! With `VNNI`, products of bytes are the instruction VPDPBUSD of AVX-VNNI (Alder Lake and Zen 5 on, and server processors
//! since Sapphire Rapids) instead of three.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{ByteKernel, Bytes, Kernel, Simd};

/// Proof that the processor has AVX2, FMA and F16C, and AVX-VNNI with `VNNI`.
#[derive(Clone, Copy, Debug)]
pub struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> Avx2<VNNI> {
    /// Returns the proof, or `None` on a processor without one of the features.
    #[inline]
    pub fn new() -> Option<Self> {
        let all =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        (all && (!VNNI || is_x86_feature_detected!("avxvnni"))).then_some(Self(()))
    }
}

/// A vector of integers, whatever they are.
pub(crate) type Vector = __m256i;

/// An algorithm that [`Avx2`] compiles with and without AVX-VNNI; as [`Kernel`].
pub(crate) trait WordKernel {
    /// Computes; `simd` is the proof that the processor has the instructions.
    fn run<const VNNI: bool>(self, simd: Avx2<VNNI>);
}

impl Avx2<false> {
    /// Compiles and runs `kernel` with these instructions.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` only exists where `new` has found all features that `entry` enables.
        unsafe { entry(self, kernel) }
    }

    /// Compiles and runs `kernel` with these instructions.
    #[inline]
    pub fn run_bytes<K: ByteKernel>(self, kernel: K) -> K::Output {
        // SAFETY: as in `run`.
        unsafe { byte_entry(self, kernel) }
    }

    /// Compiles and runs `kernel` with these instructions.
    pub(crate) fn run_words(self, kernel: impl WordKernel) {
        // SAFETY: as in `run`.
        unsafe { word_entry(self, kernel) }
    }
}

impl Avx2<true> {
    /// Compiles and runs `kernel` with these instructions.
    #[inline]
    pub fn run_bytes<K: ByteKernel>(self, kernel: K) -> K::Output {
        // SAFETY: `self` only exists where `new` has found all features that `vnni_entry` enables.
        unsafe { vnni_entry(self, kernel) }
    }

    /// Compiles and runs `kernel` with these instructions.
    pub(crate) fn run_words(self, kernel: impl WordKernel) {
        // SAFETY: as in `run_bytes`.
        unsafe { vnni_word_entry(self, kernel) }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn entry<K: Kernel>(simd: Avx2<false>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn byte_entry<K: ByteKernel>(simd: Avx2<false>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn vnni_entry<K: ByteKernel>(simd: Avx2<true>, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn word_entry<K: WordKernel>(simd: Avx2<false>, kernel: K) {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
fn vnni_word_entry<K: WordKernel>(simd: Avx2<true>, kernel: K) {
    kernel.run(simd)
}

impl<const VNNI: bool> Simd for Avx2<VNNI> {
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 8;
    type F = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m256 {
        let from = &from[..8];
        // SAFETY: eight floats are readable; `self` proves AVX.
        unsafe { _mm256_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], x: __m256) {
        let to = &mut to[..8];
        // SAFETY: eight floats are writable; `self` proves AVX.
        unsafe { _mm256_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8]) -> __m256 {
        let from = &from[..16];
        // SAFETY: sixteen bytes are readable; `self` proves F16C.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8]) -> __m256 {
        let from = &from[..16];
        // SAFETY: sixteen bytes are readable; `self` proves AVX2.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8]) -> __m256 {
        let from = &from[..32];
        // SAFETY: 32 bytes are readable, at any alignment; `self` proves AVX.
        unsafe { _mm256_loadu_ps(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: `self` proves FMA.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2_int(self, n: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        // SAFETY: `self` proves AVX.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn max_lane(self, a: __m256) -> f32 {
        // SAFETY: `self` proves AVX.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn prefetch(self, base: &[u8], offset: usize) {
        // SAFETY: a prefetch never faults, whatever the address; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(base.as_ptr().wrapping_add(offset).cast()) }
    }

    #[inline(always)]
    fn prefetch_beyond(self, base: &[u8], offset: usize) {
        // SAFETY: as in `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(base.as_ptr().wrapping_add(offset).cast()) }
    }
}

impl<const VNNI: bool> Bytes for Avx2<VNNI> {
    const WIDTH: usize = 32;
    const SIGNED_BIAS: f32 = if VNNI { 128.0 } else { 0.0 };
    type I = __m256i;
    type F8 = __m256;
    type F16 = [__m256; 2];

    #[inline(always)]
    fn bytes(self, from: &[u8]) -> __m256i {
        let from = &from[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn pieces16<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> __m256i {
        let (first, second) = (&from[OFFSET..][..16], &from[STRIDE + OFFSET..][..16]);
        // SAFETY: 16 bytes are readable at both places; `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_loadu2_m128i(second.as_ptr().cast(), first.as_ptr().cast()) }
    }

    #[inline(always)]
    fn pieces32<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> __m256i {
        let from = &from[OFFSET..][..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn halves<const STRIDE: usize, const OFFSET: usize, const PER: usize>(self, from: &[u8]) -> __m256 {
        let at = |i: usize| i16::from_le_bytes([from[STRIDE * i + OFFSET], from[STRIDE * i + OFFSET + 1]]);
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            if PER == 8 {
                return _mm256_cvtph_ps(_mm_set1_epi16(at(0)));
            }
            _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm_set1_epi16(at(0)), _mm_set1_epi16(at(1))))
        }
    }

    #[inline(always)]
    fn splat_byte(self, x: u8) -> __m256i {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_set1_epi8(x.cast_signed()) }
    }

    #[inline(always)]
    fn and(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    fn or(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn high_nibbles(self, a: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(a), _mm256_set1_epi8(15)) }
    }

    #[inline(always)]
    fn two_bits(self, a: __m256i, bits: usize) -> __m256i {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_and_si256(_mm256_srl_epi16(a, _mm_cvtsi64_si128(bits as i64)), _mm256_set1_epi8(3)) }
    }

    #[inline(always)]
    fn fifth_bits(self, w: __m256i, flags: &[u8; 32], first: usize) -> __m256i {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            let flag = _mm256_set1_epi8((1u8 << first).cast_signed());
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(self.bytes(flags), flag), flag);
            _mm256_or_si256(w, _mm256_and_si256(set, _mm256_set1_epi8(16)))
        }
    }

    #[inline(always)]
    fn upper_bits(self, pairs: &[u8], first: usize) -> __m256i {
        let pairs = self.bytes(pairs);
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            let placed = match first {
                0 => _mm256_slli_epi16::<4>(pairs),
                1 => _mm256_slli_epi16::<2>(pairs),
                2 => pairs,
                _ => _mm256_srli_epi16::<2>(pairs),
            };
            _mm256_and_si256(placed, _mm256_set1_epi8(0x30))
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], index: __m256i) -> __m256i {
        // SAFETY: the table is 16 bytes; `self` proves AVX2, FMA and F16C.
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), index)
        }
    }

    #[inline(always)]
    fn dot_u8(self, w: __m256i, a: &[i8]) -> __m256 {
        let a = &a[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2, FMA and F16C, and AVX-VNNI where that is used.
        unsafe {
            let a = _mm256_loadu_si256(a.as_ptr().cast());
            if VNNI {
                return _mm256_cvtepi32_ps(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w, a));
            }
            _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn dot_i8(self, w: __m256i, a: &[i8]) -> __m256 {
        if VNNI {
            // SAFETY: `self` proves AVX2.
            return self.dot_u8(unsafe { _mm256_xor_si256(w, _mm256_set1_epi8(-128)) }, a);
        }
        let a = &a[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2, FMA and F16C.
        unsafe {
            let a = _mm256_sign_epi8(_mm256_loadu_si256(a.as_ptr().cast()), w);
            let pairs = _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), a);
            _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn negated(self, w: __m256i, signs: u64) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe {
            // Byte `i` has its own byte of the signs, and of that its own bit.
            let order = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
            let flag = _mm256_set1_epi64x(0x8040_2010_0804_0201u64.cast_signed());
            let own = _mm256_shuffle_epi8(_mm256_set1_epi32((signs as u32).cast_signed()), order);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(own, flag), flag);
            _mm256_sign_epi8(w, _mm256_or_si256(set, _mm256_set1_epi8(1)))
        }
    }

    #[inline(always)]
    fn dot_signs(self, w: __m256i, signs: u64, a: &[i8]) -> __m256 {
        let a = &a[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2, and AVX-VNNI where that is used.
        unsafe {
            let a = self.negated(_mm256_loadu_si256(a.as_ptr().cast()), signs);
            if VNNI {
                return _mm256_cvtepi32_ps(_mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w, a));
            }
            _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1)))
        }
    }

    // Sums of two pairs stay below 4 · 32 · 127 < 2¹⁵.
    #[inline(always)]
    fn dot2_u8(self, w: [__m256i; 2], a: [&[i8]; 2]) -> __m256 {
        let (first, second) = (&a[0][..32], &a[1][..32]);
        // SAFETY: 32 bytes are readable at both places; `self` proves AVX2, and AVX-VNNI where that is used.
        unsafe {
            let (first, second) =
                (_mm256_loadu_si256(first.as_ptr().cast()), _mm256_loadu_si256(second.as_ptr().cast()));
            if VNNI {
                let sums = _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), w[0], first);
                return _mm256_cvtepi32_ps(_mm256_dpbusd_avx_epi32(sums, w[1], second));
            }
            let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], first), _mm256_maddubs_epi16(w[1], second));
            _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    fn dot2_i8(self, w: [__m256i; 2], a: [&[i8]; 2]) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            if VNNI {
                let top = _mm256_set1_epi8(-128);
                return self.dot2_u8([_mm256_xor_si256(w[0], top), _mm256_xor_si256(w[1], top)], a);
            }
            let ones = _mm256_set1_epi16(1);
            let first = self.add_scaled_signed(_mm256_setzero_si256(), w[0], a[0], ones);
            _mm256_cvtepi32_ps(self.add_scaled_signed(first, w[1], a[1], ones))
        }
    }

    #[inline(always)]
    fn quarter_u8(self, w: __m256i, q: usize) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            let moved = match q {
                0 => w,
                1 => _mm256_srli_epi32::<8>(w),
                2 => _mm256_srli_epi32::<16>(w),
                _ => _mm256_srli_epi32::<24>(w),
            };
            _mm256_cvtepi32_ps(_mm256_and_si256(moved, _mm256_set1_epi32(255)))
        }
    }

    #[inline(always)]
    fn quarter_i8(self, w: __m256i, q: usize) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            let moved = match q {
                0 => _mm256_slli_epi32::<24>(w),
                1 => _mm256_slli_epi32::<16>(w),
                2 => _mm256_slli_epi32::<8>(w),
                _ => w,
            };
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(moved))
        }
    }

    #[inline(always)]
    fn half(self, from: [u8; 2]) -> f32 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(from))))) }
    }

    #[inline(always)]
    fn scales8(self, from: u64, by: f32) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(from.cast_signed()));
            _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(by))
        }
    }

    #[inline(always)]
    fn mul8(self, a: __m256, b: &[f32; 8]) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_mul_ps(a, self.load(b)) }
    }

    #[inline(always)]
    fn sub_mul8(self, a: __m256, b: &[f32; 8], c: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_fnmadd_ps(a, self.load(b), c) }
    }

    #[inline(always)]
    fn spread8(self, a: __m256, i: usize) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_permutevar8x32_ps(a, _mm256_set1_epi32(i as i32)) }
    }

    #[inline(always)]
    fn scales16(self, from: &[u8; 16], by: f32) -> [__m256; 2] {
        let (low, high) = (&from[..8], &from[8..]);
        // SAFETY: eight bytes are readable at both places; `self` proves AVX2.
        unsafe {
            let low = _mm256_cvtepi8_epi32(_mm_loadl_epi64(low.as_ptr().cast()));
            let high = _mm256_cvtepi8_epi32(_mm_loadl_epi64(high.as_ptr().cast()));
            let by = _mm256_set1_ps(by);
            [_mm256_mul_ps(_mm256_cvtepi32_ps(low), by), _mm256_mul_ps(_mm256_cvtepi32_ps(high), by)]
        }
    }

    #[inline(always)]
    fn mul16(self, a: [__m256; 2], b: &[f32; 16]) -> [__m256; 2] {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { [_mm256_mul_ps(a[0], self.load(b)), _mm256_mul_ps(a[1], self.load(&b[8..]))] }
    }

    #[inline(always)]
    fn sub_mul16(self, a: [__m256; 2], b: &[f32; 16], c: __m256) -> __m256 {
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe { _mm256_fnmadd_ps(a[1], self.load(&b[8..]), _mm256_fnmadd_ps(a[0], self.load(b), c)) }
    }

    #[inline(always)]
    fn spread16<const STEP: usize>(self, a: [__m256; 2], i: usize) -> __m256 {
        let i32s = (i % 8) as i32;
        // SAFETY: `self` proves AVX2, FMA and F16C.
        unsafe {
            let index = _mm256_add_epi32(_mm256_set1_epi32(i32s), _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
            _mm256_permutevar8x32_ps(a[i / 8], index)
        }
    }

    #[inline(always)]
    fn fifth_bits_of<const STRIDE: usize, const OFFSET: usize>(self, w: [__m256i; 2], from: &[u8]) -> [__m256i; 2] {
        /// Eight bytes of 1: times `n`, the shuffle that repeats byte `n`.
        const ONES: i64 = 0x0101_0101_0101_0101;
        let bits = |i: usize| i64::from(i32::from_le_bytes(std::array::from_fn(|b| from[STRIDE * i + OFFSET + b])));
        // SAFETY: `self` proves AVX2.
        unsafe {
            let all = _mm256_setr_epi64x(bits(0), 0, bits(1), 0);
            let flag = _mm256_set1_epi64x(0x8040_2010_0804_0201u64.cast_signed());
            let low = _mm256_setr_epi64x(0, ONES, 0, ONES);
            let high = _mm256_setr_epi64x(2 * ONES, 3 * ONES, 2 * ONES, 3 * ONES);
            let low = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, low), flag), flag);
            let high = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, high), flag), flag);
            let sixteen = _mm256_set1_epi8(16);
            [
                _mm256_or_si256(w[0], _mm256_and_si256(low, sixteen)),
                _mm256_or_si256(w[1], _mm256_and_si256(high, sixteen)),
            ]
        }
    }

    #[inline(always)]
    fn third_bits(self, w: __m256i, flags: &[u8; 32], first: usize) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let flag = _mm256_set1_epi8((1u8 << first).cast_signed());
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(self.bytes(flags), flag), flag);
            _mm256_or_si256(w, _mm256_and_si256(set, _mm256_set1_epi8(4)))
        }
    }

    #[inline(always)]
    fn fours(self, from: &[f32]) -> __m256 {
        // SAFETY: `self` proves AVX.
        unsafe { _mm256_setr_m128(_mm_set1_ps(from[0]), _mm_set1_ps(from[1])) }
    }
}

/// Bytes whose products are scaled as integers of 16 bits: sixteen words a vector.
impl<const VNNI: bool> Avx2<VNNI> {
    /// Zeros.
    #[inline(always)]
    pub(crate) fn zero_words(self) -> Vector {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    /// Eight integers of 32 bits as floats.
    #[inline(always)]
    pub(crate) fn floats(self, a: Vector) -> __m256 {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    /// Adds to eight integers of 32 bits the products of unsigned `w` with `a`, pairs of them times the words of `scale`;
    /// pairs must stay below 2¹⁵.
    #[inline(always)]
    pub(crate) fn add_scaled(self, acc: Vector, w: Vector, a: &[i8], scale: Vector) -> Vector {
        let a = &a[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2.
        unsafe { self.add_products(acc, _mm256_maddubs_epi16(w, _mm256_loadu_si256(a.as_ptr().cast())), scale) }
    }

    /// As [`Avx2::add_scaled`], with signed `w` above −128.
    #[inline(always)]
    pub(crate) fn add_scaled_signed(self, acc: Vector, w: Vector, a: &[i8], scale: Vector) -> Vector {
        let a = &a[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2.
        unsafe {
            let a = _mm256_sign_epi8(_mm256_loadu_si256(a.as_ptr().cast()), w);
            self.add_products(acc, _mm256_maddubs_epi16(_mm256_abs_epi8(w), a), scale)
        }
    }

    #[inline(always)]
    fn add_products(self, acc: Vector, pairs: Vector, scale: Vector) -> Vector {
        // SAFETY: `self` proves AVX2, and AVX-VNNI where that is used.
        unsafe {
            if VNNI {
                return _mm256_dpwssd_avx_epi32(acc, pairs, scale);
            }
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, scale))
        }
    }

    /// Adds sums of two products of unsigned `w` with `a` to sixteen words.
    #[inline(always)]
    pub(crate) fn add_pairs(self, acc: Vector, w: Vector, a: &[i8]) -> Vector {
        let a = &a[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX2.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, _mm256_loadu_si256(a.as_ptr().cast()))) }
    }

    /// `a − b` of words.
    #[inline(always)]
    pub(crate) fn less(self, a: Vector, b: &[i16; 16]) -> Vector {
        // SAFETY: 32 bytes are readable; `self` proves AVX2.
        unsafe { _mm256_sub_epi16(a, _mm256_loadu_si256(b.as_ptr().cast())) }
    }

    /// Three times every byte, modulo 256: of a fraction in base 3, without its first digit.
    #[inline(always)]
    pub(crate) fn thrice(self, a: Vector) -> Vector {
        // SAFETY: `self` proves AVX2.
        unsafe { thrice(a) }
    }

    /// The first digit of every byte as a fraction in base 3, `⌊3 a / 256⌋`: three quarters of it have the digit in the upper two
    /// bits, once they are made 1 less for having been rounded up twice.
    #[inline(always)]
    pub(crate) fn first_digits(self, a: Vector) -> Vector {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let half = _mm256_avg_epu8(a, _mm256_setzero_si256());
            let parts = _mm256_subs_epu8(_mm256_avg_epu8(a, half), _mm256_set1_epi8(1));
            _mm256_and_si256(_mm256_srli_epi16::<6>(parts), _mm256_set1_epi8(3))
        }
    }

    /// Sixteen bytes times 1 and 3, times 9 and 27, and times 81 beside four bytes times 1, 3, 9 and 27.
    #[inline(always)]
    pub(crate) fn side_by_side(self, from: &[u8; 20]) -> [Vector; 3] {
        let (sixteen, four) = from.split_at(16);
        let sixteen = self.small_vector(sixteen.as_array().expect("16 bytes"));
        let four = u32::from_le_bytes(*four.as_array().expect("4 bytes"));
        // SAFETY: `self` proves AVX2.
        unsafe {
            let twice = _mm256_broadcastsi128_si256(sixteen);
            let first = _mm256_blend_epi32::<0xf0>(twice, self.thrice(twice));
            let second = self.thrice(self.thrice(first));
            let third = self.thrice(self.thrice(second));
            let four = _mm256_set1_epi32(four.cast_signed());
            let four = _mm256_blend_epi32::<0b1010_1010>(four, self.thrice(four));
            let four = _mm256_blend_epi32::<0b1100_1100>(four, self.thrice(self.thrice(four)));
            [first, second, _mm256_blend_epi32::<0xf0>(third, four)]
        }
    }

    /// Sums of two products of words each, as integers of 32 bits.
    #[inline(always)]
    pub(crate) fn word_products(self, a: Vector, b: &[i16; 16]) -> Vector {
        // SAFETY: 32 bytes are readable; `self` proves AVX2.
        unsafe { _mm256_madd_epi16(a, _mm256_loadu_si256(b.as_ptr().cast())) }
    }

    /// Eight signed bytes times `by`, twice.
    #[inline(always)]
    pub(crate) fn words8(self, from: u64, by: &[i16; 8]) -> Vector {
        // SAFETY: 16 bytes are readable; `self` proves AVX2.
        unsafe {
            let words = _mm_cvtepi8_epi16(_mm_cvtsi64_si128(from.cast_signed()));
            _mm256_broadcastsi128_si256(_mm_mullo_epi16(words, _mm_loadu_si128(by.as_ptr().cast())))
        }
    }

    /// The even ones of sixteen signed bytes times `by`, then the odd ones times `by`.
    #[inline(always)]
    pub(crate) fn words16(self, from: __m128i, by: &[i16; 8]) -> Vector {
        // SAFETY: 16 bytes are readable; `self` proves AVX2.
        unsafe {
            let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
            let by = _mm256_broadcastsi128_si256(_mm_loadu_si128(by.as_ptr().cast()));
            _mm256_mullo_epi16(_mm256_cvtepi8_epi16(_mm_shuffle_epi8(from, order)), by)
        }
    }

    /// Word `i` of the first eight in the first half, word `8 + i` in the second.
    #[inline(always)]
    pub(crate) fn spread_word(self, words: Vector, i: usize) -> Vector {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_shuffle_epi8(words, _mm256_set1_epi16((0x0100 + 0x0202 * i) as i16)) }
    }

    /// Bit `from` of every byte, moved to bit `to`.
    #[inline(always)]
    pub(crate) fn moved_bit(self, a: Vector, from: usize, to: usize) -> Vector {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let by = _mm_cvtsi64_si128(from.abs_diff(to) as i64);
            let moved = if from < to { _mm256_sll_epi16(a, by) } else { _mm256_srl_epi16(a, by) };
            _mm256_and_si256(moved, _mm256_set1_epi8((1u8 << to).cast_signed()))
        }
    }

    /// The low nibbles of sixteen bytes, then the high ones.
    #[inline(always)]
    pub(crate) fn low_then_high_nibbles(self, from: &[u8; 16]) -> Vector {
        // SAFETY: 16 bytes are readable; `self` proves AVX2.
        unsafe {
            let twice = _mm256_broadcastsi128_si256(self.small_vector(from));
            let nibbles = _mm256_blend_epi32::<0xf0>(twice, _mm256_srli_epi16::<4>(twice));
            _mm256_and_si256(nibbles, _mm256_set1_epi8(15))
        }
    }

    /// Sixteen bytes.
    #[inline(always)]
    pub(crate) fn small_vector(self, from: &[u8; 16]) -> __m128i {
        // SAFETY: 16 bytes are readable; `self` proves AVX2.
        unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
    }

    /// The low nibbles of sixteen bytes, and the high ones.
    #[inline(always)]
    pub(crate) fn small_nibbles(self, from: &[u8; 16]) -> (__m128i, __m128i) {
        let bytes = self.small_vector(from);
        // SAFETY: `self` proves AVX2.
        unsafe {
            let mask = _mm_set1_epi8(15);
            (_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16::<4>(bytes), mask))
        }
    }

    /// Sixteen numbers of six bits as Q3_K packs them, less 32.
    #[inline(always)]
    pub(crate) fn small_six_bits(self, from: &[u8; 12]) -> __m128i {
        let word = |i: usize| i32::from_le_bytes([from[i], from[i + 1], from[i + 2], from[i + 3]]);
        let (first, second, upper) = (word(0), word(4), word(8));
        // SAFETY: `self` proves AVX2.
        unsafe {
            let low = _mm_srlv_epi32(_mm_setr_epi32(first, second, first, second), _mm_setr_epi32(0, 0, 4, 4));
            let low = _mm_and_si128(low, _mm_set1_epi8(15));
            let high = _mm_srlv_epi32(_mm_set1_epi32(upper), _mm_setr_epi32(0, 2, 4, 6));
            let high = _mm_slli_epi16::<4>(_mm_and_si128(high, _mm_set1_epi8(3)));
            _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32))
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn thrice(a: Vector) -> Vector {
    let mut twice = _mm256_add_epi8(a, a);
    // SAFETY: no instruction at all. Left to itself, the compiler multiplies by powers of 3, which it widens bytes for.
    unsafe { asm!("/* {0} */", inout(ymm_reg) twice, options(pure, nomem, nostack, preserves_flags)) };
    _mm256_add_epi8(twice, a)
}
