//! Primitives of AVX-512 (F, BW, DQ, VL, VNNI): 512-bit vectors, 32 registers.

use std::arch::x86_64::*;

use super::{Avx2, ByteKernel, Bytes, Kernel, Simd};

/// Proof that the processor has AVX-512 F, BW, DQ, VL and VNNI, and all that [`Avx2`] stands for without AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512 {
    amd: bool,
}

impl Avx512 {
    /// Returns the proof, or `None` on a processor without one of the features.
    #[inline]
    pub fn new() -> Option<Self> {
        let foundation = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        (foundation && Avx2::<false>::new().is_some()).then(|| Self { amd: super::amd() })
    }

    /// Whether loads of several rows, and products of bfloat16, are to be chosen as AMD's processors like them.
    ///
    /// Zen 4 takes 17 cycles to gather sixteen words, and 8 to insert them one by one; to insert 128 bits of memory in a vector of 512
    /// takes it two steps, in one of 256 one. For Intel's processors, on which both were not timed, gathering is counted to be the faster.
    /// Two products of bfloat16 a lane take Zen 4 as long as one multiply-add, and an Intel Xeon four times as long.
    #[inline(always)]
    pub(crate) fn amd(self) -> bool {
        self.amd
    }

    /// The same proof for the loads of the other processors.
    #[cfg(test)]
    pub(crate) fn of_the_other_maker(self) -> Self {
        Self { amd: !self.amd }
    }

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
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn entry<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn byte_entry<K: ByteKernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

/// Proof that the processor has AVX512_BF16, and all that [`Avx512`] stands for.
///
/// No level of its own: it speeds up one type of weights, and only where [`Avx512::amd`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// Returns the proof, or `None` on a processor without the feature.
    #[inline]
    pub(crate) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512bf16") && Avx512::new().is_some()).then_some(Self(()))
    }
}

impl Simd for Avx512 {
    const LANES: usize = 16;
    const ACCUMULATORS: usize = 16;
    type F = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> __m512 {
        let from = &from[..16];
        // SAFETY: sixteen floats are readable; `self` proves AVX-512F.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], x: __m512) {
        let to = &mut to[..16];
        // SAFETY: sixteen floats are writable; `self` proves AVX-512F.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8]) -> __m512 {
        let from = &from[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX-512F.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8]) -> __m512 {
        let from = &from[..32];
        // SAFETY: 32 bytes are readable; `self` proves AVX-512F.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8]) -> __m512 {
        let from = &from[..64];
        // SAFETY: 64 bytes are readable, at any alignment; `self` proves AVX-512F.
        unsafe { _mm512_loadu_ps(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2_int(self, n: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512 DQ and VL.
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn max_lane(self, a: __m512) -> f32 {
        // SAFETY: `self` proves AVX-512 DQ and VL.
        unsafe {
            let eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
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

impl Bytes for Avx512 {
    const WIDTH: usize = 64;
    const SIGNED_BIAS: f32 = 128.0;
    type I = __m512i;
    type F8 = __m256;
    type F16 = __m512;

    #[inline(always)]
    fn bytes(self, from: &[u8]) -> __m512i {
        let from = &from[..64];
        // SAFETY: 64 bytes are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn pieces16<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> __m512i {
        if STRIDE % 2 == 1 {
            let piece = |i: usize| from[STRIDE * i + OFFSET..][..16].as_ptr().cast();
            // SAFETY: 16 bytes are readable at each of the four places; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
            unsafe {
                let low = _mm256_loadu2_m128i(piece(1), piece(0));
                let high = _mm256_loadu2_m128i(piece(3), piece(2));
                return _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            }
        }
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { words(from, 4 * STRIDE, const { &piece_words(STRIDE, OFFSET, 16) }) }
    }

    #[inline(always)]
    fn pieces32<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> __m512i {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { words(from, 2 * STRIDE, const { &piece_words(STRIDE, OFFSET, 32) }) }
    }

    #[inline(always)]
    fn halves<const STRIDE: usize, const OFFSET: usize, const PER: usize>(self, from: &[u8]) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let halves = words(from, STRIDE * 16 / PER, const { &scale_words(STRIDE, OFFSET, PER) });
            _mm512_cvtph_ps(_mm512_castsi512_si256(halves))
        }
    }

    #[inline(always)]
    fn splat_byte(self, x: u8) -> __m512i {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_set1_epi8(x.cast_signed()) }
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn high_nibbles(self, a: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    fn two_bits(self, a: __m512i, bits: usize) -> __m512i {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_and_si512(_mm512_srl_epi16(a, _mm_cvtsi64_si128(bits as i64)), _mm512_set1_epi8(3)) }
    }

    #[inline(always)]
    fn fifth_bits(self, w: __m512i, flags: &[u8; 32], first: usize) -> __m512i {
        // SAFETY: 32 bytes are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(flags.as_ptr().cast()));
            let low = _mm512_set1_epi8((1u8 << first).cast_signed());
            let flag = _mm512_mask_set1_epi8(low, 0xffff_ffff_0000_0000, (4u8 << first).cast_signed());
            _mm512_mask_add_epi8(w, _mm512_test_epi8_mask(twice, flag), w, _mm512_set1_epi8(16))
        }
    }

    #[inline(always)]
    fn upper_bits(self, pairs: &[u8], first: usize) -> __m512i {
        let pairs = &pairs[..32];
        let (low, high) = (36 - 2 * first as i32, 34 - 2 * first as i32);
        // SAFETY: 32 bytes are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(pairs.as_ptr().cast()));
            let by = _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
            _mm512_and_si512(_mm512_rolv_epi32(twice, by), _mm512_set1_epi8(0x30))
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], index: __m512i) -> __m512i {
        // SAFETY: the table is 16 bytes; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), index)
        }
    }

    #[inline(always)]
    fn dot_u8(self, w: __m512i, a: &[i8]) -> __m512 {
        let a = &a[..64];
        // SAFETY: 64 bytes are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let a = _mm512_loadu_si512(a.as_ptr().cast());
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a))
        }
    }

    #[inline(always)]
    fn dot_i8(self, w: __m512i, a: &[i8]) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { self.dot_u8(_mm512_xor_si512(w, _mm512_set1_epi8(-128)), a) }
    }

    #[inline(always)]
    fn negated(self, w: __m512i, signs: u64) -> __m512i {
        // SAFETY: `self` proves AVX-512BW.
        unsafe { _mm512_mask_sub_epi8(w, signs, _mm512_setzero_si512(), w) }
    }

    #[inline(always)]
    fn dot_signs(self, w: __m512i, signs: u64, a: &[i8]) -> __m512 {
        let a = &a[..64];
        // SAFETY: 64 bytes are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let a = self.negated(_mm512_loadu_si512(a.as_ptr().cast()), signs);
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w, a))
        }
    }

    #[inline(always)]
    fn dot2_u8(self, w: [__m512i; 2], a: [&[i8]; 2]) -> __m512 {
        let (first, second) = (&a[0][..64], &a[1][..64]);
        // SAFETY: 64 bytes are readable at both places; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let (first, second) =
                (_mm512_loadu_si512(first.as_ptr().cast()), _mm512_loadu_si512(second.as_ptr().cast()));
            let sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), w[0], first);
            _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(sums, w[1], second))
        }
    }

    #[inline(always)]
    fn dot2_i8(self, w: [__m512i; 2], a: [&[i8]; 2]) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let top = _mm512_set1_epi8(-128);
            self.dot2_u8([_mm512_xor_si512(w[0], top), _mm512_xor_si512(w[1], top)], a)
        }
    }

    #[inline(always)]
    fn dot2_table(self, table: &[i8; 16], index: [__m512i; 2], a: [&[i8]; 2]) -> __m512 {
        // What all entries have added need not be added to each weight.
        let table = table.map(|entry| entry ^ i8::MIN);
        self.dot2_u8([self.lookup(&table, index[0]), self.lookup(&table, index[1])], a)
    }

    #[inline(always)]
    fn quarter_u8(self, w: __m512i, q: usize) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let moved = match q {
                0 => w,
                1 => _mm512_srli_epi32::<8>(w),
                2 => _mm512_srli_epi32::<16>(w),
                _ => _mm512_srli_epi32::<24>(w),
            };
            _mm512_cvtepi32_ps(_mm512_and_si512(moved, _mm512_set1_epi32(255)))
        }
    }

    #[inline(always)]
    fn quarter_i8(self, w: __m512i, q: usize) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let moved = match q {
                0 => _mm512_slli_epi32::<24>(w),
                1 => _mm512_slli_epi32::<16>(w),
                2 => _mm512_slli_epi32::<8>(w),
                _ => w,
            };
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(moved))
        }
    }

    #[inline(always)]
    fn half(self, from: [u8; 2]) -> f32 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(u16::from_le_bytes(from))))) }
    }

    #[inline(always)]
    fn scales8(self, from: u64, by: f32) -> __m256 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(from.cast_signed()));
            _mm256_mul_ps(_mm256_cvtepi32_ps(wide), _mm256_set1_ps(by))
        }
    }

    #[inline(always)]
    fn mul8(self, a: __m256, b: &[f32; 8]) -> __m256 {
        // SAFETY: eight floats are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm256_mul_ps(a, _mm256_loadu_ps(b.as_ptr())) }
    }

    #[inline(always)]
    fn sub_mul8(self, a: __m256, b: &[f32; 8], c: __m512) -> __m512 {
        // SAFETY: eight floats are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let b = _mm512_zextps256_ps512(_mm256_loadu_ps(b.as_ptr()));
            _mm512_fnmadd_ps(_mm512_zextps256_ps512(a), b, c)
        }
    }

    #[inline(always)]
    fn spread8(self, a: __m256, i: usize) -> __m512 {
        let i = i as i32;
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let index = _mm512_mask_set1_epi32(_mm512_set1_epi32(i), 0xff00, i + 2);
            _mm512_permutexvar_ps(index, _mm512_castps256_ps512(a))
        }
    }

    #[inline(always)]
    fn scales16(self, from: &[u8; 16], by: f32) -> __m512 {
        // SAFETY: 16 bytes are readable; `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let wide = _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()));
            _mm512_mul_ps(_mm512_cvtepi32_ps(wide), _mm512_set1_ps(by))
        }
    }

    #[inline(always)]
    fn mul16(self, a: __m512, b: &[f32; 16]) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_mul_ps(a, self.load(b)) }
    }

    #[inline(always)]
    fn sub_mul16(self, a: __m512, b: &[f32; 16], c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe { _mm512_fnmadd_ps(a, self.load(b), c) }
    }

    #[inline(always)]
    fn spread16<const STEP: usize>(self, a: __m512, i: usize) -> __m512 {
        let far = STEP as i32;
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let offsets =
                _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, far, far, far, far, far + 1, far + 1, far + 1, far + 1);
            _mm512_permutexvar_ps(_mm512_add_epi32(_mm512_set1_epi32(i as i32), offsets), a)
        }
    }

    #[inline(always)]
    fn fifth_bits_of<const STRIDE: usize, const OFFSET: usize>(
        self,
        [low_nibbles, high_nibbles]: [__m512i; 2],
        from: &[u8],
    ) -> [__m512i; 2] {
        // SAFETY: `self` proves AVX-512 (F, BW, DQ, VL, VNNI).
        unsafe {
            let flags = words(from, 4 * STRIDE, const { &flag_words(STRIDE, OFFSET) });
            let flags = _mm512_castsi512_si128(flags);
            let (low, high) = (_mm_cvtsi128_si64(flags), _mm_extract_epi64::<1>(flags));
            let sixteen = _mm512_set1_epi8(16);
            [
                _mm512_mask_add_epi8(low_nibbles, low.cast_unsigned(), low_nibbles, sixteen),
                _mm512_mask_add_epi8(high_nibbles, high.cast_unsigned(), high_nibbles, sixteen),
            ]
        }
    }

    #[inline(always)]
    fn third_bits(self, w: __m512i, flags: &[u8; 32], first: usize) -> __m512i {
        // SAFETY: 32 bytes are readable; `self` proves AVX-512BW.
        unsafe {
            let twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(flags.as_ptr().cast()));
            let low = _mm512_set1_epi8((1u8 << first).cast_signed());
            let flag = _mm512_mask_set1_epi8(low, 0xffff_ffff_0000_0000, (16u8 << first).cast_signed());
            _mm512_mask_add_epi8(w, _mm512_test_epi8_mask(twice, flag), w, _mm512_set1_epi8(4))
        }
    }

    #[inline(always)]
    fn fours(self, from: &[f32]) -> __m512 {
        let from = &from[..4];
        // SAFETY: four floats are readable; `self` proves AVX-512F.
        unsafe {
            let index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_permutexvar_ps(index, _mm512_castps128_ps512(_mm_loadu_ps(from.as_ptr())))
        }
    }
}

/// Picks 32 words out of the first `len` (64 to 128) bytes, which are read as their first and their last 64.
///
/// One shuffle of two unaligned loads replaces an insertion for every piece.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(from: &[u8], len: usize, pick: &[u16; 32]) -> __m512i {
    let from = &from[..len];
    let (first, last) = (&from[..64], &from[len - 64..][..64]);
    // SAFETY: 64 bytes are readable at all three places.
    unsafe {
        let first = _mm512_loadu_si512(first.as_ptr().cast());
        let last = _mm512_loadu_si512(last.as_ptr().cast());
        _mm512_permutex2var_epi16(first, _mm512_loadu_si512(pick.as_ptr().cast()), last)
    }
}

/// The index for [`words`] of the word `byte / 2` of `len` bytes.
const fn word(byte: usize, len: usize) -> u16 {
    let index = if byte < 64 { byte / 2 } else { 32 + (byte + 64 - len) / 2 };
    index as u16
}

const fn piece_words(stride: usize, offset: usize, piece: usize) -> [u16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 32 {
        let byte = 2 * i;
        table[i] = word(byte / piece * stride + offset + byte % piece, 64 / piece * stride);
        i += 1;
    }
    table
}

/// The lower words of four pairs, then the upper ones.
const fn flag_words(stride: usize, offset: usize) -> [u16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 8 {
        table[i] = word(i % 4 * stride + offset + i / 4 * 2, 4 * stride);
        i += 1;
    }
    table
}

const fn scale_words(stride: usize, offset: usize, per: usize) -> [u16; 32] {
    let mut table = [0; 32];
    let mut i = 0;
    while i < 16 {
        table[i] = word(i / per * stride + offset, 16 / per * stride);
        i += 1;
    }
    table
}
