//! Vectors of AVX-512 (F, BW, DQ, VL, VNNI): 16 elements.

use std::arch::x86_64::*;

use super::TileSimd;
use crate::isa::Avx512;

// SAFETY of every block here: the token proves the instructions; memory is the caller's part of the contract.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument above covers all: the token is the proof")]
impl TileSimd for Avx512 {
    const INT_TILE: usize = 6;
    const NARROW_DOT: bool = false;
    type I = __m512i;

    #[inline(always)]
    fn zero_below(self, a: __m512, x: __m512, limit: f32) -> __m512 {
        unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, _mm512_set1_ps(limit)), a) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, w, a) }
    }

    // (w + 128) is unsigned; the surplus 128 · Σa comes off again.
    #[inline(always)]
    fn dot_signed(self, acc: __m512i, w: __m512i, a: __m512i) -> __m512i {
        unsafe {
            let top = _mm512_set1_epi8(-128);
            let surplus = _mm512_dpbusd_epi32(_mm512_setzero_si512(), top, a);
            _mm512_sub_epi32(self.dot(acc, _mm512_xor_si512(w, top), a), surplus)
        }
    }

    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn to_int(self, a: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I, by: u32) -> Self::I {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I, by: u32) -> Self::I {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    fn shift_right_signed(self, a: Self::I, by: u32) -> Self::I {
        unsafe { _mm512_sra_epi32(a, _mm_cvtsi32_si128(by.cast_signed())) }
    }

    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_sub_epi8(a, b) }
    }

    #[inline(always)]
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { _mm512_mullo_epi32(a, b) }
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], a: Self::I) -> Self::I {
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), a) }
    }

    #[inline(always)]
    fn bits_to_float(self, a: Self::I) -> Self::F {
        unsafe { _mm512_castsi512_ps(a) }
    }

    #[inline(always)]
    fn low_half(self, a: Self::I) -> Self::F {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)) }
    }

    // Distances in a gathering load are 32 bits: sixteen loads where they may be longer.
    #[inline(always)]
    unsafe fn load_word_of_rows(self, start: *const u8, stride: usize) -> Self::I {
        unsafe {
            if self.amd() {
                return words_of_rows(start, stride);
            }
            if stride <= i32::MAX as usize / 16 {
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let index = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32));
                return _mm512_i32gather_epi32::<1>(index, start.cast());
            }
            words_of_rows(start, stride)
        }
    }

    #[inline(always)]
    unsafe fn load_four_of_rows(self, start: *const u8, stride: usize) -> [Self::I; 4] {
        unsafe {
            // Row i and every fourth after it, 128 bits each; then 4 x 4 transpositions in the lanes.
            let [a, b, c, d] = if self.amd() {
                [
                    join(two_rows(start, 0, stride), two_rows(start, 8, stride)),
                    join(two_rows(start, 1, stride), two_rows(start, 9, stride)),
                    join(two_rows(start, 2, stride), two_rows(start, 10, stride)),
                    join(two_rows(start, 3, stride), two_rows(start, 11, stride)),
                ]
            } else {
                [
                    four_rows(start, 0, stride),
                    four_rows(start, 1, stride),
                    four_rows(start, 2, stride),
                    four_rows(start, 3, stride),
                ]
            };
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            [
                _mm512_unpacklo_epi64(ab_low, cd_low),
                _mm512_unpackhi_epi64(ab_low, cd_low),
                _mm512_unpacklo_epi64(ab_high, cd_high),
                _mm512_unpackhi_epi64(ab_high, cd_high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_at(self, p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    unsafe fn load_half_at(self, p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    fn splat_half(self, bits: u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(bits.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn load_quarter_at(self, p: *const i32, quarter: usize) -> __m512 {
        unsafe {
            let up = _mm_cvtsi32_si128(24 - 8 * quarter as i32);
            let top = _mm512_sll_epi32(_mm512_loadu_si512(p.cast()), up);
            _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(top))
        }
    }

    #[inline(always)]
    unsafe fn store_split_at(self, a: __m512i, high: *mut u8, low: *mut u8) {
        unsafe {
            _mm_storeu_si128(low.cast(), _mm512_cvtepi32_epi8(a));
            _mm_storeu_si128(high.cast(), _mm512_cvtepi32_epi8(_mm512_srli_epi32::<8>(a)));
        }
    }

    #[inline(always)]
    unsafe fn load_nibbles_at(self, p: *const u8, high: bool) -> __m512 {
        unsafe {
            let q = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            let q = if high { _mm512_srli_epi32::<4>(q) } else { _mm512_and_si512(q, _mm512_set1_epi32(15)) };
            _mm512_cvtepi32_ps(q)
        }
    }

    #[inline(always)]
    unsafe fn store_at(self, a: __m512, p: *mut f32) {
        unsafe { _mm512_storeu_ps(p, a) }
    }

    #[inline(always)]
    unsafe fn load_int_at(self, p: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    unsafe fn store_int_at(self, a: __m512i, p: *mut i32) {
        unsafe { _mm512_storeu_si512(p.cast(), a) }
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
            let mut r = [_mm512_setzero_si512(); 16];
            for (i, row) in r.iter_mut().enumerate() {
                *row = _mm512_loadu_si512(from.add(i * from_stride).cast());
            }
            for (i, column) in transposed16(r).into_iter().enumerate() {
                _mm512_storeu_si512(to.add(i * to_stride).cast(), column);
            }
        }
    }
}

/// Returns the columns of 16 x 16 elements of 32 bits as rows.
///
/// # Safety
/// The processor has AVX-512.
#[inline(always)]
pub(crate) unsafe fn transposed16(r: [__m512i; 16]) -> [__m512i; 16] {
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        // Pairs of rows by 32 bits, then by 64: u[4i + j] holds column j of rows 4i..4i+4 in each 128-bit lane.
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..4 {
            for j in 0..2 {
                u[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + 2 + j]);
                u[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + 2 + j]);
            }
        }
        // A 4 x 4 transposition of 128-bit lanes for each j: lane l of row group i goes to column 4l + j, part i.
        for j in 0..4 {
            let even_low = _mm512_shuffle_i32x4::<0x88>(u[j], u[4 + j]);
            let odd_low = _mm512_shuffle_i32x4::<0xdd>(u[j], u[4 + j]);
            let even_high = _mm512_shuffle_i32x4::<0x88>(u[8 + j], u[12 + j]);
            let odd_high = _mm512_shuffle_i32x4::<0xdd>(u[8 + j], u[12 + j]);
            t[j] = _mm512_shuffle_i32x4::<0x88>(even_low, even_high);
            t[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
            t[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even_low, even_high);
            t[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
        }
        t
    }
}

// Functions and no closures below: those that are used several times would not be inlined.

/// Loads four bytes from each of sixteen rows, one by one.
///
/// # Safety
/// The processor has the instructions of [`Avx512`], and all of the bytes must be valid for reading.
#[inline(always)]
unsafe fn words_of_rows(start: *const u8, stride: usize) -> __m512i {
    // SAFETY: passed on from the caller.
    unsafe {
        let low = _mm256_set_m128i(four_words(start, 4, stride), four_words(start, 0, stride));
        join(low, _mm256_set_m128i(four_words(start, 12, stride), four_words(start, 8, stride)))
    }
}

/// Loads four bytes from each of the four rows from `row` on.
///
/// # Safety
/// As [`words_of_rows`].
#[inline(always)]
unsafe fn four_words(start: *const u8, row: usize, stride: usize) -> __m128i {
    // SAFETY: passed on from the caller.
    unsafe {
        let at = start.add(row * stride).cast::<i32>();
        let v = _mm_cvtsi32_si128(at.read_unaligned());
        let v = _mm_insert_epi32::<1>(v, at.byte_add(stride).read_unaligned());
        let v = _mm_insert_epi32::<2>(v, at.byte_add(2 * stride).read_unaligned());
        _mm_insert_epi32::<3>(v, at.byte_add(3 * stride).read_unaligned())
    }
}

/// Loads sixteen bytes from `row` and from the fourth after it.
///
/// # Safety
/// As [`words_of_rows`].
#[inline(always)]
unsafe fn two_rows(start: *const u8, row: usize, stride: usize) -> __m256i {
    // SAFETY: passed on from the caller.
    unsafe {
        let first = _mm_loadu_si128(start.add(row * stride).cast());
        _mm256_set_m128i(_mm_loadu_si128(start.add((row + 4) * stride).cast()), first)
    }
}

/// Loads sixteen bytes from `row` and from every fourth after it.
///
/// # Safety
/// As [`words_of_rows`].
#[inline(always)]
unsafe fn four_rows(start: *const u8, row: usize, stride: usize) -> __m512i {
    // SAFETY: passed on from the caller.
    unsafe {
        let v = _mm512_castsi128_si512(_mm_loadu_si128(start.add(row * stride).cast()));
        let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(start.add((row + 4) * stride).cast()));
        let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(start.add((row + 8) * stride).cast()));
        _mm512_inserti32x4::<3>(v, _mm_loadu_si128(start.add((row + 12) * stride).cast()))
    }
}

/// Returns a vector of both halves.
///
/// # Safety
/// The processor has the instructions of [`Avx512`].
#[inline(always)]
unsafe fn join(low: __m256i, high: __m256i) -> __m512i {
    // SAFETY: passed on from the caller.
    unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn loaded(simd: Avx512, bytes: &[u8], stride: usize) -> [[i32; 16]; 5] {
        assert!(bytes.len() >= 15 * stride + 16);
        let mut found = [[0; 16]; 5];
        // SAFETY: sixteen bytes of each row are readable; sixteen integers are writable.
        unsafe {
            let [a, b, c, d] = simd.load_four_of_rows(bytes.as_ptr(), stride);
            let word = simd.load_word_of_rows(bytes.as_ptr(), stride);
            for (found, vector) in found.iter_mut().zip([a, b, c, d, word]) {
                _mm512_storeu_si512(found.as_mut_ptr().cast(), vector);
            }
        }
        found
    }

    #[test]
    fn rows_come_side_by_side_in_the_way_of_each_maker() {
        let Some(simd) = Avx512::new() else { return };
        for stride in [16, 18, 34, 144, 1153] {
            let bytes: Vec<u8> = (0..15 * stride + 16).map(|i| (i * 31 % 251) as u8).collect();
            let word = |row: usize, i: usize| {
                i32::from_le_bytes(*bytes[row * stride + 4 * i..].first_chunk().expect("four bytes"))
            };
            for simd in [simd, simd.of_the_other_maker()] {
                // SAFETY: `simd` proves the instructions.
                let found = unsafe { loaded(simd, &bytes, stride) };
                for (i, found) in found.iter().enumerate() {
                    let expected: [i32; 16] = std::array::from_fn(|row| word(row, i % 4));
                    assert_eq!(*found, expected, "{simd:?}, rows {stride} bytes apart, word {i}");
                }
            }
        }
    }
}
