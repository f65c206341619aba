//! Activations of 256 columns, rounded to eight bits, for the kernels on 512-bit vectors.

use std::arch::x86_64::*;

use super::super::input::{Arrangement, K_NIBBLES, NATURAL, PAIRS, Slot};
use super::planes::{Eights, Fours};
use super::ternary::{Fifths, Quarters};
use crate::buffer::Zeroed;
use crate::isa::Avx512;
use crate::kernels::rounding::{BLOCK, Scales};

/// Activations of a block of weights, rounded as those of [`super::super::words::Words`] are.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(in super::super) struct Wide {
    /// In the order of the weights.
    pub(super) v: [i8; BLOCK],
    /// Scale of each 16 in natural order: two in turn are the same.
    pub(super) scale: [i16; 16],
    /// Sums of each 16, in natural order.
    pub(super) sum: [i16; 16],
    /// Scales of each 32.
    pub(super) scale32: [i16; 8],
    /// Sums of each 32.
    pub(super) sum32: [i16; 8],
    pub(super) unit: f32,
}

// SAFETY: numbers, and padding.
unsafe impl Zeroed for Wide {}

impl Arrangement for Wide {
    const ELEMENTS: usize = BLOCK;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], order: &[u8; 16], scales: Scales) {
        let simd = Avx512::new().expect("`has` asked the processor");
        // SAFETY: `simd` proves the features.
        unsafe { self.round(simd, x.as_array().expect("a row has whole blocks"), order, scales) }
    }
}

impl Wide {
    pub(super) const ZERO: Self =
        Self { v: [0; BLOCK], scale: [0; 16], sum: [0; 16], scale32: [0; 8], sum32: [0; 8], unit: 0.0 };

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn round(&mut self, _simd: Avx512, x: &[f32; BLOCK], order: &[u8; 16], scales: Scales) {
        let groups = x.as_chunks::<32>().0;
        let mut largest = [0; 8];
        for (largest, group) in largest.iter_mut().zip(groups) {
            let [a, b] = halves(group);
            let (a, b) = (_mm512_castps_si512(a), _mm512_castps_si512(b));
            // As integers, magnitudes order like the floats, and infinities and NaN stay visible above all of them.
            let both = _mm512_max_epu32(_mm512_slli_epi32::<1>(a), _mm512_slli_epi32::<1>(b));
            *largest = _mm512_reduce_max_epu32(both) >> 1;
        }
        let unit = scales.unit(largest.iter().fold(0, |m, x| m.max(*x))).expect("a slot of whole blocks has units");
        self.unit = unit.size;
        let mut natural = [[0; 16]; 16];
        for (g, group) in groups.iter().enumerate() {
            let scale = unit.multiple(largest[g]);
            let inverse = _mm512_set1_ps(unit.inverse(scale));
            for (half, x) in halves(group).into_iter().enumerate() {
                let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse));
                let at = 2 * g + half;
                // SAFETY: 16 bytes are writable.
                unsafe { _mm_storeu_si128(natural[at].as_mut_ptr().cast(), _mm512_cvtepi32_epi8(rounded)) };
                self.scale[at] = scale as i16;
                self.sum[at] = _mm512_reduce_add_epi32(rounded) as i16;
            }
            self.scale32[g] = scale as i16;
            self.sum32[g] = self.sum[2 * g] + self.sum[2 * g + 1];
        }
        for (place, &group) in self.v.as_chunks_mut().0.iter_mut().zip(order) {
            *place = natural[usize::from(group)];
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn halves(x: &[f32; 32]) -> [__m512; 2] {
    // SAFETY: 16 floats are readable at both places.
    unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x[16..].as_ptr())] }
}

/// One slot for each order that weights come in; see [`super::super::input::Arrangements`].
pub(in super::super) struct Slots {
    /// Q4_K and Q5_K.
    pub(super) nibbles: Slot<Wide>,
    /// Q2_K and Q3_K.
    pub(super) pairs: Slot<Wide>,
    /// Q6_K, and types with codewords.
    pub(super) natural: Slot<Wide>,
    /// 16 low nibbles, then 16 high ones, of four groups (IQ4_XS).
    pub(super) sixteens: Slot<Wide>,
    /// TQ2_0.
    pub(super) quarters: Slot<Quarters>,
    /// TQ1_0.
    pub(super) fifths: Slot<Fifths>,
    /// IQ3_XXS and IQ3_S.
    pub(super) fours: Slot<Fours>,
    /// IQ2_XXS, IQ2_XS and IQ2_S.
    pub(super) eights: Slot<Eights>,
}

impl Slots {
    pub(in super::super) fn new(columns: usize, k: usize) -> Self {
        let sixteens = [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15];
        Self {
            nibbles: Slot::new(K_NIBBLES, columns, k),
            pairs: Slot::new(PAIRS, columns, k),
            natural: Slot::new(NATURAL, columns, k),
            sixteens: Slot::new(sixteens, columns, k),
            quarters: Slot::in_blocks(PAIRS, columns, k),
            fifths: Slot::in_blocks(NATURAL, columns, k),
            fours: Slot::new(NATURAL, columns, k),
            eights: Slot::new(NATURAL, columns, k),
        }
    }

    pub(in super::super) fn invalidate(&mut self) {
        self.nibbles.invalidate();
        self.pairs.invalidate();
        self.natural.invalidate();
        self.sixteens.invalidate();
        self.quarters.invalidate();
        self.fifths.invalidate();
        self.fours.invalidate();
        self.eights.invalidate();
    }
}
