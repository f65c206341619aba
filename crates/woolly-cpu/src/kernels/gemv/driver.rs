//! The loop all formats share: four far-apart rows at a time, up to eight columns, whole steps and a padded last one.

use std::array;
use std::ops::Range;

use super::input::{Arrangement, Operand, Slot};
use super::streams::Streams;
use super::{Input, Rows};
use crate::buffer::SharedOut;
use crate::isa::{ByteKernel, Bytes, Simd};

/// How far ahead of its reading position each row is asked for, in bytes: into the cache next to the core, and before that
/// into the one behind it. Asking once, at any distance, leaves bandwidth unused (docs/performance.md).
const AHEAD: usize = 1024;
const FAR_AHEAD: usize = 4096;

/// How to multiply the blocks of one tensor type.
pub(super) trait Format: 'static {
    /// Bytes of a step: one or several blocks.
    type Block: Copy + AsRef<[u8]> + AsMut<[u8]>;
    /// Activations of a step.
    type Step<O: Operand>: Arrangement;

    /// A step of zero bytes; its weights are zero.
    const ZERO: Self::Block;
    /// Whether `words` has a better kernel for the levels it is for.
    const WORDS: bool = false;
    /// Whether two columns are computed as four, and rows in a loop: a quarter of the code to compile.
    const RARE: bool = false;
    /// Whether the weights are floats: so many bytes that hardly anything but reading counts.
    const FLOATS: bool = false;

    /// Splits a row into whole steps and the rest.
    fn split(row: &[u8]) -> (&[Self::Block], &[u8]);
    /// Where the activations for this format are.
    fn slot<O: Operand>(input: &Input) -> &Slot<Self::Step<O>>;
    /// Where the activations for this format get prepared.
    fn slot_mut<O: Operand>(input: &mut Input) -> &mut Slot<Self::Step<O>>;
    /// Adds the products of one step to each column's lanes.
    fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Self::Step<O>; C], sums: &mut [S::F; C]);
}

/// Implements [`Format::split`]; its body needs the block's length, which a trait cannot name.
macro_rules! split {
    () => {
        #[inline(always)]
        fn split(row: &[u8]) -> (&[Self::Block], &[u8]) {
            row.as_chunks()
        }
    };
}

/// Implements [`Format::slot`] and [`Format::slot_mut`] by the name of the arrangement.
macro_rules! slot {
    ($name:ident) => {
        #[inline(always)]
        fn slot<O: Operand>(input: &Input) -> &Slot<Self::Step<O>> {
            &O::arrangements(input).$name
        }

        fn slot_mut<O: Operand>(input: &mut Input) -> &mut Slot<Self::Step<O>> {
            &mut O::arrangements_mut(input).$name
        }
    };
}

pub(super) use {slot, split};

/// A matrix-vector product of format `F` with operands `O`.
pub(super) struct Gemv<'a, F, O> {
    pub(super) w: &'a Rows<'a>,
    pub(super) row_bytes: usize,
    pub(super) range: Range<usize>,
    pub(super) x: &'a Input,
    pub(super) out: &'a SharedOut<'a>,
    pub(super) out_stride: usize,
    pub(super) kind: std::marker::PhantomData<(F, O)>,
}

impl<F: Format, O: Operand> ByteKernel for Gemv<'_, F, O> {
    type Output = ();

    const PRODUCTS: bool = O::BYTES && !F::WORDS;

    #[inline(always)]
    fn run<S: Bytes>(self, s: S) {
        // Fewer columns than a kernel has repeat the last one: a few wasted products instead of more kernels to compile.
        match self.x.m {
            0 => {}
            1 => self.groups::<S, 4, 1>(s),
            2 if O::TWO && !F::RARE => self.groups::<S, 4, 2>(s),
            _ => self.groups::<S, 4, 4>(s),
        }
    }
}

impl<F: Format, O: Operand> Gemv<'_, F, O> {
    #[inline(always)]
    fn groups<S: Bytes, const R: usize, const C: usize>(&self, s: S) {
        let streams = Streams::<R>::new(&self.range, self.row_bytes);
        for i in 0..streams.len() {
            let rows = streams.rows(i);
            for first in (0..self.x.m).step_by(C) {
                self.tile::<S, R, C>(s, rows, array::from_fn(|c| (first + c).min(self.x.m - 1)));
            }
        }
    }

    #[inline(always)]
    fn tile<S: Bytes, const R: usize, const C: usize>(&self, s: S, rows: [usize; R], columns: [usize; C]) {
        let steps = columns.map(|c| F::slot::<O>(self.x).column(c));
        let sums = if F::FLOATS && C == 1 && reads_ahead() {
            self.rows::<S, R, C, false>(s, rows, steps)
        } else {
            self.rows::<S, R, C, true>(s, rows, steps)
        };
        for (row, sums) in rows.iter().zip(sums) {
            for (column, sum) in columns.iter().zip(sums) {
                self.out.set(column * self.out_stride + row, sum);
            }
        }
    }

    #[inline(always)]
    fn rows<S: Bytes, const R: usize, const C: usize, const ASK: bool>(
        &self,
        s: S,
        rows: [usize; R],
        steps: [&[F::Step<O>]; C],
    ) -> [[f32; C]; R] {
        let bytes = rows.map(|row| &self.w.bytes[row * self.row_bytes..][..self.row_bytes]);
        let split = bytes.map(F::split);
        let whole = split[0].0.len();
        let blocks: [&[F::Block]; R] = array::from_fn(|r| &split[r].0[..whole]);
        let inner: [&[F::Step<O>]; C] = array::from_fn(|c| &steps[c][..whole]);
        let mut sums = [[s.splat(0.0); C]; R];
        for i in 0..whole {
            let x = array::from_fn(|c| &inner[c][i]);
            if F::RARE {
                for r in 0..R {
                    advance::<F, S, O, C, ASK>(s, &blocks[r][i], x, &mut sums[r]);
                }
                continue;
            }
            // Written out: the compiler would keep long steps in a loop over rows, and their sums in memory.
            const { assert!(R == 4) };
            advance::<F, S, O, C, ASK>(s, &blocks[0][i], x, &mut sums[0]);
            advance::<F, S, O, C, ASK>(s, &blocks[1][i], x, &mut sums[1]);
            advance::<F, S, O, C, ASK>(s, &blocks[2][i], x, &mut sums[2]);
            advance::<F, S, O, C, ASK>(s, &blocks[3][i], x, &mut sums[3]);
        }
        if !split[0].1.is_empty() {
            let x = array::from_fn(|c| &steps[c][whole]);
            for r in 0..R {
                let mut block = F::ZERO;
                block.as_mut()[..split[r].1.len()].copy_from_slice(split[r].1);
                F::step::<S, O, C>(s, &block, x, &mut sums[r]);
            }
        }
        // A closure handed to `map` need not be inlined, and outside of this function it has no vector instructions.
        let mut totals = [[0.0; C]; R];
        for r in 0..R {
            for c in 0..C {
                totals[r][c] = s.sum(sums[r][c]);
            }
        }
        totals
    }
}

/// Whether the processor reads ahead of four rows of floats better without being asked while one column is multiplied, as those of
/// AMD do (docs/performance.md).
#[inline(always)]
fn reads_ahead() -> bool {
    #[cfg(target_arch = "x86_64")]
    return crate::isa::amd();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Asks for what follows a block in its row, a block's length of it.
#[inline(always)]
pub(super) fn prefetch<S: Simd, B: AsRef<[u8]>>(s: S, block: &B) {
    let mut line = 0;
    while line < size_of::<B>() {
        s.prefetch_beyond(block.as_ref(), FAR_AHEAD + line);
        s.prefetch(block.as_ref(), AHEAD + line);
        line += 64;
    }
}

#[inline(always)]
fn advance<F: Format, S: Bytes, O: Operand, const C: usize, const ASK: bool>(
    s: S,
    block: &F::Block,
    x: [&F::Step<O>; C],
    sums: &mut [S::F; C],
) {
    if ASK {
        prefetch(s, block);
    }
    F::step::<S, O, C>(s, block, x, sums);
}
