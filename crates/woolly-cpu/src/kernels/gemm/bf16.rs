//! Rounding to bfloat16 in vectors of 512 bits.

use std::arch::x86_64::*;

/// Rounds 32 floats to bfloat16, to nearest, ties to even; subnormal numbers become zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn bf16(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits of plain data.
    unsafe { std::mem::transmute(_mm512_cvtne2ps_pbh(high, low)) }
}
