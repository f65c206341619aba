//! Vectors of AVX2 with FMA and F16C: 8 elements.

use std::arch::x86_64::*;

use super::{TileSimd, Wide};
use crate::isa::Avx2;

// SAFETY of every block here: the token proves the instructions; memory is the caller's part of the contract.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument above covers all: the token is the proof")]
impl<const VNNI: bool> TileSimd for Avx2<VNNI> {
    const INT_TILE: usize = 3;
    const NARROW_DOT: bool = !VNNI;
    const WIDE: Wide = if VNNI { Wide::Whole } else { Wide::Halves };
    type I = __m256i;

    #[inline(always)]
    fn zero_below(self, a: __m256, x: __m256, limit: f32) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, _mm256_set1_ps(limit)), a) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }

    // The i16 sums of two products stay below 2 · 127 · 127 < 2¹⁵ when the weights are at most 127.
    #[inline(always)]
    fn dot(self, acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(acc, w, a);
            }
            let pairs = _mm256_maddubs_epi16(w, a);
            _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    // |w| ≤ 128 and |a| ≤ 127, so a sum of two products is at most 32,512 and fits an i16.
    #[inline(always)]
    fn dot_signed(self, acc: __m256i, w: __m256i, a: __m256i) -> __m256i {
        unsafe { self.dot(acc, _mm256_abs_epi8(w), _mm256_sign_epi8(a, w)) }
    }

    // Small products are summed as i16 for as long as that cannot overflow: a widening saved is two instructions.
    #[inline(always)]
    unsafe fn dots<const T: usize, const QUADS: usize, const LARGEST: u8>(
        self,
        acc: &mut [[__m256i; 2]; T],
        weights: *const i32,
        quads: *const i32,
        stride: usize,
    ) {
        let chain = const {
            let fits = i16::MAX as usize / (2 * 127 * if LARGEST == 0 { 255 } else { LARGEST as usize });
            match fits {
                _ if VNNI => 1,
                0..2 => 1,
                2..4 => 2,
                4..8 => 4,
                _ => QUADS,
            }
        };
        for first in (0..QUADS).step_by(chain) {
            unsafe {
                let mut pairs = [[_mm256_setzero_si256(); 2]; T];
                for q in first..first + chain {
                    let w = weights.add(2 * q * 8);
                    let w = [self.load_int_at(w), self.load_int_at(w.add(8))];
                    for t in 0..T {
                        let a = self.splat_int(*quads.add(q * stride + t));
                        for v in 0..2 {
                            if chain == 1 {
                                acc[t][v] = self.dot(acc[t][v], w[v], a);
                            } else {
                                pairs[t][v] = _mm256_add_epi16(pairs[t][v], _mm256_maddubs_epi16(w[v], a));
                            }
                        }
                    }
                    if chain > 4 {
                        pairs.iter_mut().flatten().for_each(|sum| in_this_order(sum));
                    }
                }
                if chain > 1 {
                    for (acc, pairs) in acc.iter_mut().zip(pairs) {
                        for v in 0..2 {
                            let sums = _mm256_madd_epi16(pairs[v], _mm256_set1_epi16(1));
                            acc[v] = _mm256_add_epi32(acc[v], sums);
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn to_float(self, a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn to_int(self, a: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I, by: u32) -> Self::I {
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I, by: u32) -> Self::I {
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    fn shift_right_signed(self, a: Self::I, by: u32) -> Self::I {
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_sub_epi8(a, b) }
    }

    #[inline(always)]
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm256_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], a: Self::I) -> Self::I {
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            _mm256_shuffle_epi8(table, a)
        }
    }

    #[inline(always)]
    fn bits_to_float(self, a: Self::I) -> Self::F {
        unsafe { _mm256_castsi256_ps(a) }
    }

    #[inline(always)]
    fn low_half(self, a: Self::I) -> Self::F {
        unsafe {
            // The low halves of both 128-bit lanes side by side.
            let halves = _mm256_and_si256(a, _mm256_set1_epi32(0xffff));
            let packed = _mm256_permute4x64_epi64::<0x08>(_mm256_packus_epi32(halves, halves));
            _mm256_cvtph_ps(_mm256_castsi256_si128(packed))
        }
    }

    #[inline(always)]
    unsafe fn load_word_of_rows(self, start: *const u8, stride: usize) -> Self::I {
        unsafe {
            let word = |row: usize| start.add(row * stride).cast::<i32>().read_unaligned();
            _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7))
        }
    }

    #[inline(always)]
    unsafe fn load_four_of_rows(self, start: *const u8, stride: usize) -> [Self::I; 4] {
        unsafe {
            let load = |row: usize| _mm_loadu_si128(start.add(row * stride).cast());
            // Row i and i + 4, then 4 x 4 transpositions in the lanes.
            let two = |row: usize| _mm256_set_m128i(load(row + 4), load(row));
            let (a, b, c, d) = (two(0), two(1), two(2), two(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
            [
                _mm256_unpacklo_epi64(ab_low, cd_low),
                _mm256_unpackhi_epi64(ab_low, cd_low),
                _mm256_unpacklo_epi64(ab_high, cd_high),
                _mm256_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_at(self, p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_half_at(self, p: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    fn splat_half(self, bits: u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn load_quarter_at(self, p: *const i32, quarter: usize) -> __m256 {
        unsafe {
            let up = _mm_cvtsi32_si128(24 - 8 * quarter as i32);
            let top = _mm256_sll_epi32(_mm256_loadu_si256(p.cast()), up);
            _mm256_cvtepi32_ps(_mm256_srai_epi32::<24>(top))
        }
    }

    #[inline(always)]
    unsafe fn load_nibbles_at(self, p: *const u8, high: bool) -> __m256 {
        unsafe {
            let q = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
            let q = if high { _mm256_srli_epi32::<4>(q) } else { _mm256_and_si256(q, _mm256_set1_epi32(15)) };
            _mm256_cvtepi32_ps(q)
        }
    }

    #[inline(always)]
    unsafe fn store_at(self, a: __m256, p: *mut f32) {
        unsafe { _mm256_storeu_ps(p, a) }
    }

    #[inline(always)]
    unsafe fn load_int_at(self, p: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store_int_at(self, a: __m256i, p: *mut i32) {
        unsafe { _mm256_storeu_si256(p.cast(), a) }
    }

    #[inline(always)]
    fn prefetch_at(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    fn prefetch_beyond_at(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const i32, from_stride: usize, to: *mut i32, to_stride: usize) {
        unsafe {
            let mut r = [_mm256_setzero_si256(); 8];
            for (i, row) in r.iter_mut().enumerate() {
                *row = _mm256_loadu_si256(from.add(i * from_stride).cast());
            }
            for (i, row) in transposed(r).into_iter().enumerate() {
                _mm256_storeu_si256(to.add(i * to_stride).cast(), row);
            }
        }
    }
}

/// Transposes a square of 8 x 8.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(crate) unsafe fn transposed(r: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        // Pairs of rows by 32 bits, then by 64: u[4i + j] holds column j of rows 4i..4i + 4 in each half.
        let mut t = r;
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..2 {
            for j in 0..2 {
                u[4 * i + 2 * j] = _mm256_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
                u[4 * i + 2 * j + 1] = _mm256_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
            }
        }
        let mut out = u;
        for j in 0..4 {
            out[j] = _mm256_permute2x128_si256::<0x20>(u[j], u[4 + j]);
            out[4 + j] = _mm256_permute2x128_si256::<0x31>(u[j], u[4 + j]);
        }
        out
    }
}

/// Says that a sum is needed as it is now. Left to itself, the compiler makes trees of long sums, which take more registers than
/// there are (docs/performance.md).
#[inline]
#[target_feature(enable = "avx2")]
fn in_this_order(sum: &mut __m256i) {
    // SAFETY: there is no instruction in it.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) * sum, options(nomem, nostack, preserves_flags)) };
}
