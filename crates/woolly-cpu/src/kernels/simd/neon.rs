//! Vectors of NEON in pairs: 8 elements.

use std::arch::aarch64::*;

use super::{TileSimd, Wide, each_quad};
use crate::isa::{Neon, SMMLA, prefetch_beyond_neon, prefetch_neon, widen_half, widen_u8};

// SAFETY of every block here: NEON is part of the target; memory is the caller's part of the contract.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument above covers all: memory is the caller's part")]
impl<const BYTES: u8> TileSimd for Neon<BYTES> {
    const INT_TILE: usize = if BYTES >= SMMLA { 6 } else { 3 };
    const NARROW_DOT: bool = true;
    const WIDE: Wide = Wide::Signed;
    const PAIRED: bool = BYTES >= SMMLA;
    type I = [int32x4_t; 2];

    #[inline(always)]
    fn zero_below(self, a: Self::F, x: Self::F, limit: f32) -> Self::F {
        unsafe {
            let keep = |a, x| {
                let below = vcltq_f32(x, vdupq_n_f32(limit));
                vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), below))
            };
            [keep(a[0], x[0]), keep(a[1], x[1])]
        }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        unsafe { [vdupq_n_s32(x); 2] }
    }

    // Weights up to 127 are the same signed.
    #[inline(always)]
    fn dot(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I {
        self.dot_signed(acc, w, a)
    }

    #[inline(always)]
    fn dot_signed(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I {
        unsafe {
            let one = |i: usize| Neon::dot(self, acc[i], vreinterpretq_s8_s32(w[i]), vreinterpretq_s8_s32(a[i]));
            [one(0), one(1)]
        }
    }

    #[inline(always)]
    fn paired(self, [first, second]: [Self::I; 2]) -> [Self::I; 2] {
        if !Self::PAIRED {
            return [first, second];
        }
        unsafe {
            let rows = |a, b| [vzip1q_s32(a, b), vzip2q_s32(a, b)];
            [rows(first[0], second[0]), rows(first[1], second[1])]
        }
    }

    #[inline(always)]
    unsafe fn dots<const T: usize, const QUADS: usize, const LARGEST: u8>(
        self,
        acc: &mut [[Self::I; 2]; T],
        weights: *const i32,
        quads: *const i32,
        stride: usize,
    ) {
        unsafe {
            // Weights up to 127 are the same signed.
            self.dots_signed::<T, QUADS>(acc, weights, quads, stride);
        }
    }

    #[inline(always)]
    unsafe fn dots_signed<const T: usize, const QUADS: usize>(
        self,
        acc: &mut [[Self::I; 2]; T],
        weights: *const i32,
        quads: *const i32,
        stride: usize,
    ) {
        unsafe {
            if Self::PAIRED {
                return matrices::<BYTES, T, QUADS>(self, acc, weights, quads, stride);
            }
            each_quad::<Self, T, QUADS, true>(self, acc, weights, quads, stride);
        }
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        unsafe { a.map(|x| vcvtq_f32_s32(x)) }
    }

    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        unsafe { a.map(|x| vcvtnq_s32_f32(x)) }
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [vandq_s32(a[0], b[0]), vandq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [vorrq_s32(a[0], b[0]), vorrq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [veorq_s32(a[0], b[0]), veorq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I, by: u32) -> Self::I {
        unsafe { a.map(|a| vshlq_s32(a, vdupq_n_s32(by.cast_signed()))) }
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I, by: u32) -> Self::I {
        unsafe {
            let right = vdupq_n_s32(-by.cast_signed());
            a.map(|a| vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), right)))
        }
    }

    #[inline(always)]
    fn shift_right_signed(self, a: Self::I, by: u32) -> Self::I {
        unsafe { a.map(|a| vshlq_s32(a, vdupq_n_s32(-by.cast_signed()))) }
    }

    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [vsubq_s32(a[0], b[0]), vsubq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe {
            let one = |a, b| vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b)));
            [one(a[0], b[0]), one(a[1], b[1])]
        }
    }

    #[inline(always)]
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I {
        unsafe { [vmulq_s32(a[0], b[0]), vmulq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], a: Self::I) -> Self::I {
        unsafe {
            let table = vld1q_u8(table.as_ptr());
            a.map(|a| vreinterpretq_s32_u8(vqtbl1q_u8(table, vreinterpretq_u8_s32(a))))
        }
    }

    #[inline(always)]
    fn bits_to_float(self, a: Self::I) -> Self::F {
        unsafe { a.map(|a| vreinterpretq_f32_s32(a)) }
    }

    #[inline(always)]
    fn low_half(self, a: Self::I) -> Self::F {
        unsafe { a.map(|a| widen_half(vmovn_u32(vreinterpretq_u32_s32(a)))) }
    }

    #[inline(always)]
    unsafe fn load_word_of_rows(self, start: *const u8, stride: usize) -> Self::I {
        unsafe {
            let mut words = [0_i32; 8];
            for (row, word) in words.iter_mut().enumerate() {
                *word = start.add(row * stride).cast::<i32>().read_unaligned();
            }
            self.load_int_at(words.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn load_four_of_rows(self, start: *const u8, stride: usize) -> [Self::I; 4] {
        unsafe {
            let load = |row: usize| vreinterpretq_s32_u8(vld1q_u8(start.add(row * stride)));
            let low = four_by_four([load(0), load(1), load(2), load(3)]);
            let high = four_by_four([load(4), load(5), load(6), load(7)]);
            [[low[0], high[0]], [low[1], high[1]], [low[2], high[2]], [low[3], high[3]]]
        }
    }

    #[inline(always)]
    unsafe fn load_at(self, p: *const f32) -> Self::F {
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }

    #[inline(always)]
    unsafe fn load_half_at(self, p: *const u16) -> Self::F {
        unsafe {
            let bits = vld1q_u16(p);
            [widen_half(vget_low_u16(bits)), widen_half(vget_high_u16(bits))]
        }
    }

    #[inline(always)]
    fn splat_half(self, bits: u16) -> Self::F {
        unsafe { [widen_half(vdup_n_u16(bits)); 2] }
    }

    #[inline(always)]
    unsafe fn load_quarter_at(self, p: *const i32, quarter: usize) -> Self::F {
        unsafe {
            let up = vdupq_n_s32(24 - 8 * quarter as i32);
            let top = [vshlq_s32(vld1q_s32(p), up), vshlq_s32(vld1q_s32(p.add(4)), up)];
            top.map(|top| vcvtq_f32_s32(vshrq_n_s32::<24>(top)))
        }
    }

    #[inline(always)]
    unsafe fn load_nibbles_at(self, p: *const u8, high: bool) -> Self::F {
        unsafe {
            let bytes = vld1_u8(p);
            widen_u8(if high { vshr_n_u8::<4>(bytes) } else { vand_u8(bytes, vdup_n_u8(15)) })
        }
    }

    #[inline(always)]
    unsafe fn store_at(self, a: Self::F, p: *mut f32) {
        unsafe {
            vst1q_f32(p, a[0]);
            vst1q_f32(p.add(4), a[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_int_at(self, p: *const i32) -> Self::I {
        unsafe { [vld1q_s32(p), vld1q_s32(p.add(4))] }
    }

    #[inline(always)]
    unsafe fn store_int_at(self, a: Self::I, p: *mut i32) {
        unsafe {
            vst1q_s32(p, a[0]);
            vst1q_s32(p.add(4), a[1]);
        }
    }

    #[inline(always)]
    fn prefetch_at(self, p: *const u8) {
        prefetch_neon(p);
    }

    #[inline(always)]
    fn prefetch_beyond_at(self, p: *const u8) {
        prefetch_beyond_neon(p);
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const i32, from_stride: usize, to: *mut i32, to_stride: usize) {
        unsafe {
            // Four squares of four by four.
            for (row, column) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
                let line = |i: usize| vld1q_s32(from.add((row + i) * from_stride + column));
                let lines = four_by_four([line(0), line(1), line(2), line(3)]);
                for (i, line) in lines.into_iter().enumerate() {
                    vst1q_s32(to.add((column + i) * to_stride + row), line);
                }
            }
        }
    }
}

/// Adds products as [`TileSimd::dots_signed`] says, of [`TileSimd::PAIRED`] operands: two weight rows with two tokens at a
/// time, eight columns of each. Sixteen rows and six tokens are 24 registers of sums.
///
/// # Safety
/// As [`TileSimd::dots_signed`]; for an odd `T`, `quads` is valid for one element more.
#[inline(always)]
unsafe fn matrices<const BYTES: u8, const T: usize, const QUADS: usize>(
    s: Neon<BYTES>,
    acc: &mut [[[int32x4_t; 2]; 2]; T],
    weights: *const i32,
    quads: *const i32,
    stride: usize,
) {
    const { assert!(T <= 6 && QUADS.is_multiple_of(2)) };
    // SAFETY: what is read are `QUADS` pairs of vectors and as many times `T` elements, rounded up to an even number.
    unsafe {
        // `[pair of tokens][pair of rows]`
        let mut sums = [[vdupq_n_s32(0); 8]; 3];
        for first in (0..QUADS).step_by(2) {
            let (weights, quads) = (weights.add(first * 16), quads.add(first * stride));
            let mut tokens = [vdupq_n_s8(0); 3];
            for (pair, tokens) in tokens.iter_mut().enumerate().take(T.div_ceil(2)) {
                *tokens = vreinterpretq_s8_s32(vld1q_s32(quads.add(4 * pair)));
            }
            for rows in 0..8 {
                // Both vectors of the first quad, then both of the second: four pairs of rows of each vector.
                let (vector, place) = (rows / 4, rows % 4);
                let at = (place / 2) * 16 + vector * 8 + place % 2 * 4;
                let w = vreinterpretq_s8_s32(vld1q_s32(weights.add(at)));
                for (sums, &tokens) in sums.iter_mut().zip(&tokens).take(T.div_ceil(2)) {
                    sums[rows] = s.multiply(sums[rows], w, tokens);
                }
            }
        }
        for (token, acc) in acc.iter_mut().enumerate() {
            for rows in 0..4 {
                let [a, b] = [sums[token / 2][2 * rows], sums[token / 2][2 * rows + 1]];
                let of_token = if token.is_multiple_of(2) { vuzp1q_s32(a, b) } else { vuzp2q_s32(a, b) };
                let to = &mut acc[rows / 2][rows % 2];
                *to = vaddq_s32(*to, of_token);
            }
        }
    }
}

/// Transposes a square of 4 x 4.
#[inline(always)]
fn four_by_four([a, b, c, d]: [int32x4_t; 4]) -> [int32x4_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let pairs = [vtrn1q_s32(a, b), vtrn2q_s32(a, b), vtrn1q_s32(c, d), vtrn2q_s32(c, d)];
        let [ab, ab_odd, cd, cd_odd] = pairs.map(|x| vreinterpretq_s64_s32(x));
        let lines = [vtrn1q_s64(ab, cd), vtrn1q_s64(ab_odd, cd_odd), vtrn2q_s64(ab, cd), vtrn2q_s64(ab_odd, cd_odd)];
        lines.map(|line| vreinterpretq_s32_s64(line))
    }
}
