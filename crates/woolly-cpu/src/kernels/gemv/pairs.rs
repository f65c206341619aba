//! Q2_K, Q3_K and TQ2_0: four weights' bit pairs in a byte, a scale for each 16 weights or for all.

use super::driver::Format;
use super::input::{Of, Operand, Slot};
use super::{Input, driver};
use crate::isa::Bytes;

/// Scales and minimums of four bits.
pub(super) struct Q2K;
/// A third bit in a mask, signed scales of six bits.
pub(super) struct Q3K;
/// Ternary digits.
pub(super) struct Tq20;

impl Format for Q2K {
    type Block = [u8; 84];
    type Step<O: Operand> = Of<O, 4, 16>;
    const ZERO: Self::Block = [0; 84];
    const WORDS: bool = true;

    driver::split!();
    driver::slot!(pairs);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 16>; C], sums: &mut [S::F; C]) {
        let (d, dmin) = (s.half([w[80], w[81]]), s.half([w[82], w[83]]));
        let packed = u128::from_le_bytes(*w[..16].as_array().expect("16 bytes"));
        let nibbles = 0x0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f_0f0f;
        let own = s.scales16(&(packed & nibbles).to_le_bytes(), d);
        let minimums = s.scales16(&(packed >> 4 & nibbles).to_le_bytes(), dmin);
        let mut scales = [own; C];
        for c in 0..C {
            scales[c] = s.mul16(own, &x[c].0.scale);
            sums[c] = s.sub_mul16(minimums, &x[c].0.sum, sums[c]);
        }
        for half in (0..64).step_by(S::WIDTH) {
            let bytes = s.bytes(&w[16 + half..]);
            for j in 0..4 {
                let weights = s.two_bits(bytes, 2 * j);
                for c in 0..C {
                    let scale = s.spread16::<8>(scales[c], half / 4 + 2 * j);
                    sums[c] = s.mul_add(O::dot_u8(s, weights, &x[c].0.v[j], half), scale, sums[c]);
                }
            }
        }
    }
}

impl Format for Q3K {
    type Block = [u8; 110];
    type Step<O: Operand> = Of<O, 4, 16>;
    const ZERO: Self::Block = [0; 110];
    const WORDS: bool = true;

    driver::split!();
    driver::slot!(pairs);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 16>; C], sums: &mut [S::F; C]) {
        let d = s.half([w[108], w[109]]);
        let own = signed_scales(w[96..108].as_array().expect("12 bytes"));
        // With the third bit as 4, weights are 4 too large; the sums take that off.
        let (own, offsets) = (s.scales16(&own, d), s.scales16(&own, 4.0 * d));
        let mut scales = [own; C];
        for c in 0..C {
            scales[c] = s.mul16(own, &x[c].0.scale);
            sums[c] = s.sub_mul16(offsets, &x[c].0.sum, sums[c]);
        }
        let mask = w[..32].as_array().expect("32 bytes");
        for half in (0..64).step_by(S::WIDTH) {
            let bytes = s.bytes(&w[32 + half..]);
            for j in 0..4 {
                let weights = s.third_bits(s.two_bits(bytes, 2 * j), mask, half / 8 + j);
                for c in 0..C {
                    let scale = s.spread16::<8>(scales[c], half / 4 + 2 * j);
                    sums[c] = s.mul_add(O::dot_u8(s, weights, &x[c].0.v[j], half), scale, sums[c]);
                }
            }
        }
    }
}

impl Format for Tq20 {
    type Block = [u8; 66];
    type Step<O: Operand> = Of<O, 4, 16>;
    const ZERO: Self::Block = [0; 66];
    const WORDS: bool = true;

    driver::split!();
    driver::slot!(pair_blocks);

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 16>; C], sums: &mut [S::F; C]) {
        let own = s.scales16(&[1; 16], s.half([w[64], w[65]]));
        let mut scales = [own; C];
        for c in 0..C {
            scales[c] = s.mul16(own, &x[c].0.scale);
            // Digits are the weights plus 1.
            sums[c] = s.sub_mul16(own, &x[c].0.sum, sums[c]);
        }
        for half in (0..64).step_by(S::WIDTH) {
            let bytes = s.bytes(&w[half..]);
            for j in 0..4 {
                let weights = s.two_bits(bytes, 2 * j);
                for c in 0..C {
                    let scale = s.spread16::<8>(scales[c], half / 4 + 2 * j);
                    sums[c] = s.mul_add(O::dot_u8(s, weights, &x[c].0.v[j], half), scale, sums[c]);
                }
            }
        }
    }
}

/// Sixteen scales of six bits, less 32.
#[inline(always)]
fn signed_scales(packed: &[u8; 12]) -> [u8; 16] {
    let word = |i: usize| u32::from_le_bytes([packed[i], packed[i + 1], packed[i + 2], packed[i + 3]]);
    let (first, second, upper) = (word(0), word(4), word(8));
    let scales = [
        (first & 0x0f0f_0f0f) | (upper & 0x0303_0303) << 4,
        (second & 0x0f0f_0f0f) | (upper >> 2 & 0x0303_0303) << 4,
        (first >> 4 & 0x0f0f_0f0f) | (upper >> 4 & 0x0303_0303) << 4,
        (second >> 4 & 0x0f0f_0f0f) | (upper >> 6 & 0x0303_0303) << 4,
    ];
    let joined = scales.iter().rev().fold(0, |all, word| all << 32 | u128::from(*word));
    // Bytes below 64: subtracting 32 with bit 7 set in advance borrows nothing from the next one; that bit is then undone.
    let (top, bias) = (u128::from_le_bytes([0x80; 16]), u128::from_le_bytes([0x20; 16]));
    (((joined | top) - bias) ^ top).to_le_bytes()
}
