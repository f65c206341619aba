//! Q4_K, Q5_K and Q6_K: blocks of 256 weights with integer scales inside.

use super::driver::Format;
use super::input::{Of, Operand, Slot};
use super::{Input, driver};
use crate::isa::Bytes;

/// Scales and minimums of 32 weights each, nibbles of 32 and 32 weights in a byte.
pub(super) struct Q4K;
/// Q4_K and a fifth bit.
pub(super) struct Q5K;
/// Signed scales of 16 weights each, six bits a weight.
pub(super) struct Q6K;

impl Format for Q4K {
    type Block = [u8; 144];
    type Step<O: Operand> = Of<O, 4, 8>;
    const ZERO: Self::Block = [0; 144];
    const WORDS: bool = true;

    driver::split!();
    driver::slot!(k_nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 8>; C], sums: &mut [S::F; C]) {
        let scales = k_scales(s, w[..16].as_array().expect("16 bytes"), x.map(|x| (&x.0.scale, &x.0.sum)), sums);
        let low_mask = s.splat_byte(15);
        for first in (0..128).step_by(S::WIDTH) {
            let (pair, half) = (first / 64, first % 64);
            let nibbles = s.bytes(&w[16 + first..]);
            let (low, high) = (s.and(nibbles, low_mask), s.high_nibbles(nibbles));
            for c in 0..C {
                let (even, odd) =
                    (s.spread8(scales[c], 4 * pair + half / 16), s.spread8(scales[c], 4 * pair + half / 16 + 1));
                sums[c] = s.mul_add(O::dot_u8(s, low, &x[c].0.v[2 * pair], half), even, sums[c]);
                sums[c] = s.mul_add(O::dot_u8(s, high, &x[c].0.v[2 * pair + 1], half), odd, sums[c]);
            }
        }
    }
}

impl Format for Q5K {
    type Block = [u8; 176];
    type Step<O: Operand> = Of<O, 4, 8>;
    const ZERO: Self::Block = [0; 176];
    const WORDS: bool = true;

    driver::split!();
    driver::slot!(k_nibbles);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 8>; C], sums: &mut [S::F; C]) {
        let scales = k_scales(s, w[..16].as_array().expect("16 bytes"), x.map(|x| (&x.0.scale, &x.0.sum)), sums);
        let flags = w[16..48].as_array().expect("32 bytes");
        let low_mask = s.splat_byte(15);
        for first in (0..128).step_by(S::WIDTH) {
            let (pair, half) = (first / 64, first % 64);
            let sub_block = 4 * pair + half / 16;
            let nibbles = s.bytes(&w[48 + first..]);
            let low = s.fifth_bits(s.and(nibbles, low_mask), flags, sub_block);
            let high = s.fifth_bits(s.high_nibbles(nibbles), flags, sub_block + 1);
            for c in 0..C {
                let (even, odd) = (s.spread8(scales[c], sub_block), s.spread8(scales[c], sub_block + 1));
                sums[c] = s.mul_add(O::dot_u8(s, low, &x[c].0.v[2 * pair], half), even, sums[c]);
                sums[c] = s.mul_add(O::dot_u8(s, high, &x[c].0.v[2 * pair + 1], half), odd, sums[c]);
            }
        }
    }
}

/// Unpacks the header of Q4_K and Q5_K; returns each column's scales and subtracts the minimums from its sums.
#[inline(always)]
fn k_scales<S: Bytes, const C: usize>(
    s: S,
    header: &[u8; 16],
    x: [(&[f32; 8], &[f32; 8]); C],
    sums: &mut [S::F; C],
) -> [S::F8; C] {
    let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (first, second, third) = (word(4), word(8), word(12));
    // Six bits each; of the last four, the low four bits share a byte and the high two lie above the first four.
    let scales = u64::from(first & 0x3f3f_3f3f) | u64::from((third & 0x0f0f_0f0f) | (first >> 2 & 0x3030_3030)) << 32;
    let minimums =
        u64::from(second & 0x3f3f_3f3f) | u64::from((third >> 4 & 0x0f0f_0f0f) | (second >> 2 & 0x3030_3030)) << 32;
    let scales = s.scales8(scales, s.half([header[0], header[1]]));
    let minimums = s.scales8(minimums, s.half([header[2], header[3]]));
    for (sum, x) in sums.iter_mut().zip(x) {
        *sum = s.sub_mul8(minimums, x.1, *sum);
    }
    let mut own = [scales; C];
    for (own, x) in own.iter_mut().zip(x) {
        *own = s.mul8(scales, x.0);
    }
    own
}

impl Format for Q6K {
    type Block = [u8; 210];
    type Step<O: Operand> = Of<O, 4, 16>;
    const ZERO: Self::Block = [0; 210];
    const WORDS: bool = true;

    driver::split!();
    driver::slot!(sixteens);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 16>; C], sums: &mut [S::F; C]) {
        let d = s.half([w[208], w[209]]);
        let own = w[192..208].as_array().expect("16 bytes");
        let (own, offsets) = (s.scales16(own, d), s.scales16(own, 32.0 * d));
        let mut scales = [own; C];
        for c in 0..C {
            scales[c] = s.mul16(own, &x[c].0.scale);
            sums[c] = s.sub_mul16(offsets, &x[c].0.sum, sums[c]);
        }
        let low_mask = s.splat_byte(15);
        for first in (0..128).step_by(S::WIDTH) {
            let (n, half) = (first / 64, first % 64);
            let nibbles = s.bytes(&w[first..]);
            let pairs = &w[128 + 32 * n..];
            let low = s.or(s.and(nibbles, low_mask), s.upper_bits(pairs, half / 32));
            let high = s.or(s.high_nibbles(nibbles), s.upper_bits(pairs, 2 + half / 32));
            let group = 8 * n + half / 16;
            for c in 0..C {
                let low_sum = O::dot_u8(s, low, &x[c].0.v[2 * n], half);
                sums[c] = s.mul_add(low_sum, s.spread16::<2>(scales[c], group), sums[c]);
                let high_sum = O::dot_u8(s, high, &x[c].0.v[2 * n + 1], half);
                sums[c] = s.mul_add(high_sum, s.spread16::<2>(scales[c], group + 4), sums[c]);
            }
        }
    }
}
