//! Types with integer scales on 256-bit vectors: one instruction widens products to 32 bits and scales them.
//!
//! Sums stay integers over a whole block of 256 weights, where the kernels of the other files turn each sum of four
//! products into a float: half as many instructions on the two ports that multiply. For that, the scales of activations
//! are integers as well (see [`rounding`]).

use std::array;
use std::marker::PhantomData;
use std::ops::Range;

use woolly_quant::TensorType;

use super::input::{Arrangement, MAGIC, NATURAL, Slot};
use super::nibbles::{NON_LINEAR, six_bits_less_32};
use super::streams::Streams;
use super::{Input, Rows, driver};
use crate::buffer::{SharedOut, Zeroed};
use crate::isa::{Avx2, Bytes, Level, Simd, Vector, WordKernel};
use crate::kernels::rounding::{self, BLOCK, Scales};

/// Whether this file has a kernel that is to be used for `ty` at `level`.
pub(super) fn has(level: Level, ty: TensorType) -> bool {
    use TensorType::*;
    matches!(level.min(Level::best()), Level::Avx2 | Level::AvxVnni)
        && matches!(ty, Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS | TQ1_0 | TQ2_0)
}

/// Activations for a block of weights, rounded to eight bits.
///
/// Activation `i` is about `v[i] · scale[i / 32] · unit` (see [`rounding`]).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Words {
    v: [i8; BLOCK],
    scale: [i16; 8],
    /// Sums of 32, then zeros.
    sum32: [i16; 16],
    /// Sums of 16: those of even groups, then those of odd ones.
    sum16: [i16; 16],
    unit: f32,
}

// SAFETY: numbers, and padding.
unsafe impl Zeroed for Words {}

impl Arrangement for Words {
    const ELEMENTS: usize = BLOCK;

    #[inline(always)]
    fn fill(&mut self, x: &[f32], _order: &[u8; 16], scales: Scales) {
        let mut values = [0.0; BLOCK];
        values[..x.len()].copy_from_slice(x);
        let mut largest = [0; 8];
        for (largest, group) in largest.iter_mut().zip(values.as_chunks::<32>().0) {
            *largest = rounding::largest(group);
        }
        let unit = scales.unit(largest.iter().fold(0, |m, x| m.max(*x))).expect("a slot of whole blocks has units");
        self.unit = unit.size;
        for (g, group) in values.as_chunks::<32>().0.iter().enumerate() {
            let scale = unit.multiple(largest[g]);
            let inverse = unit.inverse(scale);
            self.scale[g] = scale as i16;
            let v = &mut self.v.as_chunks_mut::<32>().0[g];
            for (v, x) in v.iter_mut().zip(group) {
                // The last byte of a whole number that was pushed to the end of the mantissa.
                *v = (x * inverse + MAGIC).to_bits() as i8;
            }
            let sums: [i16; 2] = array::from_fn(|half| v[16 * half..][..16].iter().map(|v| i16::from(*v)).sum());
            (self.sum16[g], self.sum16[8 + g]) = (sums[0], sums[1]);
            self.sum32[g] = sums[0] + sums[1];
        }
    }
}

/// One slot for each way that scales are shared; see [`super::input::Arrangements`].
pub(super) struct Slots {
    multiples: Slot<Words>,
    /// Of ternary weights.
    blocks: Slot<Words>,
}

impl Slots {
    pub(super) fn new(columns: usize, k: usize) -> Self {
        Self { multiples: Slot::new(NATURAL, columns, k), blocks: Slot::in_blocks(NATURAL, columns, k) }
    }

    pub(super) fn invalidate(&mut self) {
        self.multiples.invalidate();
        self.blocks.invalidate();
    }

    /// Prepares vectors of `k` elements for weights of type `ty`.
    pub(super) fn prepare(&mut self, ty: TensorType, level: Level, x: &[f32], k: usize) {
        match Scales::of(ty) {
            Scales::Block => self.blocks.prepare(level, x, k),
            _ => self.multiples.prepare(level, x, k),
        }
    }

    fn column(&self, ty: TensorType, c: usize) -> &[Words] {
        match Scales::of(ty) {
            Scales::Block => self.blocks.column(c),
            _ => self.multiples.column(c),
        }
    }
}

/// How to multiply the blocks of one type.
trait Format {
    /// A block of 256 weights.
    type Block: AsRef<[u8]>;

    /// Splits a row into its blocks.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// Adds the products of one block to each column's lanes.
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]);
}

type Floats = <Avx2<false> as Simd>::F;

/// A matrix-vector product of one type: the arguments of [`super::gemv`], of which `x` is prepared.
pub(super) struct Gemv<'a> {
    pub(super) w: &'a Rows<'a>,
    pub(super) row_bytes: usize,
    pub(super) range: Range<usize>,
    pub(super) x: &'a Input,
    pub(super) out: &'a SharedOut<'a>,
    pub(super) out_stride: usize,
}

impl Gemv<'_> {
    /// Computes at the best of the levels up to `level` that this file is for.
    pub(super) fn run(self, level: Level) {
        match self.w.ty {
            TensorType::Q2_K => self.of::<Q2K>(level),
            TensorType::Q3_K => self.of::<Q3K>(level),
            TensorType::Q4_K => self.of::<Q4K>(level),
            TensorType::Q5_K => self.of::<Q5K>(level),
            TensorType::Q6_K => self.of::<Q6K>(level),
            TensorType::IQ4_XS => self.of::<Iq4Xs>(level),
            TensorType::TQ1_0 => self.of::<Tq10>(level),
            TensorType::TQ2_0 => self.of::<Tq20>(level),
            other => unreachable!("{other} has no integer scales: `has` said so"),
        }
    }

    fn of<F: Format>(self, level: Level) {
        if level >= Level::AvxVnni
            && let Some(simd) = Avx2::<true>::new()
        {
            simd.run_words(Typed::<F>(self, PhantomData));
        } else if let Some(simd) = Avx2::<false>::new() {
            simd.run_words(Typed::<F>(self, PhantomData));
        }
    }
}

struct Typed<'a, F>(Gemv<'a>, PhantomData<F>);

impl<F: Format> WordKernel for Typed<'_, F> {
    #[inline(always)]
    fn run<const VNNI: bool>(self, s: Avx2<VNNI>) {
        // Fewer columns than a kernel has repeat the last one: a few wasted products instead of more kernels to compile.
        match self.0.x.m {
            0 => {}
            1 => self.groups::<VNNI, 1>(s),
            2 => self.groups::<VNNI, 2>(s),
            _ => self.groups::<VNNI, 4>(s),
        }
    }
}

impl<F: Format> Typed<'_, F> {
    #[inline(always)]
    fn groups<const VNNI: bool, const C: usize>(&self, s: Avx2<VNNI>) {
        let Gemv { x, out, out_stride, .. } = &self.0;
        let streams = Streams::<4>::new(&self.0.range, self.0.row_bytes);
        for i in 0..streams.len() {
            let rows = streams.rows(i);
            for first in (0..x.m).step_by(C) {
                let columns: [usize; C] = array::from_fn(|c| (first + c).min(x.m - 1));
                let sums = self.rows::<VNNI, C>(s, rows, columns);
                for r in 0..4 {
                    for c in 0..C {
                        out.set(columns[c] * out_stride + rows[r], s.sum(sums[r][c]));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn rows<const VNNI: bool, const C: usize>(
        &self,
        s: Avx2<VNNI>,
        rows: [usize; 4],
        columns: [usize; C],
    ) -> [[Floats; C]; 4] {
        let row = |r: usize| F::blocks(&self.0.w.bytes[rows[r] * self.0.row_bytes..][..self.0.row_bytes]);
        let count = row(0).len();
        let rows = [row(0), &row(1)[..count], &row(2)[..count], &row(3)[..count]];
        let steps: [&[Words]; C] = array::from_fn(|c| &self.0.x.words.column(self.0.w.ty, columns[c])[..count]);
        let mut sums = [[s.splat(0.0); C]; 4];
        for i in 0..count {
            let x: [&Words; C] = array::from_fn(|c| &steps[c][i]);
            // Written out: the compiler would keep long steps in a loop over rows, and their sums in memory.
            advance::<F, VNNI, C>(s, &rows[0][i], x, &mut sums[0]);
            advance::<F, VNNI, C>(s, &rows[1][i], x, &mut sums[1]);
            advance::<F, VNNI, C>(s, &rows[2][i], x, &mut sums[2]);
            advance::<F, VNNI, C>(s, &rows[3][i], x, &mut sums[3]);
        }
        sums
    }
}

#[inline(always)]
fn advance<F: Format, const VNNI: bool, const C: usize>(
    s: Avx2<VNNI>,
    block: &F::Block,
    x: [&Words; C],
    sums: &mut [Floats; C],
) {
    driver::prefetch(s, block);
    F::step::<VNNI, C>(s, block, x, sums);
}

/// Implements [`Format::Block`] and [`Format::blocks`].
macro_rules! blocks {
    ($bytes:literal) => {
        type Block = [u8; $bytes];

        #[inline(always)]
        fn blocks(row: &[u8]) -> &[Self::Block] {
            row.as_chunks().0
        }
    };
}

/// Vector `i` of a block's activations.
#[inline(always)]
fn vector(x: &Words, i: usize) -> &[i8] {
    &x.v[32 * i..][..32]
}

/// `(q · scale − min)` with scales and minimums of six bits for each 32 weights, nibbles of 32 and 32 weights in a byte.
struct Q4K;

impl Format for Q4K {
    blocks!(144);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let header = w[..16].as_array().expect("16 bytes");
        let scales = six_bit_scales(s, header, x, sums);
        let mut acc = [s.zero_words(); C];
        for i in 0..4 {
            let nibbles = s.bytes(&w[16 + 32 * i..]);
            let (low, high) = (s.and(nibbles, s.splat_byte(15)), s.high_nibbles(nibbles));
            for c in 0..C {
                acc[c] = s.add_scaled(acc[c], low, vector(x[c], 2 * i), s.spread_word(scales[c], 2 * i));
                acc[c] = s.add_scaled(acc[c], high, vector(x[c], 2 * i + 1), s.spread_word(scales[c], 2 * i + 1));
            }
        }
        finish(s, s.half([header[0], header[1]]), acc, x, sums);
    }
}

/// Q4_K and a fifth bit.
struct Q5K;

impl Format for Q5K {
    blocks!(176);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let header = w[..16].as_array().expect("16 bytes");
        let scales = six_bit_scales(s, header, x, sums);
        let flags = s.bytes(&w[16..]);
        let mut acc = [s.zero_words(); C];
        for i in 0..4 {
            let nibbles = s.bytes(&w[48 + 32 * i..]);
            let low = s.or(s.and(nibbles, s.splat_byte(15)), s.moved_bit(flags, 2 * i, 4));
            let high = s.or(s.high_nibbles(nibbles), s.moved_bit(flags, 2 * i + 1, 4));
            for c in 0..C {
                acc[c] = s.add_scaled(acc[c], low, vector(x[c], 2 * i), s.spread_word(scales[c], 2 * i));
                acc[c] = s.add_scaled(acc[c], high, vector(x[c], 2 * i + 1), s.spread_word(scales[c], 2 * i + 1));
            }
        }
        finish(s, s.half([header[0], header[1]]), acc, x, sums);
    }
}

/// Unpacks the header of Q4_K and Q5_K: returns each column's scales, and subtracts the minimums from its sums.
#[inline(always)]
fn six_bit_scales<const VNNI: bool, const C: usize>(
    s: Avx2<VNNI>,
    header: &[u8; 16],
    x: [&Words; C],
    sums: &mut [Floats; C],
) -> [Vector; C] {
    let word = |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let (first, second, third) = (word(4), word(8), word(12));
    // Six bits each; of the last four, the low four bits share a byte and the high two lie above the first four.
    let scales = u64::from(first & 0x3f3f_3f3f) | u64::from((third & 0x0f0f_0f0f) | (first >> 2 & 0x3030_3030)) << 32;
    let minimums =
        u64::from(second & 0x3f3f_3f3f) | u64::from((third >> 4 & 0x0f0f_0f0f) | (second >> 2 & 0x3030_3030)) << 32;
    let minimum = s.half([header[2], header[3]]);
    let mut own = [s.zero_words(); C];
    for c in 0..C {
        own[c] = s.words8(scales, &x[c].scale);
        let offsets = s.word_products(s.words8(minimums, &x[c].scale), &x[c].sum32);
        sums[c] = s.mul_add(s.floats(offsets), s.splat(-minimum * x[c].unit), sums[c]);
    }
    own
}

/// Adds a block's integer sums, times the scale of the block, to the float sums.
#[inline(always)]
fn finish<const VNNI: bool, const C: usize>(
    s: Avx2<VNNI>,
    d: f32,
    acc: [Vector; C],
    x: [&Words; C],
    sums: &mut [Floats; C],
) {
    for c in 0..C {
        sums[c] = s.mul_add(s.floats(acc[c]), s.splat(d * x[c].unit), sums[c]);
    }
}

/// Six bits less 32, with signed scales of eight bits for each 16 weights.
struct Q6K;

impl Format for Q6K {
    blocks!(210);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let d = s.half([w[208], w[209]]);
        let own = s.small_vector(w[192..208].as_array().expect("16 bytes"));
        let mut scales = [s.zero_words(); C];
        for c in 0..C {
            scales[c] = s.words16(own, &x[c].scale);
            let offsets = s.word_products(scales[c], &x[c].sum16);
            sums[c] = s.mul_add(s.floats(offsets), s.splat(-32.0 * d * x[c].unit), sums[c]);
        }
        // Each half of a block has sums of its own, which stay below 63 · 127 · 4 · 128 · 127 · 4 < 2³¹.
        for n in 0..2 {
            let mut acc = [s.zero_words(); C];
            for i in 0..2 {
                let nibbles = s.bytes(&w[64 * n + 32 * i..]);
                let pairs = &w[128 + 32 * n..];
                let low = s.or(s.and(nibbles, s.splat_byte(15)), s.upper_bits(pairs, i));
                let high = s.or(s.high_nibbles(nibbles), s.upper_bits(pairs, 2 + i));
                let (first, second) = (4 * n + i, 4 * n + 2 + i);
                for c in 0..C {
                    acc[c] = s.add_scaled(acc[c], low, vector(x[c], first), s.spread_word(scales[c], first));
                    acc[c] = s.add_scaled(acc[c], high, vector(x[c], second), s.spread_word(scales[c], second));
                }
            }
            finish(s, d, acc, x, sums);
        }
    }
}

/// Two bits, with scales and minimums of four bits for each 16 weights.
struct Q2K;

impl Format for Q2K {
    blocks!(84);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let (d, minimum) = (s.half([w[80], w[81]]), s.half([w[82], w[83]]));
        let (own, minimums) = s.small_nibbles(w[..16].as_array().expect("16 bytes"));
        let (mut scales, mut acc) = ([s.zero_words(); C], [s.zero_words(); C]);
        for c in 0..C {
            scales[c] = s.words16(own, &x[c].scale);
            let offsets = s.word_products(s.words16(minimums, &x[c].scale), &x[c].sum16);
            sums[c] = s.mul_add(s.floats(offsets), s.splat(-minimum * x[c].unit), sums[c]);
        }
        for n in 0..2 {
            let bytes = s.bytes(&w[16 + 32 * n..]);
            for j in 0..4 {
                let weights = s.two_bits(bytes, 2 * j);
                let i = 4 * n + j;
                for c in 0..C {
                    acc[c] = s.add_scaled(acc[c], weights, vector(x[c], i), s.spread_word(scales[c], i));
                }
            }
        }
        finish(s, d, acc, x, sums);
    }
}

/// Two bits and a third in a mask, less 4, with signed scales of six bits for each 16 weights.
struct Q3K;

impl Format for Q3K {
    blocks!(110);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let d = s.half([w[108], w[109]]);
        let own = s.small_six_bits(w[96..108].as_array().expect("12 bytes"));
        let (mut scales, mut acc) = ([s.zero_words(); C], [s.zero_words(); C]);
        for c in 0..C {
            scales[c] = s.words16(own, &x[c].scale);
            let offsets = s.word_products(scales[c], &x[c].sum16);
            sums[c] = s.mul_add(s.floats(offsets), s.splat(-4.0 * d * x[c].unit), sums[c]);
        }
        let mask = s.bytes(&w[..32]);
        for n in 0..2 {
            let bytes = s.bytes(&w[32 + 32 * n..]);
            for j in 0..4 {
                let i = 4 * n + j;
                let weights = s.or(s.two_bits(bytes, 2 * j), s.moved_bit(mask, i, 2));
                for c in 0..C {
                    acc[c] = s.add_scaled(acc[c], weights, vector(x[c], i), s.spread_word(scales[c], i));
                }
            }
        }
        finish(s, d, acc, x, sums);
    }
}

/// Values of a table, with signed scales of six bits for each 32 weights.
struct Iq4Xs;

impl Format for Iq4Xs {
    blocks!(136);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let own = six_bits_less_32(u32::from_le_bytes([w[4], w[5], w[6], w[7]]), u16::from_le_bytes([w[2], w[3]]));
        let (mut scales, mut acc) = ([s.zero_words(); C], [s.zero_words(); C]);
        for c in 0..C {
            scales[c] = s.words8(own, &x[c].scale);
        }
        for i in 0..8 {
            let nibbles = s.low_then_high_nibbles(w[8 + 16 * i..24 + 16 * i].as_array().expect("16 bytes"));
            let weights = s.lookup(&NON_LINEAR, nibbles);
            for c in 0..C {
                acc[c] = s.add_scaled_signed(acc[c], weights, vector(x[c], i), s.spread_word(scales[c], i));
            }
        }
        finish(s, s.half([w[0], w[1]]), acc, x, sums);
    }
}

/// Ternary digits plus 1, four in a byte, with one scale.
struct Tq20;

impl Format for Tq20 {
    blocks!(66);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let mut acc = [s.zero_words(); C];
        for n in 0..2 {
            let bytes = s.bytes(&w[32 * n..]);
            for j in 0..4 {
                let digits = s.two_bits(bytes, 2 * j);
                for c in 0..C {
                    acc[c] = s.add_pairs(acc[c], digits, vector(x[c], 4 * n + j));
                }
            }
        }
        finish_ternary(s, s.half([w[64], w[65]]), acc, x, sums);
    }
}

/// Ternary digits plus 1, five in a byte, with one scale.
struct Tq10;

impl Format for Tq10 {
    blocks!(54);

    #[inline(always)]
    fn step<const VNNI: bool, const C: usize>(s: Avx2<VNNI>, w: &Self::Block, x: [&Words; C], sums: &mut [Floats; C]) {
        let mut acc = [s.zero_words(); C];
        // The first 32 bytes hold five digits of as many weights each; 16 further ones and four are put side by side.
        let mut fractions = s.bytes(w);
        let others = s.side_by_side(w[32..52].as_array().expect("20 bytes"));
        for i in 0..8 {
            let digits = s.first_digits(if i < 5 { fractions } else { others[i - 5] });
            fractions = s.thrice(fractions);
            for c in 0..C {
                acc[c] = s.add_pairs(acc[c], digits, vector(x[c], i));
            }
        }
        finish_ternary(s, s.half([w[52], w[53]]), acc, x, sums);
    }
}

/// As [`finish`], for sums of digits that are 1 too large, which share a scale and are words yet: sixteen products each, below
/// 16 · 3 · 127 < 2¹⁵.
#[inline(always)]
fn finish_ternary<const VNNI: bool, const C: usize>(
    s: Avx2<VNNI>,
    d: f32,
    mut acc: [Vector; C],
    x: [&Words; C],
    sums: &mut [Floats; C],
) {
    for c in 0..C {
        acc[c] = s.word_products(s.less(acc[c], &x[c].sum16), &[x[c].scale[0]; 16]);
    }
    finish(s, d, acc, x, sums);
}
