//! Vectors of NEON in pairs: 8 elements.

use std::arch::aarch64::*;

use super::TileSimd;
use crate::isa::{Neon, prefetch_neon, widen_half, widen_u8};

// SAFETY of every block here: NEON is part of the target; memory is the caller's part of the contract.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument above covers all: memory is the caller's part")]
impl<const DOT: bool> TileSimd for Neon<DOT> {
    const INT_TILE: usize = 3;
    const NARROW_DOT: bool = true;
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
    fn to_float(self, a: Self::I) -> Self::F {
        unsafe { a.map(|x| vcvtq_f32_s32(x)) }
    }

    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        unsafe { a.map(|x| vcvtnq_s32_f32(x)) }
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
    unsafe fn transpose(self, from: *const i32, from_stride: usize, to: *mut i32, to_stride: usize) {
        unsafe {
            // Four squares of four by four.
            for (row, column) in [(0, 0), (0, 4), (4, 0), (4, 4)] {
                let line = |i: usize| vld1q_s32(from.add((row + i) * from_stride + column));
                let (a, b, c, d) = (line(0), line(1), line(2), line(3));
                let pairs = [vtrn1q_s32(a, b), vtrn2q_s32(a, b), vtrn1q_s32(c, d), vtrn2q_s32(c, d)];
                let [ab, ab_odd, cd, cd_odd] = pairs.map(|x| vreinterpretq_s64_s32(x));
                let lines =
                    [vtrn1q_s64(ab, cd), vtrn1q_s64(ab_odd, cd_odd), vtrn2q_s64(ab, cd), vtrn2q_s64(ab_odd, cd_odd)];
                for (i, line) in lines.into_iter().enumerate() {
                    vst1q_s32(to.add((column + i) * to_stride + row), vreinterpretq_s32_s64(line));
                }
            }
        }
    }
}
