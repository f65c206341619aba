//! Input vectors in the arrangements that the weight formats are multiplied in.
//!
//! A format's weights leave their bytes in some order; the activations are brought into the same order once, so that the
//! inner loops need no shuffles. Vectors are quantised to 8 bits with a scale for each 32 elements ([`rounding`]), or kept as floats.

use std::array;
use std::hint;

use crate::buffer::{AlignedVec, Zeroed};
use crate::isa::{Bytes, Kernel, Level, Simd};
use crate::kernels::rounding::{self, Scales, Unit};

/// Elements that share a scale.
const BLOCK: usize = 32;
/// 1.5 · 2^23: adding and subtracting it leaves the nearest integer, ties to even.
pub(super) const MAGIC: f32 = 12_582_912.0;
/// Elements of a vector of 64 bytes.
const VECTOR: usize = 64;

/// Activations as the inner loops take them: [`Int8`] or [`Exact`].
pub(super) trait Operand: Copy + 'static {
    /// Whether two columns have kernels of their own, or are computed as four: those cost compile time.
    const TWO: bool;
    /// Whether they are bytes.
    const BYTES: bool;
    /// 64 activations.
    type Vector: Copy + Zeroed;

    /// The arrangements made for this kind.
    fn arrangements(input: &super::Input) -> &Arrangements<Self>;
    /// The arrangements made for this kind, to be filled.
    fn arrangements_mut(input: &mut super::Input) -> &mut Arrangements<Self>;
    /// Brings 32 activations to the values that are stored, as floats, and returns their scale, a multiple of the unit if there
    /// is one.
    fn round(x: &mut [f32; BLOCK], unit: Option<Unit>) -> f32;
    /// Stores 16 values that [`Operand::round`] returned as the part `quarter` of the vector.
    fn put(vector: &mut Self::Vector, quarter: usize, values: &[f32; 16]);
    /// Sums of four products of unsigned weights, beginning at `half` (0 or 32) of the vector.
    fn dot_u8<S: Bytes>(s: S, w: S::I, x: &Self::Vector, half: usize) -> S::F;
    /// Sums of four products of signed weights, which are [`Operand::signed_bias`] too large.
    fn dot_i8<S: Bytes>(s: S, w: S::I, x: &Self::Vector, half: usize) -> S::F;
    /// Sums of four products of weights below 128 that are negative where a bit of `signs` is set.
    fn dot_signs<S: Bytes>(s: S, w: S::I, signs: u64, x: &Self::Vector, half: usize) -> S::F;
    /// The sum of [`Operand::dot_u8`] of two pairs, of whose weights none is above 32.
    fn dot2_u8<S: Bytes>(s: S, w: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F;
    /// The sum of [`Operand::dot_i8`] of two pairs.
    fn dot2_i8<S: Bytes>(s: S, w: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F;
    /// [`Operand::dot2_i8`] of the entries of `table` that two vectors of bytes below 16 name.
    #[inline(always)]
    fn dot2_table<S: Bytes>(s: S, table: &[i8; 16], index: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F {
        Self::dot2_i8(s, [s.lookup(table, index[0]), s.lookup(table, index[1])], x, half)
    }
    /// What [`Operand::dot_i8`] adds to each weight.
    fn signed_bias<S: Bytes>() -> f32;
}

/// 8-bit activations: what decoding of large matrices uses.
#[derive(Clone, Copy)]
pub(super) struct Int8;

/// 32-bit activations: four times the arithmetic, and no error but that of the weights.
#[derive(Clone, Copy)]
pub(super) struct Exact;

impl Operand for Int8 {
    const TWO: bool = true;
    const BYTES: bool = true;
    type Vector = [i8; VECTOR];

    fn arrangements(input: &super::Input) -> &Arrangements<Self> {
        &input.int8
    }

    fn arrangements_mut(input: &mut super::Input) -> &mut Arrangements<Self> {
        &mut input.int8
    }

    #[inline(always)]
    fn round(x: &mut [f32; BLOCK], unit: Option<Unit>) -> f32 {
        // Hidden from the compiler, which would take blocks side by side, gathering their elements, where they lie in a row.
        let largest = hint::black_box(rounding::largest(x));
        if largest >= f32::INFINITY.to_bits() {
            *x = [1.0; BLOCK];
            return f32::NAN;
        }
        let (inverse, scale) = match unit {
            Some(unit) => {
                let multiple = unit.multiple(largest);
                (unit.inverse(multiple), multiple * unit.size)
            }
            None => {
                let largest = f32::from_bits(largest);
                // Below this the inverse overflows; such blocks add nothing that a float sum could hold.
                (if largest < 1e-35 { 0.0 } else { 127.0 / largest }, largest / 127.0)
            }
        };
        for x in x.iter_mut() {
            *x = (*x * inverse + MAGIC) - MAGIC;
        }
        scale
    }

    #[inline(always)]
    fn put(vector: &mut Self::Vector, quarter: usize, values: &[f32; 16]) {
        // The last byte of a whole number that was pushed to the end of the mantissa.
        vector.as_chunks_mut().0[quarter] = values.map(|x| (x + MAGIC).to_bits() as i8);
    }

    #[inline(always)]
    fn dot_u8<S: Bytes>(s: S, w: S::I, x: &Self::Vector, half: usize) -> S::F {
        s.dot_u8(w, &x[half..])
    }

    #[inline(always)]
    fn dot_i8<S: Bytes>(s: S, w: S::I, x: &Self::Vector, half: usize) -> S::F {
        s.dot_i8(w, &x[half..])
    }

    #[inline(always)]
    fn dot_signs<S: Bytes>(s: S, w: S::I, signs: u64, x: &Self::Vector, half: usize) -> S::F {
        s.dot_signs(w, signs, &x[half..])
    }

    #[inline(always)]
    fn dot2_u8<S: Bytes>(s: S, w: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F {
        s.dot2_u8(w, [&x[0][half..], &x[1][half..]])
    }

    #[inline(always)]
    fn dot2_i8<S: Bytes>(s: S, w: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F {
        s.dot2_i8(w, [&x[0][half..], &x[1][half..]])
    }

    #[inline(always)]
    fn dot2_table<S: Bytes>(s: S, table: &[i8; 16], index: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F {
        s.dot2_table(table, index, [&x[0][half..], &x[1][half..]])
    }

    #[inline(always)]
    fn signed_bias<S: Bytes>() -> f32 {
        S::SIGNED_BIAS
    }
}

impl Operand for Exact {
    const TWO: bool = false;
    const BYTES: bool = false;
    /// `[byte of a lane][lane]`.
    type Vector = [f32; VECTOR];

    fn arrangements(input: &super::Input) -> &Arrangements<Self> {
        &input.exact
    }

    fn arrangements_mut(input: &mut super::Input) -> &mut Arrangements<Self> {
        &mut input.exact
    }

    #[inline(always)]
    fn round(_x: &mut [f32; BLOCK], _unit: Option<Unit>) -> f32 {
        1.0
    }

    #[inline(always)]
    fn put(vector: &mut Self::Vector, quarter: usize, values: &[f32; 16]) {
        for (i, value) in values.iter().enumerate() {
            vector[i % 4 * 16 + 4 * quarter + i / 4] = *value;
        }
    }

    #[inline(always)]
    fn dot_u8<S: Bytes>(s: S, w: S::I, x: &Self::Vector, half: usize) -> S::F {
        let mut sum = s.mul(s.quarter_u8(w, 0), s.load(&x[half / 4..]));
        for q in 1..4 {
            sum = s.mul_add(s.quarter_u8(w, q), s.load(&x[16 * q + half / 4..]), sum);
        }
        sum
    }

    #[inline(always)]
    fn dot_i8<S: Bytes>(s: S, w: S::I, x: &Self::Vector, half: usize) -> S::F {
        let mut sum = s.mul(s.quarter_i8(w, 0), s.load(&x[half / 4..]));
        for q in 1..4 {
            sum = s.mul_add(s.quarter_i8(w, q), s.load(&x[16 * q + half / 4..]), sum);
        }
        sum
    }

    #[inline(always)]
    fn dot_signs<S: Bytes>(s: S, w: S::I, signs: u64, x: &Self::Vector, half: usize) -> S::F {
        Self::dot_i8(s, s.negated(w, signs), x, half)
    }

    #[inline(always)]
    fn dot2_u8<S: Bytes>(s: S, w: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F {
        s.add(Self::dot_u8(s, w[0], x[0], half), Self::dot_u8(s, w[1], x[1], half))
    }

    #[inline(always)]
    fn dot2_i8<S: Bytes>(s: S, w: [S::I; 2], x: [&Self::Vector; 2], half: usize) -> S::F {
        s.add(Self::dot_i8(s, w[0], x[0], half), Self::dot_i8(s, w[1], x[1], half))
    }

    #[inline(always)]
    fn signed_bias<S: Bytes>() -> f32 {
        0.0
    }
}

/// The activations that one step of a kernel uses.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Step<V, const VECTORS: usize, const GROUPS: usize> {
    /// The activations, in the order of the weights.
    pub(super) v: [V; VECTORS],
    /// In steps of 256: scale of each group of consecutive elements. In shorter ones: scale of the lane's elements.
    pub(super) scale: [f32; GROUPS],
    /// Sum of the group's or the lane's activations (scale included).
    pub(super) sum: [f32; GROUPS],
}

// SAFETY: arrays of zero-byte-valid values, and padding.
unsafe impl<V: Zeroed, const VECTORS: usize, const GROUPS: usize> Zeroed for Step<V, VECTORS, GROUPS> {}

/// Sixteen-element groups that lie one after another in the vectors of a step.
///
/// The elements of a step, cut into groups of 16, are numbered in natural order; `order[i]` is the one at place `i`.
pub(super) trait Arrangement: Copy + Zeroed {
    /// Elements of a step.
    const ELEMENTS: usize;

    /// Fills the step from its first elements (of which there are at most `ELEMENTS`); the rest is zero.
    fn fill(&mut self, x: &[f32], order: &[u8; 16], scales: Scales);
}

impl<O: Operand, const VECTORS: usize, const GROUPS: usize> Of<O, VECTORS, GROUPS> {
    /// As [`Arrangement::fill`], with scales that are multiples of the unit if there is one.
    #[inline(always)]
    fn fill_in(&mut self, x: &[f32], order: &[u8; 16], unit: Option<Unit>) {
        let mut values = [0.0; 256];
        values[..x.len()].copy_from_slice(x);
        let mut scales = [0.0; 8];
        for (block, scale) in values.as_chunks_mut().0.iter_mut().zip(&mut scales).take(Self::ELEMENTS / BLOCK) {
            *scale = O::round(block, unit);
        }
        self.0.sum = [0.0; GROUPS];
        for (place, &group) in order[..Self::ELEMENTS / 16].iter().enumerate() {
            let group = usize::from(group);
            let sixteen = values.as_chunks().0[group];
            O::put(&mut self.0.v[place / 4], place % 4, &sixteen);
            let quads: [f32; 4] = array::from_fn(|i| {
                let [a, b, c, d] = sixteen.as_chunks().0[i];
                (a + b) + (c + d)
            });
            let scale = scales[group / 2];
            if Self::ELEMENTS == 256 {
                let owner = group * GROUPS / 16;
                self.0.sum[owner] += (quads[0] + quads[1]) + (quads[2] + quads[3]);
                self.0.scale[owner] = scale;
            } else {
                for (i, quad) in quads.iter().enumerate() {
                    self.0.sum[place % 4 * 4 + i] += quad;
                    self.0.scale[place % 4 * 4 + i] = scale;
                }
            }
        }
        for (sum, scale) in self.0.sum.iter_mut().zip(self.0.scale) {
            *sum *= scale;
        }
    }
}

/// A step with its operand, since a vector type alone does not name it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Of<O: Operand, const VECTORS: usize, const GROUPS: usize>(
    pub(super) Step<O::Vector, VECTORS, GROUPS>,
);

// SAFETY: a transparent wrapper.
unsafe impl<O: Operand, const VECTORS: usize, const GROUPS: usize> Zeroed for Of<O, VECTORS, GROUPS> {}

impl<O: Operand, const VECTORS: usize, const GROUPS: usize> Arrangement for Of<O, VECTORS, GROUPS> {
    const ELEMENTS: usize = VECTORS * VECTOR;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], order: &[u8; 16], scales: Scales) {
        let unit = if Self::ELEMENTS == rounding::BLOCK { scales.unit(rounding::largest(x)) } else { None };
        self.fill_in(x, order, unit);
    }
}

/// Two steps for one block of weights.
impl<O: Operand, const VECTORS: usize, const GROUPS: usize> Arrangement for [Of<O, VECTORS, GROUPS>; 2] {
    const ELEMENTS: usize = 2 * VECTORS * VECTOR;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], order: &[u8; 16], scales: Scales) {
        const { assert!(Self::ELEMENTS == rounding::BLOCK) };
        let unit = scales.unit(rounding::largest(x));
        let (first, second) = x.split_at(x.len().min(VECTORS * VECTOR));
        self[0].fill_in(first, order, unit);
        self[1].fill_in(second, order, unit);
    }
}

/// 64 floats in natural order.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Plain(pub(super) [f32; VECTOR]);

// SAFETY: an array of floats.
unsafe impl Zeroed for Plain {}

impl Arrangement for Plain {
    const ELEMENTS: usize = VECTOR;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], _order: &[u8; 16], _scales: Scales) {
        self.0[..x.len()].copy_from_slice(x);
        self.0[x.len()..].fill(0.0);
    }
}

/// Steps of all columns in one arrangement.
pub(super) struct Slot<T: Zeroed> {
    steps: AlignedVec<T>,
    order: [u8; 16],
    scales: Scales,
    ready: bool,
    per_column: usize,
}

impl<T: Arrangement> Slot<T> {
    pub(super) fn new(order: [u8; 16], columns: usize, k: usize) -> Self {
        let steps = AlignedVec::zeroed(columns * k.div_ceil(T::ELEMENTS));
        let scales = if T::ELEMENTS == rounding::BLOCK { Scales::Multiples } else { Scales::Own };
        Self { steps, order, scales, ready: false, per_column: 0 }
    }

    /// As [`Slot::new`], with one scale for a step of 256.
    pub(super) fn in_blocks(order: [u8; 16], columns: usize, k: usize) -> Self {
        const { assert!(T::ELEMENTS == rounding::BLOCK) };
        Self { scales: Scales::Block, ..Self::new(order, columns, k) }
    }

    pub(super) fn invalidate(&mut self) {
        self.ready = false;
    }

    /// The steps of one column.
    #[inline(always)]
    pub(super) fn column(&self, c: usize) -> &[T] {
        assert!(self.ready, "the input is prepared for this type of weights");
        &self.steps[c * self.per_column..][..self.per_column]
    }

    pub(super) fn prepare(&mut self, level: Level, x: &[f32], k: usize) {
        if self.ready || k == 0 {
            return;
        }
        self.per_column = k.div_ceil(T::ELEMENTS);
        level.run(Fill { slot: self, x, k });
        self.ready = true;
    }
}

struct Fill<'a, T: Zeroed> {
    slot: &'a mut Slot<T>,
    x: &'a [f32],
    k: usize,
}

impl<T: Arrangement> Kernel for Fill<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Slot { steps, order, scales, per_column, .. } = self.slot;
        for (column, steps) in self.x.chunks_exact(self.k).zip(steps.chunks_exact_mut(*per_column)) {
            for (x, step) in column.chunks(T::ELEMENTS).zip(steps) {
                step.fill(x, order, *scales);
            }
        }
    }
}

/// Orders of groups of 16 that several kernels have: the natural one.
pub(super) const NATURAL: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// 32 low nibbles, then 32 high ones (Q4_K, Q5_K).
pub(super) const K_NIBBLES: [u8; 16] = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15];
/// Bit pairs of 32 bytes, both halves of a block side by side (Q2_K, Q3_K).
pub(super) const PAIRS: [u8; 16] = [0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15];

/// One slot for each order that weights come in.
pub(super) struct Arrangements<O: Operand> {
    /// Natural order, lanes (Q8_0).
    pub(super) natural: Slot<Of<O, 1, 16>>,
    /// 16 low nibbles, then 16 high ones, of four blocks (Q4_0 and its kin).
    pub(super) nibbles: Slot<Of<O, 2, 16>>,
    /// Two steps of `nibbles` (IQ4_XS).
    pub(super) nibble_pairs: Slot<[Of<O, 2, 16>; 2]>,
    /// 32 low nibbles, then 32 high ones (Q4_K, Q5_K).
    pub(super) k_nibbles: Slot<Of<O, 4, 8>>,
    /// Natural order, a scale for each 16 (Q6_K, and types that are unpacked first).
    pub(super) sixteens: Slot<Of<O, 4, 16>>,
    /// Bit pairs of 32 bytes, both halves of a block side by side (Q2_K, Q3_K).
    pub(super) pairs: Slot<Of<O, 4, 16>>,
    /// As `sixteens`, with one scale (TQ1_0).
    pub(super) natural_blocks: Slot<Of<O, 4, 16>>,
    /// As `pairs`, with one scale (TQ2_0).
    pub(super) pair_blocks: Slot<Of<O, 4, 16>>,
}

impl<O: Operand> Arrangements<O> {
    pub(super) fn new(columns: usize, k: usize) -> Self {
        let nibbles = [0, 2, 4, 6, 1, 3, 5, 7, 0, 0, 0, 0, 0, 0, 0, 0];
        Self {
            natural: Slot::new(NATURAL, columns, k),
            nibbles: Slot::new(nibbles, columns, k),
            nibble_pairs: Slot::new(nibbles, columns, k),
            k_nibbles: Slot::new(K_NIBBLES, columns, k),
            sixteens: Slot::new(NATURAL, columns, k),
            pairs: Slot::new(PAIRS, columns, k),
            natural_blocks: Slot::in_blocks(NATURAL, columns, k),
            pair_blocks: Slot::in_blocks(PAIRS, columns, k),
        }
    }

    pub(super) fn invalidate(&mut self) {
        self.natural.invalidate();
        self.nibbles.invalidate();
        self.nibble_pairs.invalidate();
        self.k_nibbles.invalidate();
        self.sixteens.invalidate();
        self.pairs.invalidate();
        self.natural_blocks.invalidate();
        self.pair_blocks.invalidate();
    }
}
