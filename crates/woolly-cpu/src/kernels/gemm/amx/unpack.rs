//! Weights of one row decoded to bfloat16 tile rows, up to [`UNIT`] columns at a time.
//!
//! Formats of few levels look their values up: a table of 16 or 32 bfloat16 numbers is computed for every group of
//! weights, and a permutation of words applies it. Others are widened, scaled and rounded. Types without a function of
//! their own go through the codec. Layouts: the formats of `woolly-quant`, which are the oracle of the tests.

use std::arch::x86_64::*;

use woolly_quant::TensorType;

use super::pack::bf16;
use super::{COLUMNS, STEP};

/// Columns decoded at once: the block of the K-quants, or eight blocks of 32.
pub(super) const UNIT: usize = 256;

/// Decodes that many columns to rows of 32 elements [`STEP`] apart; the last is filled up with zeros.
///
/// # Safety
/// The processor has what [`crate::isa::Amx`] proves; the columns' bytes are readable, the rows writable.
pub(super) type Unpack = unsafe fn(TensorType, *const u8, usize, *mut u16);

/// Returns the function that decodes a type.
pub(super) fn of(ty: TensorType) -> Unpack {
    match ty {
        TensorType::Q4_0 => q4_0,
        TensorType::Q8_0 => q8_0,
        TensorType::Q4_K => q4_k,
        TensorType::Q5_K => q5_k,
        TensorType::Q6_K => q6_k,
        TensorType::F16 => f16,
        TensorType::BF16 => same,
        _ => decoded,
    }
}

/// Any type, by its codec.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn decoded(ty: TensorType, from: *const u8, columns: usize, to: *mut u16) {
    let mut values = [0.0; UNIT];
    // SAFETY: the caller vouches for the bytes of that many columns.
    let blocks = unsafe { std::slice::from_raw_parts(from, columns / ty.block_elements() * ty.block_bytes()) };
    if ty.decode(blocks, &mut values[..columns]).is_err() {
        // Lengths agree, so this cannot happen; were it to, a visible error is better than stale values.
        values.fill(f32::NAN);
    }
    for (step, values) in values.as_chunks::<COLUMNS>().0.iter().enumerate().take(columns.div_ceil(COLUMNS)) {
        // SAFETY: 32 elements are readable, and a row of the panel writable.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values[16..].as_ptr()));
            put(to, step, bf16(low, high));
        }
    }
}

/// Writes the row of one step.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn put(to: *mut u16, step: usize, values: __m512i) {
    // SAFETY: passed on from the caller.
    unsafe { _mm512_store_si512(to.add(step * STEP).cast(), values) };
}

/// Calls `one(from, step)` for every 32 columns, of which the last may be fewer, with the mask of those there are.
macro_rules! each_step {
    ($columns:expr, |$step:ident, $mask:ident| $body:expr) => {
        for $step in 0..$columns.div_ceil(COLUMNS) {
            let rest = $columns - $step * COLUMNS;
            let $mask = if rest >= COLUMNS { u32::MAX } else { (1 << rest) - 1 };
            $body
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn f16(_: TensorType, from: *const u8, columns: usize, to: *mut u16) {
    // SAFETY: the mask covers the columns there are.
    each_step!(columns, |step, mask| unsafe {
        let halves = _mm512_maskz_loadu_epi16(mask, from.cast::<i16>().add(step * COLUMNS));
        let low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
        let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves));
        put(to, step, bf16(low, high));
    });
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn same(_: TensorType, from: *const u8, columns: usize, to: *mut u16) {
    // SAFETY: the mask covers the columns there are.
    each_step!(columns, |step, mask| unsafe {
        put(to, step, _mm512_maskz_loadu_epi16(mask, from.cast::<i16>().add(step * COLUMNS)));
    });
}

/// The half-precision number at `from`, in all lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn half(from: *const u8) -> __m512 {
    // SAFETY: the caller vouches for two bytes.
    _mm512_cvtph_ps(_mm256_set1_epi16(unsafe { from.cast::<i16>().read_unaligned() }))
}

/// Numbers 0 to 15.
#[inline]
#[target_feature(enable = "avx512f")]
fn iota() -> __m512 {
    _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.)
}

/// Q4_0: f16 scale, 16 bytes of two codes; the low halves are the first 16 elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx512vbmi")]
unsafe fn q4_0(_: TensorType, from: *const u8, columns: usize, to: *mut u16) {
    let levels = _mm512_sub_ps(iota(), _mm512_set1_ps(8.0));
    for step in 0..columns / 32 {
        // SAFETY: a block is 18 bytes for 32 columns.
        unsafe {
            let block = from.add(18 * step);
            let values = _mm512_mul_ps(levels, half(block));
            let table = bf16(values, values);
            let codes = _mm_loadu_si128(block.add(2).cast());
            let low = _mm256_cvtepu8_epi16(codes);
            let index = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), _mm256_srli_epi16::<4>(low));
            put(to, step, _mm512_permutexvar_epi16(index, table));
        }
    }
}

/// Q8_0: f16 scale, 32 signed bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q8_0(_: TensorType, from: *const u8, columns: usize, to: *mut u16) {
    for step in 0..columns / 32 {
        // SAFETY: a block is 34 bytes for 32 columns.
        unsafe {
            let block = from.add(34 * step);
            let scale = half(block);
            put(to, step, scaled(block.add(2), scale, scale));
        }
    }
}

/// 32 signed bytes times a scale for each half of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn scaled(from: *const u8, low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller vouches for 32 bytes.
    unsafe {
        let first = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())));
        let second = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.add(16).cast())));
        bf16(_mm512_mul_ps(first, low), _mm512_mul_ps(second, high))
    }
}

/// Eight scales and eight minimums of a block of Q4_K or Q5_K, negative minimums last.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn scales_and_minimums(block: *const u8) -> [f32; 16] {
    const SIX: u64 = 0x3f3f_3f3f;
    const FOUR: u64 = 0x0f0f_0f0f;
    const TWO: u64 = 0x0303_0303;
    // SAFETY: the caller vouches for a block, which starts with 16 bytes of scales.
    unsafe {
        let word = |at: usize| u64::from(block.add(at).cast::<u32>().read_unaligned());
        let (a, b, c) = (word(4), word(8), word(12));
        let scales = (a & SIX) | ((c & FOUR) | ((a >> 6 & TWO) << 4)) << 32;
        let minimums = (b & SIX) | ((c >> 4 & FOUR) | ((b >> 6 & TWO) << 4)) << 32;
        let whole = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x(minimums as i64, scales as i64)));
        // The scale in the first eight lanes, minus the minimum in the others.
        let both = block.cast::<i32>().read_unaligned() ^ i32::MIN;
        let lanes = _mm256_shuffle_epi8(
            _mm256_set1_epi32(both),
            _mm256_set_m128i(_mm_set1_epi16(0x0302), _mm_set1_epi16(0x0100)),
        );
        let mut out = [0.0; 16];
        _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(whole, _mm512_cvtph_ps(lanes)));
        out
    }
}

/// Q4_K: f16 scale and minimum, 12 bytes of 6-bit scales and minimums of 32, 128 bytes of codes in runs of 32 bytes,
/// whose low halves are 32 elements and their high halves the next.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q4_k(_: TensorType, block: *const u8, _: usize, to: *mut u16) {
    // SAFETY: a block is 144 bytes for 256 columns.
    unsafe {
        let lines = scales_and_minimums(block);
        let (iota, nibble, second) = (iota(), _mm512_set1_epi16(15), _mm512_set1_epi16(16));
        for j in 0..4 {
            let level = |g: usize| _mm512_fmadd_ps(iota, _mm512_set1_ps(lines[g]), _mm512_set1_ps(lines[8 + g]));
            let table = bf16(level(2 * j), level(2 * j + 1));
            let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(block.add(16 + 32 * j).cast()));
            let low = _mm512_and_si512(codes, nibble);
            let high = _mm512_or_si512(_mm512_srli_epi16::<4>(codes), second);
            put(to, 2 * j, _mm512_permutexvar_epi16(low, table));
            put(to, 2 * j + 1, _mm512_permutexvar_epi16(high, table));
        }
    }
}

/// Q5_K: as Q4_K, with 32 bytes of fifth bits before the codes: bit `g` of each is that of group `g`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q5_k(_: TensorType, block: *const u8, _: usize, to: *mut u16) {
    // SAFETY: a block is 176 bytes for 256 columns.
    unsafe {
        let lines = scales_and_minimums(block);
        let (iota, nibble, fifth) = (iota(), _mm512_set1_epi16(15), _mm512_set1_epi16(16));
        let upper = _mm512_add_ps(iota, _mm512_set1_ps(16.0));
        let flags = _mm512_cvtepu8_epi16(_mm256_loadu_si256(block.add(16).cast()));
        for j in 0..4 {
            let table = |g: usize| {
                let (scale, minimum) = (_mm512_set1_ps(lines[g]), _mm512_set1_ps(lines[8 + g]));
                bf16(_mm512_fmadd_ps(iota, scale, minimum), _mm512_fmadd_ps(upper, scale, minimum))
            };
            let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(block.add(48 + 32 * j).cast()));
            let shifted = _mm512_srl_epi16(_mm512_slli_epi16::<4>(flags), _mm_cvtsi32_si128(2 * j as i32));
            let bits = [shifted, _mm512_srli_epi16::<1>(shifted)];
            let codes = [codes, _mm512_srli_epi16::<4>(codes)];
            for h in 0..2 {
                let index = _mm512_or_si512(_mm512_and_si512(codes[h], nibble), _mm512_and_si512(bits[h], fifth));
                put(to, 2 * j + h, _mm512_permutexvar_epi16(index, table(2 * j + h)));
            }
        }
    }
}

/// Q6_K: 128 bytes of low and 64 of high bits in two halves, 16 signed scales of 16 elements, f16 scale.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q6_k(_: TensorType, block: *const u8, _: usize, to: *mut u16) {
    // SAFETY: a block is 210 bytes for 256 columns.
    unsafe {
        let mut scales = [0.0_f32; 16];
        let whole = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(block.add(192).cast())));
        _mm512_storeu_ps(scales.as_mut_ptr(), _mm512_mul_ps(whole, half(block.add(208))));
        let (nibble, pair, offset) = (_mm512_set1_epi8(15), _mm512_set1_epi8(48), _mm512_set1_epi8(32));
        let mut codes = [0_u8; 256];
        for n in 0..2 {
            let low = _mm512_loadu_si512(block.add(64 * n).cast());
            let high = _mm256_loadu_si256(block.add(128 + 32 * n).cast());
            // Groups 0 and 1 take bits 0, 1 and 2, 3 of the high bytes, groups 2 and 3 bits 4, 5 and 6, 7.
            let first = _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm256_slli_epi16::<4>(high)),
                _mm256_slli_epi16::<2>(high),
            );
            let second = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(high), _mm256_srli_epi16::<2>(high));
            let halves = [(low, first), (_mm512_srli_epi16::<4>(low), second)];
            for (i, (low, high)) in halves.into_iter().enumerate() {
                let code = _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(high, pair));
                let to = codes[128 * n + 64 * i..][..64].as_mut_ptr();
                _mm512_storeu_si512(to.cast(), _mm512_sub_epi8(code, offset));
            }
        }
        for step in 0..8 {
            let (low, high) = (_mm512_set1_ps(scales[2 * step]), _mm512_set1_ps(scales[2 * step + 1]));
            put(to, step, scaled(codes[32 * step..][..32].as_ptr(), low, high));
        }
    }
}

#[cfg(test)]
mod tests {
    use woolly_quant::half::{bf16_to_f32, f32_to_bf16};

    use super::*;
    use crate::buffer::AlignedVec;
    use crate::test_data::{amx, blocks};

    #[test]
    fn every_type_means_what_the_codec_says() {
        let Some(_) = amx("every_type_means_what_the_codec_says") else { return };
        for &ty in TensorType::ALL.iter().filter(|ty| !matches!(ty, TensorType::Q8_1 | TensorType::Q8_K)) {
            let fewer = if ty.block_elements() == 1 { 77 } else { UNIT - ty.block_elements() };
            for columns in [UNIT, fewer].into_iter().filter(|&columns| columns > 0) {
                let mut bytes = vec![0];
                bytes.extend(blocks(ty, columns, 1, columns as u64));
                let mut expected = [0.0; UNIT];
                ty.decode(&bytes[1..], &mut expected[..columns]).unwrap();
                let mut found = AlignedVec::<u16>::zeroed(8 * STEP);
                found.fill(f32_to_bf16(f32::NAN));
                // SAFETY: AMX was found, the bytes are those of the columns, and eight rows are writable.
                unsafe { of(ty)(ty, bytes[1..].as_ptr(), columns, found.as_mut_ptr()) };
                for (e, &want) in expected.iter().enumerate().take(columns.next_multiple_of(COLUMNS)) {
                    let found = bf16_to_f32(found[e / COLUMNS * STEP + e % COLUMNS]);
                    // Half a step of bfloat16, and what single precision loses on the way.
                    let bound = want.abs() * (1.0 / 256.0 + 1e-6) + 4e-6;
                    assert!((found - want).abs() <= bound, "{ty}, {columns} columns, [{e}]: {found}, codec {want}");
                }
            }
        }
    }
}
