//! Weights of one row decoded to bfloat16 tile rows, a few columns at a time.
//!
//! Formats of few levels look their values up: a table of 16 or 32 bfloat16 numbers is computed for every group of
//! weights, and a permutation of words applies it. Others are widened, scaled and rounded. Types without a function of
//! their own are decoded first. Layouts: the formats of `woolly-quant`, which are the oracle of the tests.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

use woolly_quant::TensorType;

use super::{COLUMNS, STEP};
use crate::kernels::gemm::bf16::bf16;
use crate::kernels::unpacked;

/// Columns decoded at once: the block of the K-quants, or eight blocks of 32.
pub(super) const UNIT: usize = 256;

/// Columns decoded by one call: two steps.
pub(super) const PART: usize = 2 * COLUMNS;

/// Where one unit of a row lies and where it goes.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) ty: TensorType,
    /// The unit's blocks.
    pub(super) from: *const u8,
    /// Its columns: [`UNIT`], or fewer at the end of a row.
    pub(super) columns: usize,
    /// Its row of the first step; those of further ones follow [`STEP`] apart.
    pub(super) to: *mut u16,
    /// What the first part computes for the others.
    pub(super) lines: [f32; 16],
}

/// Decodes parts of a unit, [`PART`] columns or what is left each; the last step is filled up with zeros. Parts go in
/// order, in one call or several.
///
/// # Safety
/// The processor has what [`crate::isa::Amx`] proves; the unit's bytes are readable, its rows writable; the parts exist.
pub(super) type Unpack = unsafe fn(&mut Unit, Range<usize>);

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

/// Any type: the first part decodes the whole unit.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn decoded(unit: &mut Unit, parts: Range<usize>) {
    if parts.start > 0 {
        return;
    }
    let mut values = [0.0; UNIT];
    let bytes = unit.columns / unit.ty.block_elements() * unit.ty.block_bytes();
    // SAFETY: the caller vouches for the bytes of that many columns.
    let blocks = unsafe { std::slice::from_raw_parts(unit.from, bytes) };
    unpacked::decode(unit.ty, blocks, &mut values[..unit.columns]);
    for (step, values) in values.as_chunks::<COLUMNS>().0.iter().enumerate().take(unit.columns.div_ceil(COLUMNS)) {
        // SAFETY: 32 elements are readable, and a row of the panel writable.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values[16..].as_ptr()));
            put(unit, step, bf16(low, high));
        }
    }
}

/// Writes the row of one step.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn put(unit: &Unit, step: usize, values: __m512i) {
    // SAFETY: passed on from the caller.
    unsafe { _mm512_store_si512(unit.to.add(step * STEP).cast(), values) };
}

/// Returns the steps of parts that exist.
#[inline]
fn steps(unit: &Unit, parts: Range<usize>) -> Range<usize> {
    2 * parts.start..(2 * parts.end).min(unit.columns.div_ceil(COLUMNS))
}

/// Returns the mask of the columns of a step that exist.
#[inline]
fn mask(unit: &Unit, step: usize) -> u32 {
    let rest = unit.columns - step * COLUMNS;
    if rest >= COLUMNS { u32::MAX } else { (1 << rest) - 1 }
}

#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn f16(unit: &mut Unit, parts: Range<usize>) {
    for step in steps(unit, parts) {
        // SAFETY: the mask covers the columns there are.
        unsafe {
            let halves = _mm512_maskz_loadu_epi16(mask(unit, step), unit.from.cast::<i16>().add(step * COLUMNS));
            let low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
            let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves));
            put(unit, step, bf16(low, high));
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn same(unit: &mut Unit, parts: Range<usize>) {
    for step in steps(unit, parts) {
        // SAFETY: the mask covers the columns there are.
        unsafe {
            let from = unit.from.cast::<i16>().add(step * COLUMNS);
            put(unit, step, _mm512_maskz_loadu_epi16(mask(unit, step), from));
        }
    }
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
unsafe fn q4_0(unit: &mut Unit, parts: Range<usize>) {
    let levels = _mm512_sub_ps(iota(), _mm512_set1_ps(8.0));
    for step in steps(unit, parts) {
        // SAFETY: a block is 18 bytes for 32 columns.
        unsafe {
            let block = unit.from.add(18 * step);
            let values = _mm512_mul_ps(levels, half(block));
            let table = bf16(values, values);
            let codes = _mm_loadu_si128(block.add(2).cast());
            let low = _mm256_cvtepu8_epi16(codes);
            let index = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), _mm256_srli_epi16::<4>(low));
            put(unit, step, _mm512_permutexvar_epi16(index, table));
        }
    }
}

/// Q8_0: f16 scale, 32 signed bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q8_0(unit: &mut Unit, parts: Range<usize>) {
    for step in steps(unit, parts) {
        // SAFETY: a block is 34 bytes for 32 columns.
        unsafe {
            let block = unit.from.add(34 * step);
            let scale = half(block);
            put(unit, step, scaled(block.add(2), scale, scale));
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

/// Puts eight scales and eight negative minimums of a block of Q4_K or Q5_K into the lines of a unit.
///
/// In memory, because broadcasts from there cost no shuffles, which are what the rest is made of.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn scales_and_minimums(unit: &mut Unit) {
    const SIX: u64 = 0x3f3f_3f3f;
    const FOUR: u64 = 0x0f0f_0f0f;
    const TWO: u64 = 0x0303_0303;
    // SAFETY: the caller vouches for a block, which starts with 16 bytes of scales.
    unsafe {
        let word = |at: usize| u64::from(unit.from.add(at).cast::<u32>().read_unaligned());
        let (a, b, c) = (word(4), word(8), word(12));
        let scales = (a & SIX) | ((c & FOUR) | ((a >> 6 & TWO) << 4)) << 32;
        let minimums = (b & SIX) | ((c >> 4 & FOUR) | ((b >> 6 & TWO) << 4)) << 32;
        let whole = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x(minimums as i64, scales as i64)));
        // The scale in the first eight lanes, minus the minimum in the others.
        let both = unit.from.cast::<i32>().read_unaligned() ^ i32::MIN;
        let order = _mm256_set_m128i(_mm_set1_epi16(0x0302), _mm_set1_epi16(0x0100));
        let lanes = _mm256_shuffle_epi8(_mm256_set1_epi32(both), order);
        _mm512_storeu_ps(unit.lines.as_mut_ptr(), _mm512_mul_ps(whole, _mm512_cvtph_ps(lanes)));
        // The compiler would see through the store, and shuffle after all.
        asm!("/* {} */", in(reg) unit.lines.as_mut_ptr(), options(nostack, preserves_flags));
    }
}

/// Q4_K: f16 scale and minimum, 12 bytes of 6-bit scales and minimums of 32, 128 bytes of codes in runs of 32 bytes,
/// whose low halves are 32 elements and their high halves the next.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q4_k(unit: &mut Unit, parts: Range<usize>) {
    // SAFETY: a block is 144 bytes for 256 columns.
    unsafe {
        if parts.start == 0 {
            scales_and_minimums(unit);
        }
        let lines = &unit.lines;
        let level = |g: usize| _mm512_fmadd_ps(iota(), _mm512_set1_ps(lines[g]), _mm512_set1_ps(lines[8 + g]));
        for part in parts {
            let table = bf16(level(2 * part), level(2 * part + 1));
            let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(unit.from.add(16 + 32 * part).cast()));
            let low = _mm512_and_si512(codes, _mm512_set1_epi16(15));
            let high = _mm512_or_si512(_mm512_srli_epi16::<4>(codes), _mm512_set1_epi16(16));
            put(unit, 2 * part, _mm512_permutexvar_epi16(low, table));
            put(unit, 2 * part + 1, _mm512_permutexvar_epi16(high, table));
        }
    }
}

/// Q5_K: as Q4_K, with 32 bytes of fifth bits before the codes: bit `g` of each is that of group `g`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q5_k(unit: &mut Unit, parts: Range<usize>) {
    // SAFETY: a block is 176 bytes for 256 columns.
    unsafe {
        if parts.start == 0 {
            scales_and_minimums(unit);
        }
        let lines = &unit.lines;
        let (iota, nibble, fifth) = (iota(), _mm512_set1_epi16(15), _mm512_set1_epi16(16));
        let upper = _mm512_add_ps(iota, _mm512_set1_ps(16.0));
        let table = |g: usize| {
            let (scale, minimum) = (_mm512_set1_ps(lines[g]), _mm512_set1_ps(lines[8 + g]));
            bf16(_mm512_fmadd_ps(iota, scale, minimum), _mm512_fmadd_ps(upper, scale, minimum))
        };
        let flags = _mm512_cvtepu8_epi16(_mm256_loadu_si256(unit.from.add(16).cast()));
        for part in parts {
            let codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(unit.from.add(48 + 32 * part).cast()));
            let shifted = _mm512_srl_epi16(_mm512_slli_epi16::<4>(flags), _mm_cvtsi32_si128(2 * part as i32));
            let bits = [shifted, _mm512_srli_epi16::<1>(shifted)];
            let codes = [codes, _mm512_srli_epi16::<4>(codes)];
            for h in 0..2 {
                let index = _mm512_or_si512(_mm512_and_si512(codes[h], nibble), _mm512_and_si512(bits[h], fifth));
                put(unit, 2 * part + h, _mm512_permutexvar_epi16(index, table(2 * part + h)));
            }
        }
    }
}

/// Q6_K: 128 bytes of low and 64 of high bits in two halves, 16 signed scales of 16 elements, f16 scale.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn q6_k(unit: &mut Unit, parts: Range<usize>) {
    // SAFETY: a block is 210 bytes for 256 columns.
    unsafe {
        let block = unit.from;
        if parts.start == 0 {
            let whole = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(block.add(192).cast())));
            _mm512_storeu_ps(unit.lines.as_mut_ptr(), _mm512_mul_ps(whole, half(block.add(208))));
        }
        for part in parts {
            // Of each half, the first part takes the low four bits and bits 0 and 1, then 2 and 3 of the high bytes, the
            // second part the high four bits and bits 4 and 5, then 6 and 7.
            let (n, shift) = (part / 2, _mm_cvtsi32_si128(4 * (part % 2) as i32));
            let low = _mm512_srl_epi16(_mm512_loadu_si512(block.add(64 * n).cast()), shift);
            let high = _mm256_srl_epi16(_mm256_loadu_si256(block.add(128 + 32 * n).cast()), shift);
            let high = _mm512_inserti64x4::<1>(
                _mm512_castsi256_si512(_mm256_slli_epi16::<4>(high)),
                _mm256_slli_epi16::<2>(high),
            );
            let low = _mm512_and_si512(low, _mm512_set1_epi8(15));
            let code = _mm512_or_si512(low, _mm512_and_si512(high, _mm512_set1_epi8(48)));
            let mut codes = [0_u8; PART];
            _mm512_storeu_si512(codes.as_mut_ptr().cast(), _mm512_sub_epi8(code, _mm512_set1_epi8(32)));
            asm!("/* {} */", in(reg) codes.as_mut_ptr(), options(nostack, preserves_flags));
            for h in 0..2 {
                let lines = unit.lines.as_ptr().add(4 * part + 2 * h);
                let (low, high) = (_mm512_set1_ps(*lines), _mm512_set1_ps(*lines.add(1)));
                put(unit, 2 * part + h, scaled(codes[32 * h..][..32].as_ptr(), low, high));
            }
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
                let mut unit =
                    Unit { ty, from: bytes[1..].as_ptr(), columns, to: found.as_mut_ptr(), lines: [0.0; 16] };
                // The first part by itself, the others together.
                for parts in [0..1, 1..columns.div_ceil(PART)] {
                    // SAFETY: AMX was found, the bytes are those of the columns, and eight rows are writable.
                    unsafe { of(ty)(&mut unit, parts) };
                }
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
