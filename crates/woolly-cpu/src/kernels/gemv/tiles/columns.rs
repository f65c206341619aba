//! Vectors as the right operand of tile products: quantised as for the matrix-vector kernels, in tile order.

use super::super::input::{Int8, MAGIC, Operand};
use super::{COLUMNS, ELEMENTS, NARROW};
use crate::buffer::{AlignedVec, Zeroed};
use crate::isa::{Kernel, Level, Simd};
use crate::kernels::rounding::{self, Scales};

/// Elements that share a scale.
const BLOCK: usize = 32;

/// How the weights of a format lie in a panel, and which of them share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrangement {
    /// Natural order, 32 weights a scale.
    Natural,
    /// Low halves of 64 bytes, then high ones, where 32 bytes hold 64 weights; 32 weights a scale.
    Nibbles,
    /// Natural order, 16 weights a scale.
    Sixteens,
}

impl Arrangement {
    const ALL: usize = 3;

    /// Weights that share a scale.
    pub(super) const fn group(self) -> usize {
        if matches!(self, Self::Sixteens) { 16 } else { 32 }
    }

    /// The 32 elements, numbered in natural order, that are at each place.
    const fn order(self) -> [u8; 8] {
        if matches!(self, Self::Nibbles) { [0, 2, 1, 3, 4, 6, 5, 7] } else { [0, 1, 2, 3, 4, 5, 6, 7] }
    }
}

/// [`ELEMENTS`] elements of all vectors.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Step {
    /// `[tile][depth / 4][16][4]`.
    pub(super) bytes: [i8; ELEMENTS * 16],
    /// `[tile][16]`.
    pub(super) scales: [[f32; 16]; 16],
    /// Sums of the elements that share a scale, scale included: `[tile][16]`.
    pub(super) sums: [[f32; 16]; 16],
}

// SAFETY: arrays of numbers.
unsafe impl Zeroed for Step {}

/// Up to [`COLUMNS`] vectors, prepared for the weights they will be multiplied with.
#[derive(Debug)]
pub(crate) struct Columns {
    len: usize,
    elements: usize,
    arranged: [(bool, AlignedVec<Step>); Arrangement::ALL],
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Step").finish_non_exhaustive()
    }
}

impl Default for Columns {
    fn default() -> Self {
        let arranged = [(); Arrangement::ALL].map(|()| (false, AlignedVec::zeroed(0)));
        Self { len: 0, elements: 0, arranged }
    }
}

impl Columns {
    /// Makes room for vectors of `elements`; what is not used takes no memory.
    pub(crate) fn reserve(&mut self, elements: usize) {
        let steps = elements.div_ceil(ELEMENTS);
        for (ready, arranged) in self.arranged.iter_mut().filter(|(_, arranged)| arranged.len() < steps) {
            (*ready, *arranged) = (false, AlignedVec::zeroed(steps));
        }
    }

    /// Begins with other vectors, `len` of `elements`; allocates only when they are longer than any there was room for.
    ///
    /// # Panics
    /// When there are more than [`COLUMNS`].
    pub(crate) fn reset(&mut self, len: usize, elements: usize) {
        assert!(len <= COLUMNS, "{len} vectors at once");
        (self.len, self.elements) = (len, elements);
        self.reserve(elements);
        self.arranged.iter_mut().for_each(|(ready, _)| *ready = false);
    }

    /// Returns the number of vectors.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Prepares the vectors, `x[c]` being elements `c · elements` and on, for weights of a type that is taken.
    pub(crate) fn prepare(&mut self, level: Level, ty: woolly_quant::TensorType, x: &[f32]) {
        let Some(arrangement) = super::arrangement(ty) else { return };
        assert_eq!(x.len(), self.len * self.elements, "the vectors announced");
        let (ready, arranged) = &mut self.arranged[arrangement as usize];
        if !std::mem::replace(ready, true) {
            let steps = &mut arranged[..self.elements.div_ceil(ELEMENTS)];
            level.run(Fill { steps, arrangement, x, elements: self.elements, narrow: self.len <= NARROW });
        }
    }

    /// Returns the vectors in an arrangement.
    pub(super) fn steps(&self, arrangement: Arrangement, elements: usize) -> &[Step] {
        let (ready, steps) = &self.arranged[arrangement as usize];
        assert!(*ready && self.elements == elements, "the vectors are prepared for this type of weights");
        &steps[..elements.div_ceil(ELEMENTS)]
    }
}

struct Fill<'a> {
    steps: &'a mut [Step],
    arrangement: Arrangement,
    x: &'a [f32],
    elements: usize,
    narrow: bool,
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for step in self.steps.iter_mut() {
            // The zeros that keep two groups of a tile apart may be another arrangement's bytes.
            step.bytes.fill(0);
        }
        for (column, x) in self.x.chunks_exact(self.elements.max(1)).enumerate() {
            for (step, x) in self.steps.iter_mut().zip(x.chunks(ELEMENTS)) {
                fill(step, x, column, self.arrangement, if self.narrow { 2 } else { 1 });
            }
        }
    }
}

/// Writes one vector's part of a step, with `groups` groups in a tile.
#[inline(always)]
fn fill(step: &mut Step, x: &[f32], column: usize, arrangement: Arrangement, groups: usize) {
    let group = arrangement.group();
    let depth = group * groups;
    const { assert!(ELEMENTS == rounding::BLOCK) };
    // The types in natural order have blocks of 32.
    let scales = if arrangement == Arrangement::Natural { Scales::Own } else { Scales::Multiples };
    let unit = scales.unit(rounding::largest(x));
    let mut values = [0.0; ELEMENTS];
    values[..x.len()].copy_from_slice(x);
    for (place, &block) in arrangement.order().iter().enumerate() {
        let block = &mut values.as_chunks_mut::<BLOCK>().0[usize::from(block)];
        let scale = Int8::round(block, unit);
        for (i, values) in block.chunks_exact(group).enumerate() {
            let at = place * BLOCK + i * group;
            let (tile, within) = (at / depth, at % depth);
            let lane = column * groups + within / group;
            step.scales[tile][lane] = scale;
            step.sums[tile][lane] = values.iter().sum::<f32>() * scale;
            let quads = step.bytes[tile * depth * 16..].as_chunks_mut::<64>().0;
            for (quad, values) in quads[within / 4..].iter_mut().zip(values.as_chunks::<4>().0) {
                // The last byte of a whole number that was pushed to the end of the mantissa.
                let bytes = values.map(|x| (x + MAGIC).to_bits() as i8);
                quad[4 * lane..4 * lane + 4].copy_from_slice(&bytes);
            }
        }
    }
}
