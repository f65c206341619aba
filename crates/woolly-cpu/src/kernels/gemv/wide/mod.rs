//! Types in blocks of 256 on 512-bit vectors, four rows through each step together.
//!
//! So the headers of four rows share vectors, a 128-bit lane each, and most scaling is done on integers: sums of four products
//! become words, of which one instruction scales and adds two, with scales of activations that are integers, too (see
//! [`crate::kernels::rounding`]). Counted for 256 weights of Q4_K: 19 vector instructions and a quarter of 24, where a
//! conversion and a multiplication for each sum of four took about 44.

mod activations;
mod codewords;
mod formats;
mod planes;
mod scales;
mod ternary;
mod vectors;

use std::arch::x86_64::*;
use std::array;

use woolly_quant::TensorType;

use super::driver;
use super::input::{Arrangement, Slot};
use super::streams::Streams;
use super::words::Gemv;
use crate::isa::{Avx512, Level};
pub(super) use activations::Slots;

/// Whether there is a kernel here for `ty` at `level`.
pub(super) fn has(level: Level, ty: TensorType) -> bool {
    use TensorType::*;
    let own = matches!(ty, Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_XS | TQ1_0 | TQ2_0);
    let in_planes = matches!(ty, IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S) && is_x86_feature_detected!("avx512vbmi");
    level.min(Level::best()) >= Level::Avx512 && (own || in_planes || codewords(ty))
}

/// Whether the kernel is to be used where there is one.
///
/// Codewords inserted into vectors, as here, are what AMD's processors do well; Intel's were faster through memory
/// (docs/performance.md).
pub(super) fn pays(ty: TensorType) -> bool {
    !codewords(ty) || crate::isa::amd()
}

fn codewords(ty: TensorType) -> bool {
    use TensorType::*;
    matches!(ty, IQ1_S | IQ1_M)
}

/// Runs `$body` with `$format` naming the [`Format`] of a type that [`has`] a kernel.
macro_rules! with_format {
    ($ty:expr, $format:ident => $body:expr) => {
        with_format!(@list $ty, $format, $body;
            Q2_K: formats::Q2K, Q3_K: formats::Q3K, Q4_K: formats::Q4K, Q5_K: formats::Q5K, Q6_K: formats::Q6K,
            IQ4_XS: formats::Iq4Xs, TQ1_0: ternary::Tq10, TQ2_0: ternary::Tq20,
            IQ1_S: codewords::Iq1S, IQ1_M: codewords::Iq1M, IQ2_XXS: planes::Iq2Xxs, IQ2_XS: planes::Iq2Xs,
            IQ2_S: planes::Iq2S, IQ3_XXS: planes::Iq3Xxs, IQ3_S: planes::Iq3S)
    };
    (@list $ty:expr, $format:ident, $body:expr; $($name:ident: $path:path),+) => {
        match $ty {
            $(TensorType::$name => { type $format = $path; $body })+
            other => unreachable!("{other} has no kernel here: `has` said so"),
        }
    };
}

/// How to multiply blocks of 256 weights of one type.
///
/// The functions that are `unsafe` have vector instructions: a caller has those of [`Avx512`].
trait Format {
    /// Bytes of a block.
    type Block: AsRef<[u8]>;
    /// Activations of a block.
    type Activations: Arrangement;
    /// Whether the instructions of AVX-512 VBMI are among those of the functions below.
    const VBMI: bool = false;
    /// Scales of a block of each of the four rows for one input vector.
    type Scales: Copy;
    /// Weights of a block, unpacked.
    type Weights: Copy;

    /// Splits a row into its blocks.
    fn blocks(row: &[u8]) -> &[Self::Block];
    /// Where the activations in the order of these weights are.
    fn slot(slots: &Slots) -> &Slot<Self::Activations>;
    /// Where they get prepared.
    fn slot_mut(slots: &mut Slots) -> &mut Slot<Self::Activations>;
    /// Unpacks the scales of four rows; takes what offsets and minimums add off `less`, in which each row has a lane.
    unsafe fn scales<const C: usize>(
        blocks: [&Self::Block; 4],
        x: [&Self::Activations; C],
        less: &mut [__m512; C],
    ) -> [Self::Scales; C];
    /// Unpacks the weights of one row to bytes in the order of the activations.
    unsafe fn weights(block: &Self::Block) -> Self::Weights;
    /// Adds the products of row `R` of the four.
    unsafe fn add<const R: usize>(
        weights: Self::Weights,
        scales: Self::Scales,
        x: &Self::Activations,
        sum: __m512,
    ) -> __m512;
}

/// Implements [`Format::Block`], [`Format::Activations`], [`Format::blocks`], [`Format::slot`] and [`Format::slot_mut`].
macro_rules! layout {
    ($bytes:literal, $slot:ident) => {
        layout!($bytes, $slot, Wide);
    };
    ($bytes:literal, $slot:ident, $activations:ty) => {
        type Block = [u8; $bytes];
        type Activations = $activations;

        #[inline(always)]
        fn blocks(row: &[u8]) -> &[Self::Block] {
            row.as_chunks().0
        }

        #[inline(always)]
        fn slot(slots: &Slots) -> &Slot<$activations> {
            &slots.$slot
        }

        fn slot_mut(slots: &mut Slots) -> &mut Slot<$activations> {
            &mut slots.$slot
        }
    };
}

/// Implements [`Format::add`] of weights without a sign, and what belongs to it, for scales that are applied to words.
macro_rules! in_words {
    () => {
        type Scales = Integers;
        type Weights = [__m512i; 4];

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        unsafe fn add<const R: usize>(weights: [__m512i; 4], scales: Integers, x: &Wide, sum: __m512) -> __m512 {
            add_integers::<Self, R>(dots(weights, x), scales, sum)
        }
    };
}

use {in_words, layout};

/// Prepares vectors of `k` elements for weights of type `ty`.
pub(super) fn prepare(slots: &mut Slots, ty: TensorType, level: Level, x: &[f32], k: usize) {
    with_format!(ty, F => F::slot_mut(slots).prepare(level, x, k));
}

impl Gemv<'_> {
    /// Computes at the level that this file is for.
    pub(super) fn run_wide(self) {
        with_format!(self.w.ty, F => self.of_format::<F>());
    }

    fn of_format<F: Format>(self) {
        let simd = Avx512::new().expect("`has` asked the processor");
        // Fewer columns than a kernel has repeat the last one: a few wasted products instead of more kernels to compile.
        match self.x.m {
            0 => {}
            1 => self.each_four::<F, 1>(simd),
            _ => self.each_four::<F, 2>(simd),
        }
    }

    fn each_four<F: Format, const C: usize>(&self, simd: Avx512) {
        let streams = Streams::<4>::new(&self.range, self.row_bytes);
        for i in 0..streams.len() {
            let rows = streams.rows(i);
            let blocks = rows.map(|row| F::blocks(&self.w.bytes[row * self.row_bytes..][..self.row_bytes]));
            for first in (0..self.x.m).step_by(C) {
                let columns: [usize; C] = array::from_fn(|c| (first + c).min(self.x.m - 1));
                let x = columns.map(|c| F::slot(&self.x.wide).column(c));
                // SAFETY: `simd` proves the features, and `has` asked for VBMI.
                let sums = unsafe {
                    if F::VBMI { four_rows_vbmi::<F, C>(simd, blocks, x) } else { four_rows::<F, C>(simd, blocks, x) }
                };
                for (column, sums) in columns.iter().zip(sums) {
                    rows.iter().zip(sums).for_each(|(row, sum)| self.out.set(column * self.out_stride + row, sum));
                }
            }
        }
    }
}

/// Defines the product of four rows with `C` input vectors, for processors with these features.
macro_rules! four_rows {
    ($name:ident, $row:ident, $features:literal) => {
        #[target_feature(enable = $features)]
        fn $name<F: Format, const C: usize>(
            simd: Avx512,
            rows: [&[F::Block]; 4],
            x: [&[F::Activations]; C],
        ) -> [[f32; 4]; C] {
            // Written out here and below: closures handed to `map` would be called for each block.
            let count = rows[0].len();
            let rows = [rows[0], &rows[1][..count], &rows[2][..count], &rows[3][..count]];
            let mut columns = x;
            for (columns, x) in columns.iter_mut().zip(x) {
                *columns = &x[..count];
            }
            let mut sums = [[_mm512_setzero_ps(); 4]; C];
            let mut less = [_mm512_setzero_ps(); C];
            for i in 0..count {
                let blocks = [&rows[0][i], &rows[1][i], &rows[2][i], &rows[3][i]];
                let mut x = [&columns[0][i]; C];
                for (x, column) in x.iter_mut().zip(columns) {
                    *x = &column[i];
                }
                // SAFETY: this function has the features.
                let scales = unsafe { F::scales(blocks, x, &mut less) };
                $row::<F, 0, C>(simd, blocks[0], &scales, x, &mut sums);
                $row::<F, 1, C>(simd, blocks[1], &scales, x, &mut sums);
                $row::<F, 2, C>(simd, blocks[2], &scales, x, &mut sums);
                $row::<F, 3, C>(simd, blocks[3], &scales, x, &mut sums);
            }
            let mut totals = [[0.0; 4]; C];
            for c in 0..C {
                totals[c] = four_totals(sums[c], less[c]);
            }
            totals
        }

        /// Adds the products of row `R` of the four.
        #[inline]
        #[target_feature(enable = $features)]
        fn $row<F: Format, const R: usize, const C: usize>(
            simd: Avx512,
            block: &F::Block,
            scales: &[F::Scales; C],
            x: [&F::Activations; C],
            sums: &mut [[__m512; 4]; C],
        ) {
            driver::prefetch(simd, block);
            // SAFETY: this function has the features.
            let weights = unsafe { F::weights(block) };
            for c in 0..C {
                // SAFETY: as above.
                sums[c][R] = unsafe { F::add::<R>(weights, scales[c], x[c], sums[c][R]) };
            }
        }
    };
}

four_rows!(four_rows, row, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni");
four_rows!(four_rows_vbmi, row_vbmi, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi");

/// The sums of four vectors, and of the lane of `less` that belongs to each.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn four_totals(sums: [__m512; 4], less: __m512) -> [f32; 4] {
    let [a, b, c, d] = sums;
    let first = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let second = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let (first, second) = (_mm512_castps_pd(first), _mm512_castps_pd(second));
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
    let transposed = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let lanes = _mm512_add_ps(_mm512_add_ps(low, high), _mm512_permutexvar_ps(transposed, less));
    let halves = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps::<1>(lanes));
    let quarters = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    let mut totals = [0.0; 4];
    // SAFETY: four floats are writable.
    unsafe { _mm_storeu_ps(totals.as_mut_ptr(), quarters) };
    totals
}
