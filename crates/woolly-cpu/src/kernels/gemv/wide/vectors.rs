//! Loads and moves that the types have in common.

use std::arch::x86_64::*;

/// 32 bytes in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn twice(from: &[u8]) -> __m512i {
    let from = &from[..32];
    // SAFETY: 32 bytes are readable.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

/// The 16 bytes at `place`.
#[inline(always)]
pub(super) fn at<const BYTES: usize>(block: &[u8; BYTES], place: usize) -> &[u8; 16] {
    block[place..].first_chunk().expect("16 bytes")
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load16(from: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes are readable.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

/// Four times 16 bytes, one a lane.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lanes(from: [&[u8; 16]; 4]) -> __m512i {
    let low = _mm256_set_m128i(load16(from[1]), load16(from[0]));
    let high = _mm256_set_m128i(load16(from[3]), load16(from[2]));
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The half-precision number at place `AT` of each lane, in all elements of the lane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn lane_halves<const AT: usize>(from: __m512i) -> __m512 {
    let index = const {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 16 {
            index[i] = (8 * (i / 4) + AT) as u16;
            i += 1;
        }
        index
    };
    _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(words(&index), from)))
}

/// Lane `R` in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn lane<const R: usize>(from: __m512) -> __m512 {
    match R {
        0 => _mm512_shuffle_f32x4::<0b00_00_00_00>(from, from),
        1 => _mm512_shuffle_f32x4::<0b01_01_01_01>(from, from),
        2 => _mm512_shuffle_f32x4::<0b10_10_10_10>(from, from),
        _ => _mm512_shuffle_f32x4::<0b11_11_11_11>(from, from),
    }
}

/// Eight words in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn broadcast8(from: &[i16; 8]) -> __m512i {
    // SAFETY: 16 bytes are readable.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })
}

/// Sixteen words in both halves.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn broadcast16(from: &[i16; 16]) -> __m512i {
    // SAFETY: 32 bytes are readable.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(from.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn words(from: &[u16; 32]) -> __m512i {
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T>(from: &[T; 64]) -> __m512i {
    const { assert!(size_of::<T>() == 1) };
    // SAFETY: 64 bytes are readable.
    unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
}

/// Signed bytes of the first two lanes, and of the others, as words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
pub(super) fn words_of_bytes(bytes: __m512i) -> [__m512i; 2] {
    let upper = _mm512_extracti64x4_epi64::<1>(bytes);
    [_mm512_cvtepi8_epi16(_mm512_castsi512_si256(bytes)), _mm512_cvtepi8_epi16(upper)]
}
