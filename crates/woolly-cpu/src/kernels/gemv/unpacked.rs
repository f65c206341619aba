//! Types that are unpacked to bytes in memory first; signs are given to the activations.

use std::hint::black_box;

use super::Input;
use super::driver::Format;
use super::input::{Of, Operand, Slot};
use crate::isa::Bytes;
use crate::kernels::unpacked::{STEP, Unpack, Unpacked};

impl<T: Unpack> Format for T {
    type Block = T::Block;
    type Step<O: Operand> = Of<O, 4, 16>;
    const ZERO: Self::Block = T::ZERO;
    const RARE: bool = true;

    #[inline(always)]
    fn split(row: &[u8]) -> (&[Self::Block], &[u8]) {
        T::split(row)
    }

    #[inline(always)]
    fn slot<O: Operand>(input: &Input) -> &Slot<Self::Step<O>> {
        let all = O::arrangements(input);
        if T::ONE_SCALE { &all.natural_blocks } else { &all.sixteens }
    }

    fn slot_mut<O: Operand>(input: &mut Input) -> &mut Slot<Self::Step<O>> {
        let all = O::arrangements_mut(input);
        if T::ONE_SCALE { &mut all.natural_blocks } else { &mut all.sixteens }
    }

    #[inline(always)]
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Of<O, 4, 16>; C], sums: &mut [S::F; C]) {
        let mut bytes = Unpacked([0; STEP]);
        T::unpack(w, &mut bytes);
        // Joined with what reads the bytes, the compiler takes apart again what it has made vectors of.
        let (bytes, signs) = (black_box(&bytes), T::signs(w));
        let own = s.mul16(s.scales16(&[1; 16], 1.0), &T::scales(s, w));
        let mut scales = [own; C];
        for c in 0..C {
            scales[c] = s.mul16(own, &x[c].0.scale);
            if !T::SIGNS {
                let offsets = s.mul16(own, &[f32::from(T::OFFSET); 16]);
                sums[c] = s.sub_mul16(offsets, &x[c].0.sum, sums[c]);
            }
        }
        for first in (0..STEP).step_by(S::WIDTH) {
            let (vector, half) = (first / 64, first % 64);
            let mut weights = s.bytes(&bytes.0[first..]);
            if let Some(table) = &T::TABLE {
                weights = s.lookup(table, weights);
            }
            let negative = u64::from(signs[first / 32]) | u64::from(signs[(first / 32) | 1]) << 32;
            for c in 0..C {
                let x = &x[c].0.v[vector];
                let dot =
                    if T::SIGNS { O::dot_signs(s, weights, negative, x, half) } else { O::dot_u8(s, weights, x, half) };
                sums[c] = s.mul_add(dot, s.spread16::<2>(scales[c], first / 16), sums[c]);
            }
        }
    }
}
