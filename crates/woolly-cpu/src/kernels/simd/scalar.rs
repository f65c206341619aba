//! The vectors of every CPU: arrays, which a compiler may or may not turn into vector instructions.

use woolly_quant::half::f16_to_f32;

use super::TileSimd;
use crate::isa::{Scalar, Simd};

const LANES: usize = <Scalar as Simd>::LANES;

impl TileSimd for Scalar {
    const INT_TILE: usize = 3;
    const NARROW_DOT: bool = false;
    type I = [i32; LANES];

    #[inline(always)]
    fn zero_below(self, a: Self::F, x: Self::F, limit: f32) -> Self::F {
        std::array::from_fn(|i| if x[i] < limit { 0.0 } else { a[i] })
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        [x; LANES]
    }

    #[inline(always)]
    fn dot(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let (w, a) = (w[i].to_ne_bytes(), a[i].to_ne_bytes());
            acc[i] + (0..4).map(|j| i32::from(w[j]) * i32::from(a[j] as i8)).sum::<i32>()
        })
    }

    #[inline(always)]
    fn dot_signed(self, acc: Self::I, w: Self::I, a: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let (w, a) = (w[i].to_ne_bytes(), a[i].to_ne_bytes());
            acc[i] + (0..4).map(|j| i32::from(w[j] as i8) * i32::from(a[j] as i8)).sum::<i32>()
        })
    }

    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        a.map(|x| x as f32)
    }

    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        a.map(|x| x.round_ties_even() as i32)
    }

    #[inline(always)]
    fn and(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn or(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn xor(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i] ^ b[i])
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| a << by)
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| (a.cast_unsigned() >> by).cast_signed())
    }

    #[inline(always)]
    fn shift_right_signed(self, a: Self::I, by: u32) -> Self::I {
        a.map(|a| a >> by)
    }

    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_sub(b[i]))
    }

    #[inline(always)]
    fn sub_bytes(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| {
            let (a, b) = (a[i].to_ne_bytes(), b[i].to_ne_bytes());
            i32::from_ne_bytes(std::array::from_fn(|j| a[j].wrapping_sub(b[j])))
        })
    }

    #[inline(always)]
    fn mul_int(self, a: Self::I, b: Self::I) -> Self::I {
        std::array::from_fn(|i| a[i].wrapping_mul(b[i]))
    }

    #[inline(always)]
    fn look_up(self, table: &[u8; 16], a: Self::I) -> Self::I {
        a.map(|a| i32::from_ne_bytes(a.to_ne_bytes().map(|byte| table[usize::from(byte & 15)])))
    }

    #[inline(always)]
    fn bits_to_float(self, a: Self::I) -> Self::F {
        a.map(|a| f32::from_bits(a.cast_unsigned()))
    }

    #[inline(always)]
    fn low_half(self, a: Self::I) -> Self::F {
        a.map(|a| f16_to_f32(a as u16))
    }

    #[inline(always)]
    unsafe fn load_word_of_rows(self, start: *const u8, stride: usize) -> Self::I {
        // SAFETY: the caller vouches for four bytes of each row.
        std::array::from_fn(|row| unsafe { start.add(row * stride).cast::<i32>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_four_of_rows(self, start: *const u8, stride: usize) -> [Self::I; 4] {
        // SAFETY: the caller vouches for sixteen bytes of each row.
        std::array::from_fn(|word| unsafe { self.load_word_of_rows(start.add(4 * word), stride) })
    }

    #[inline(always)]
    unsafe fn load_at(self, p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for a vector at `p`.
        unsafe { p.cast::<Self::F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_half_at(self, p: *const u16) -> Self::F {
        // SAFETY: the caller vouches for as many halves at `p`.
        unsafe { p.cast::<[u16; LANES]>().read_unaligned() }.map(f16_to_f32)
    }

    #[inline(always)]
    fn splat_half(self, bits: u16) -> Self::F {
        [f16_to_f32(bits); LANES]
    }

    #[inline(always)]
    unsafe fn load_quarter_at(self, p: *const i32, quarter: usize) -> Self::F {
        // SAFETY: the caller vouches for as many fours at `p`.
        unsafe { p.cast::<[[i8; 4]; LANES]>().read_unaligned() }.map(|four| f32::from(four[quarter]))
    }

    #[inline(always)]
    unsafe fn load_nibbles_at(self, p: *const u8, high: bool) -> Self::F {
        // SAFETY: the caller vouches for as many bytes at `p`.
        let bytes = unsafe { p.cast::<[u8; LANES]>().read_unaligned() };
        bytes.map(|byte| f32::from(if high { byte >> 4 } else { byte & 15 }))
    }

    #[inline(always)]
    unsafe fn store_at(self, a: Self::F, p: *mut f32) {
        // SAFETY: the caller vouches for a vector at `p`.
        unsafe { p.cast::<Self::F>().write_unaligned(a) }
    }

    #[inline(always)]
    unsafe fn load_int_at(self, p: *const i32) -> Self::I {
        // SAFETY: the caller vouches for a vector at `p`.
        unsafe { p.cast::<Self::I>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_int_at(self, a: Self::I, p: *mut i32) {
        // SAFETY: the caller vouches for a vector at `p`.
        unsafe { p.cast::<Self::I>().write_unaligned(a) }
    }

    #[inline(always)]
    fn prefetch_at(self, _: *const u8) {}

    #[inline(always)]
    fn prefetch_beyond_at(self, _: *const u8) {}

    #[inline(always)]
    unsafe fn transpose(self, from: *const i32, from_stride: usize, to: *mut i32, to_stride: usize) {
        for row in 0..LANES {
            for column in 0..LANES {
                // SAFETY: the caller vouches for `LANES` elements at each of `LANES` rows on both sides.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * from_stride + column) };
            }
        }
    }
}
