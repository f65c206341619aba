//! bfloat16 in vectors of 512 bits: rounding to it, and the transposition that brings pairs of numbers side by side.

use std::arch::x86_64::*;

/// Rounds 32 floats to bfloat16, to nearest, ties to even; subnormal numbers become zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn bf16(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits of plain data.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Returns the columns of 16 x 16 elements of 32 bits as rows.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
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
