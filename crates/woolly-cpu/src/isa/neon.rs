//! Primitives of NEON, the vectors of every 64-bit ARM processor: pairs of 128 bits, 32 registers.
//!
//! Two registers make one vector here, so that the kernels see the eight floats and 32 bytes that they see on AVX2.
//! Products of bytes are the instruction SDOT (FEAT_DotProd, on nearly all cores since 2018), those of many rows SMMLA
//! (FEAT_I8MM, on most since 2021); without them bytes are widened first. What the compiler has no stable intrinsic for is
//! assembly.
//!
//! Checked against the scalar level under emulation; its speed has not been measured.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{ByteKernel, Bytes, Kernel, Simd};

/// Bytes are widened and multiplied then: what every processor can do.
pub const WIDENED: u8 = 0;
/// Bytes are multiplied by SDOT.
pub const SDOT: u8 = 1;
/// Bytes are multiplied by SMMLA where there are many rows, otherwise by SDOT.
pub const SMMLA: u8 = 2;

/// Proof that the processor has NEON and the instructions for products of bytes that `BYTES` names: [`WIDENED`], [`SDOT`]
/// or [`SMMLA`].
#[derive(Clone, Copy, Debug)]
pub struct Neon<const BYTES: u8>(());

impl<const BYTES: u8> Neon<BYTES> {
    /// Returns the proof, or `None` on a processor without the features.
    #[inline]
    pub fn new() -> Option<Self> {
        let dot = BYTES < SDOT || is_aarch64_feature_detected!("dotprod");
        let matrix = BYTES < SMMLA || is_aarch64_feature_detected!("i8mm");
        (dot && matrix).then_some(Self(()))
    }

    /// Runs `kernel` with these instructions, all of which the compiler or the assembler may use anyway.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    /// Runs `kernel` with these instructions.
    #[inline]
    pub fn run_bytes<K: ByteKernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    /// Adds to each lane of `acc` the four products of signed bytes in it.
    #[inline(always)]
    pub(crate) fn dot(self, acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        // SAFETY: NEON is part of the target, and `self` proves the dot product, which changes registers only.
        unsafe {
            if BYTES >= SDOT {
                let mut sum = acc;
                asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                     inout(vreg) sum, in(vreg) w, in(vreg) a, options(pure, nomem, nostack, preserves_flags));
                return sum;
            }
            // A product is at most 128 · 128 = 2¹⁴, so pairs are added after widening.
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)));
            let high = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(a)));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }

    /// Adds to `acc` the products of two rows of eight signed bytes each with two others: `[w₀·a₀, w₀·a₁, w₁·a₀, w₁·a₁]`.
    ///
    /// # Panics
    /// Without [`SMMLA`].
    #[inline(always)]
    pub(crate) fn multiply(self, acc: int32x4_t, w: int8x16_t, a: int8x16_t) -> int32x4_t {
        assert!(BYTES >= SMMLA, "SMMLA without the proof of it");
        let mut sum = acc;
        // SAFETY: `self` proves the instruction, which changes registers only.
        unsafe {
            asm!(".arch_extension i8mm", "smmla {0:v}.4s, {1:v}.16b, {2:v}.16b",
                 inout(vreg) sum, in(vreg) w, in(vreg) a, options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}

/// Widens four half-precision numbers.
#[inline(always)]
pub(crate) fn widen_half(bits: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: the instruction is part of every AArch64 processor with NEON and touches two registers.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) wide, in(vreg) bits, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Widens eight signed bytes.
#[inline(always)]
fn widen_i8(bytes: int8x8_t) -> [float32x4_t; 2] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let wide = vmovl_s8(bytes);
        [vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(wide)))]
    }
}

/// Widens eight unsigned bytes.
#[inline(always)]
pub(crate) fn widen_u8(bytes: uint8x8_t) -> [float32x4_t; 2] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let wide = vmovl_u8(bytes);
        [vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide)))]
    }
}

#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; 2], b: [B; 2], f: impl Fn(A, B) -> C) -> [C; 2] {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// The 16 bytes of a slice, which panics when there are fewer.
#[inline(always)]
fn sixteen(from: &[u8]) -> uint8x16_t {
    // SAFETY: NEON is part of the target, and what is read or written was sliced to its length.
    unsafe {
        let from = &from[..16];
        vld1q_u8(from.as_ptr())
    }
}

#[inline(always)]
fn eight_u16(from: &[u8]) -> uint16x8_t {
    // SAFETY: NEON is part of the target.
    unsafe { vreinterpretq_u16_u8(sixteen(from)) }
}

/// Lane `i`, which is a constant wherever this is used in a loop that is unrolled.
#[inline(always)]
fn lane<const N: usize>(a: [float32x4_t; N], i: usize) -> float32x4_t {
    // SAFETY: NEON is part of the target, and what is read or written was sliced to its length.
    unsafe {
        let mut all = [0.0_f32; 4];
        vst1q_f32(all.as_mut_ptr(), a[i / 4]);
        vdupq_n_f32(all[i % 4])
    }
}

impl<const BYTES: u8> Simd for Neon<BYTES> {
    const LANES: usize = 8;
    const ACCUMULATORS: usize = 8;
    type F = [float32x4_t; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { [vdupq_n_f32(x); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::F {
        // SAFETY: NEON is part of the target, and what is read or written was sliced to its length.
        unsafe {
            let from = &from[..8];
            [vld1q_f32(from.as_ptr()), vld1q_f32(from.as_ptr().add(4))]
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32], x: Self::F) {
        // SAFETY: NEON is part of the target, and what is read or written was sliced to its length.
        unsafe {
            let to = &mut to[..8];
            vst1q_f32(to.as_mut_ptr(), x[0]);
            vst1q_f32(to.as_mut_ptr().add(4), x[1]);
        }
    }

    #[inline(always)]
    fn load_f16(self, from: &[u8]) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let bits = eight_u16(from);
            [widen_half(vget_low_u16(bits)), widen_half(vget_high_u16(bits))]
        }
    }

    #[inline(always)]
    fn load_bf16(self, from: &[u8]) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let bits = eight_u16(from);
            let wide = [vshll_n_u16::<16>(vget_low_u16(bits)), vshll_n_u16::<16>(vget_high_u16(bits))];
            wide.map(|x| vreinterpretq_f32_u32(x))
        }
    }

    #[inline(always)]
    fn load_f32_bytes(self, from: &[u8]) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { self.bytes(from).map(|x| vreinterpretq_f32_u8(x)) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vaddq_f32(a, b)) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vsubq_f32(a, b)) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vmulq_f32(a, b)) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vdivq_f32(a, b)) }
    }

    // The instruction FMAX gives NaN for any NaN, the trait the second operand.
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vbslq_f32(vcgtq_f32(a, b), a, b)) }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vbslq_f32(vcltq_f32(a, b), a, b)) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { a.map(|x| vrndnq_f32(x)) }
    }

    #[inline(always)]
    fn exp2_int(self, n: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { n.map(|n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127))))) }
    }

    #[inline(always)]
    fn sum(self, a: Self::F) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe { vaddvq_f32(vaddq_f32(a[0], a[1])) }
    }

    #[inline(always)]
    fn max_lane(self, a: Self::F) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe { vmaxnmvq_f32(vmaxnmq_f32(a[0], a[1])) }
    }

    #[inline(always)]
    fn prefetch(self, base: &[u8], offset: usize) {
        prefetch(base.as_ptr().wrapping_add(offset));
    }

    #[inline(always)]
    fn prefetch_beyond(self, base: &[u8], offset: usize) {
        prefetch_beyond(base.as_ptr().wrapping_add(offset));
    }
}

/// Asks for a cache line; the address may be any.
#[inline(always)]
pub(crate) fn prefetch(p: *const u8) {
    // SAFETY: a prefetch never faults and changes nothing that a program can see.
    unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly)) };
}

/// Asks for a cache line, into the second-level cache only; the address may be any.
#[inline(always)]
pub(crate) fn prefetch_beyond(p: *const u8) {
    // SAFETY: as in `prefetch`.
    unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly)) };
}

impl<const BYTES: u8> Bytes for Neon<BYTES> {
    const WIDTH: usize = 32;
    const SIGNED_BIAS: f32 = 0.0;
    type I = [uint8x16_t; 2];
    type F8 = [float32x4_t; 2];
    type F16 = [float32x4_t; 4];

    #[inline(always)]
    fn bytes(self, from: &[u8]) -> Self::I {
        [sixteen(from), sixteen(&from[16..])]
    }

    #[inline(always)]
    fn pieces16<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> Self::I {
        [sixteen(&from[OFFSET..]), sixteen(&from[STRIDE + OFFSET..])]
    }

    #[inline(always)]
    fn pieces32<const STRIDE: usize, const OFFSET: usize>(self, from: &[u8]) -> Self::I {
        self.bytes(&from[OFFSET..])
    }

    #[inline(always)]
    fn halves<const STRIDE: usize, const OFFSET: usize, const PER: usize>(self, from: &[u8]) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let at = |i: usize| {
                let bits = u16::from_le_bytes([from[STRIDE * i + OFFSET], from[STRIDE * i + OFFSET + 1]]);
                widen_half(vdup_n_u16(bits))
            };
            if PER == 8 { [at(0); 2] } else { [at(0), at(1)] }
        }
    }

    #[inline(always)]
    fn splat_byte(self, x: u8) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe { [vdupq_n_u8(x); 2] }
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vandq_u8(a, b)) }
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe { both(a, b, |a, b| vorrq_u8(a, b)) }
    }

    #[inline(always)]
    fn high_nibbles(self, a: Self::I) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe { a.map(|x| vshrq_n_u8::<4>(x)) }
    }

    #[inline(always)]
    fn two_bits(self, a: Self::I, bits: usize) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe {
            // A shift to the left by a negative number is one to the right.
            let by = vdupq_n_s8(-(bits as i8));
            a.map(|a| vandq_u8(vshlq_u8(a, by), vdupq_n_u8(3)))
        }
    }

    #[inline(always)]
    fn fifth_bits(self, w: Self::I, flags: &[u8; 32], first: usize) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe { add_where_set(w, self.bytes(flags), vdupq_n_u8(1 << first), 16) }
    }

    #[inline(always)]
    fn fifth_bits_of<const STRIDE: usize, const OFFSET: usize>(self, w: [Self::I; 2], from: &[u8]) -> [Self::I; 2] {
        // SAFETY: NEON is part of the target.
        unsafe {
            const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];
            // Each of two neighbouring bytes in eight lanes.
            let pair = |at: usize| vcombine_u8(vdup_n_u8(from[at]), vdup_n_u8(from[at + 1]));
            let with = |w, first: usize| add_where_set(w, [pair(first), pair(STRIDE + first)], sixteen(&BITS), 16);
            [with(w[0], OFFSET), with(w[1], OFFSET + 2)]
        }
    }

    #[inline(always)]
    fn third_bits(self, w: Self::I, flags: &[u8; 32], first: usize) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe { add_where_set(w, self.bytes(flags), vdupq_n_u8(1 << first), 4) }
    }

    #[inline(always)]
    fn fours(self, from: &[f32]) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe { [vdupq_n_f32(from[0]), vdupq_n_f32(from[1])] }
    }

    #[inline(always)]
    fn upper_bits(self, pairs: &[u8], first: usize) -> Self::I {
        // SAFETY: NEON is part of the target.
        unsafe {
            let by = vdupq_n_s8(4 - 2 * first as i8);
            self.bytes(pairs).map(|pairs| vandq_u8(vshlq_u8(pairs, by), vdupq_n_u8(0x30)))
        }
    }

    #[inline(always)]
    fn lookup(self, table: &[i8; 16], index: Self::I) -> Self::I {
        // SAFETY: NEON is part of the target, and what is read or written was sliced to its length.
        unsafe {
            let table = vreinterpretq_u8_s8(vld1q_s8(table.as_ptr()));
            index.map(|index| vqtbl1q_u8(table, index))
        }
    }

    // Weights below 128 are the same signed.
    #[inline(always)]
    fn dot_u8(self, w: Self::I, a: &[i8]) -> Self::F {
        self.dot_i8(w, a)
    }

    #[inline(always)]
    fn negated(self, w: Self::I, signs: u64) -> Self::I {
        let own = signs.to_le_bytes();
        // SAFETY: NEON is part of the target.
        unsafe {
            let flag = vcreate_u8(0x8040_2010_0804_0201);
            let flag = vcombine_u8(flag, flag);
            let negate = |w, first: usize| {
                let bits = vcombine_u8(vdup_n_u8(own[first]), vdup_n_u8(own[first + 1]));
                let set = vtstq_u8(bits, flag);
                vsubq_u8(veorq_u8(w, set), set)
            };
            [negate(w[0], 0), negate(w[1], 2)]
        }
    }

    #[inline(always)]
    fn dot_signs(self, w: Self::I, signs: u64, a: &[i8]) -> Self::F {
        self.dot_i8(self.negated(w, signs), a)
    }

    #[inline(always)]
    fn dot_i8(self, w: Self::I, a: &[i8]) -> Self::F {
        // SAFETY: NEON is part of the target, and what is read or written was sliced to its length.
        unsafe {
            let a = &a[..32];
            let a = [vld1q_s8(a.as_ptr()), vld1q_s8(a.as_ptr().add(16))];
            both(w, a, |w, a| vcvtq_f32_s32(self.dot(vdupq_n_s32(0), vreinterpretq_s8_u8(w), a)))
        }
    }

    #[inline(always)]
    fn quarter_u8(self, w: Self::I, q: usize) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let by = vdupq_n_s32(-8 * q as i32);
            w.map(|w| vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(w), by), vdupq_n_u32(255))))
        }
    }

    #[inline(always)]
    fn quarter_i8(self, w: Self::I, q: usize) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let by = vdupq_n_s32(24 - 8 * q as i32);
            w.map(|w| vcvtq_f32_s32(vshrq_n_s32::<24>(vshlq_s32(vreinterpretq_s32_u8(w), by))))
        }
    }

    #[inline(always)]
    fn half(self, from: [u8; 2]) -> f32 {
        // SAFETY: NEON is part of the target.
        unsafe { vgetq_lane_f32::<0>(widen_half(vdup_n_u16(u16::from_le_bytes(from)))) }
    }

    #[inline(always)]
    fn scales8(self, from: u64, by: f32) -> Self::F8 {
        // SAFETY: NEON is part of the target.
        unsafe { widen_u8(vcreate_u8(from)).map(|wide| vmulq_n_f32(wide, by)) }
    }

    #[inline(always)]
    fn mul8(self, a: Self::F8, b: &[f32; 8]) -> Self::F8 {
        self.mul(a, self.load(b))
    }

    #[inline(always)]
    fn sub_mul8(self, a: Self::F8, b: &[f32; 8], c: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let b = self.load(b);
            [vfmsq_f32(c[0], a[0], b[0]), vfmsq_f32(c[1], a[1], b[1])]
        }
    }

    #[inline(always)]
    fn spread8(self, a: Self::F8, i: usize) -> Self::F {
        [lane(a, i); 2]
    }

    #[inline(always)]
    fn scales16(self, from: &[u8; 16], by: f32) -> Self::F16 {
        // SAFETY: NEON is part of the target.
        unsafe {
            let bytes = vreinterpretq_s8_u8(sixteen(from));
            let ([a, b], [c, d]) = (widen_i8(vget_low_s8(bytes)), widen_i8(vget_high_s8(bytes)));
            [a, b, c, d].map(|wide| vmulq_n_f32(wide, by))
        }
    }

    #[inline(always)]
    fn mul16(self, a: Self::F16, b: &[f32; 16]) -> Self::F16 {
        // SAFETY: NEON is part of the target.
        unsafe {
            let ([e, f], [g, h]) = (self.load(b), self.load(&b[8..]));
            [vmulq_f32(a[0], e), vmulq_f32(a[1], f), vmulq_f32(a[2], g), vmulq_f32(a[3], h)]
        }
    }

    #[inline(always)]
    fn sub_mul16(self, a: Self::F16, b: &[f32; 16], c: Self::F) -> Self::F {
        // SAFETY: NEON is part of the target.
        unsafe {
            let ([e, f], [g, h]) = (self.load(b), self.load(&b[8..]));
            [vfmsq_f32(vfmsq_f32(c[0], a[0], e), a[2], g), vfmsq_f32(vfmsq_f32(c[1], a[1], f), a[3], h)]
        }
    }

    #[inline(always)]
    fn spread16<const STEP: usize>(self, a: Self::F16, i: usize) -> Self::F {
        [lane(a, i), lane(a, i + 1)]
    }
}

/// Adds `value` to the bytes of `w` where a bit of `mask` is set in `flags`; the bit is not set in `w`.
#[inline(always)]
fn add_where_set(w: [uint8x16_t; 2], flags: [uint8x16_t; 2], mask: uint8x16_t, value: u8) -> [uint8x16_t; 2] {
    // SAFETY: NEON is part of the target.
    unsafe { both(w, flags, |w, flags| vorrq_u8(w, vandq_u8(vtstq_u8(flags, mask), vdupq_n_u8(value)))) }
}
