//! F32, F16 and BF16, and every type without a path of its own, which is decoded piece by piece first.

use std::ops::Range;

use super::driver::Format;
use super::input::{Operand, Plain, Slot};
use super::{Input, Rows, driver};
use crate::buffer::SharedOut;
use crate::isa::{Bytes, Kernel, Simd};
use crate::kernels::unpacked;

/// Weights as they are.
pub(super) struct F32;
/// Half precision.
pub(super) struct F16;
/// The upper half of single precision.
pub(super) struct Bf16;

macro_rules! float_format {
    ($name:ident, $bytes:literal, $load:ident) => {
        impl Format for $name {
            type Block = [u8; 64 * $bytes];
            type Step<O: Operand> = Plain;
            const ZERO: Self::Block = [0; 64 * $bytes];
            const FLOATS: bool = true;

            driver::split!();

            fn slot<O: Operand>(input: &Input) -> &Slot<Plain> {
                &input.plain
            }

            fn slot_mut<O: Operand>(input: &mut Input) -> &mut Slot<Plain> {
                &mut input.plain
            }

            #[inline(always)]
            fn step<S: Bytes, O: Operand, const C: usize>(s: S, w: &Self::Block, x: [&Plain; C], sums: &mut [S::F; C]) {
                for i in (0..64).step_by(S::LANES) {
                    let weights = s.$load(&w[$bytes * i..]);
                    for c in 0..C {
                        sums[c] = s.mul_add(weights, s.load(&x[c].0[i..]), sums[c]);
                    }
                }
            }
        }
    };
}

float_format!(F32, 4, load_f32_bytes);
float_format!(F16, 2, load_f16);
float_format!(Bf16, 2, load_bf16);

/// Decodes a piece of a row at a time and multiplies it as floats: any type, any level.
pub(super) struct Decode<'a> {
    pub(super) w: &'a Rows<'a>,
    pub(super) row_bytes: usize,
    pub(super) range: Range<usize>,
    pub(super) x: &'a Input,
    pub(super) out: &'a SharedOut<'a>,
    pub(super) out_stride: usize,
}

/// Elements decoded at a time: a whole number of blocks of every type.
const PIECE: usize = 256;

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.range.clone() {
            let sums = self.row(s, &self.w.bytes[row * self.row_bytes..][..self.row_bytes]);
            for (c, sum) in sums.iter().enumerate().take(self.x.m) {
                self.out.set(c * self.out_stride + row, s.sum(*sum));
            }
        }
    }
}

impl Decode<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, s: S, bytes: &[u8]) -> [S::F; super::MAX_COLUMNS] {
        let ty = self.w.ty;
        let piece_bytes = PIECE / ty.block_elements() * ty.block_bytes();
        let mut sums = [s.splat(0.0); super::MAX_COLUMNS];
        for (i, bytes) in bytes.chunks(piece_bytes).enumerate() {
            let mut piece = [0.0; PIECE];
            let elements = bytes.len() / ty.block_bytes() * ty.block_elements();
            unpacked::decode(ty, bytes, &mut piece[..elements]);
            for (c, sum) in sums.iter_mut().enumerate().take(self.x.m) {
                let steps = self.x.plain.column(c)[PIECE / 64 * i..].iter();
                for (w, x) in piece.as_chunks::<64>().0.iter().zip(steps) {
                    for j in (0..64).step_by(S::LANES) {
                        *sum = s.mul_add(s.load(&w[j..]), s.load(&x.0[j..]), *sum);
                    }
                }
            }
        }
        sums
    }
}
