//! Up to eight tokens: of 32 weight rows, one half is unpacked to the L1 cache, and the other multiplied as it is unpacked.
//!
//! On Intel's processors, products that take an activation from memory issue at half the rate, so each activation is loaded for both
//! halves.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::super::lanes::{Ahead, Matrix, Pieces, Sink};
use super::super::super::unpack::PIECE;
use super::super::panel::{LANES, ROWS};
use super::super::tile::MAGIC;
use super::super::tokens::{Part, TILE};
use super::{Format, Head, Product, Scratch, Stored, Sums};
use crate::isa::Avx512;

/// While one half is stored, memory is asked for once in so many groups: storing a group takes, as counted, a third to a sixth of the
/// time that multiplying it takes, and requests that follow each other faster than memory answers hold everything up.
const SELDOM: usize = 3;

impl Product<'_> {
    /// Computes all rows for `N` tokens or one less.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn both<F: Format, const N: usize>(&self) {
        let mut scratch = Scratch::ZERO;
        for first in self.range.clone().step_by(ROWS) {
            self.rows_of_both::<F, N>(first, &mut scratch);
            self.write(first, scratch.sums.iter().enumerate().take(self.x.rows()));
        }
    }

    /// Computes 32 rows, or fewer where the matrix ends.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn rows_of_both<F: Format, const N: usize>(&self, first: usize, scratch: &mut Scratch) {
        let (size, columns) = (F::TYPE.block_bytes(), self.weight.columns);
        let matrix = Matrix::new(self.weight);
        let Scratch { stored, head, sums, tails: [tail_a, tail_b] } = scratch;
        let sums = sums.first_chunk_mut::<N>().expect("no more than most");
        *sums = [[[0.0; LANES]; 2]; N];
        let (each, last) = (PIECE / self.form.group, self.x.tiles() - 1);
        let (pieces, groups) = (columns.div_ceil(PIECE), columns / self.form.group);
        let steps = groups + pieces * each.div_ceil(SELDOM);
        let mut ahead = Ahead::strip(matrix, first + ROWS..first + 2 * ROWS, steps);
        for piece in 0..pieces {
            let blocks = matrix.blocks(piece);
            let a = Pieces::new(self.simd, matrix, first, piece, tail_a);
            let b = Pieces::new(self.simd, matrix, first + LANES, piece, tail_b);
            let (parts, extras) = self.x.piece(self.form, piece);
            let (parts, extras) = ([&parts[0], &parts[last]], [&extras[..each], &extras[last * each..]]);
            for block in 0..blocks {
                let mut to = Storing { simd: self.simd, stored, ahead: &mut ahead };
                // SAFETY: this function has the instructions, and the piece so many blocks.
                unsafe { F::unpack(self.simd, a.block(block * size, size), block, &mut to) };
            }
            for block in 0..blocks {
                let mut to = Both::<F, N> {
                    simd: self.simd,
                    stored,
                    head,
                    parts,
                    extras,
                    sums,
                    ahead: &mut ahead,
                    format: PhantomData,
                };
                // SAFETY: as above.
                unsafe { F::unpack(self.simd, b.block(block * size, size), block, &mut to) };
            }
        }
    }
}

/// Writes what is unpacked to the L1 cache.
struct Storing<'a> {
    simd: Avx512,
    stored: &'a mut Stored,
    ahead: &'a mut Ahead,
}

impl Sink<Avx512> for Storing<'_> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        self.stored.head.scale(group, scale);
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        self.stored.head.minimum(group, minimum);
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        if group.is_multiple_of(SELDOM) {
            self.ahead.step(self.simd);
        }
        for (to, quad) in self.stored.quads[group * Q..(group + 1) * Q].iter_mut().zip(quads) {
            // SAFETY: the caller has the instructions; sixteen integers are writable.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), quad) }
        }
    }
}

/// Multiplies what is unpacked, and what is stored of the other half, with `N` tokens of two tiles, the second of which
/// may be the first again.
struct Both<'a, F, const N: usize> {
    simd: Avx512,
    stored: &'a Stored,
    head: &'a mut Head,
    parts: [&'a Part; 2],
    /// For each group of the piece.
    extras: [&'a [[u32; TILE]]; 2],
    sums: &'a mut [Sums; N],
    ahead: &'a mut Ahead,
    format: PhantomData<F>,
}

impl<F: Format, const N: usize> Sink<Avx512> for Both<'_, F, N> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        self.head.scale(group, scale);
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        self.head.minimum(group, minimum);
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        self.ahead.step(self.simd);
        assert!(group * Q + Q <= PIECE / 4 && group < self.extras[0].len() && group < self.extras[1].len());
        // SAFETY: the caller has the instructions, and the assertion covers the group.
        unsafe { self.group(group, quads) }
    }
}

impl<F: Format, const N: usize> Both<'_, F, N> {
    /// Tokens of the first tile.
    const EACH: usize = if N > TILE { N / 2 } else { N };

    /// Multiplies a group.
    ///
    /// # Safety
    /// The processor has the instructions, and the piece the group.
    #[inline(always)]
    unsafe fn group<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        // SAFETY: pointers stay inside of the group's part of arrays that hold all groups of a piece.
        unsafe {
            let stored = self.stored.quads.as_ptr().add(group * Q);
            let x = self.parts.map(|part| part.quads.as_ptr().add(group * Q));
            let scales = self.parts.map(|part| part.scales.as_ptr().add(group * Q / 8));
            let extras = self.extras.map(|extras| extras.as_ptr().add(group));
            let extra = |t: usize| (*extras[t / Self::EACH])[t % Self::EACH];
            let mut products = [[_mm512_set1_epi32(MAGIC.to_bits().cast_signed()); 2]; N];
            if !F::MINIMUM {
                for (t, products) in products.iter_mut().enumerate() {
                    *products = [_mm512_set1_epi32(extra(t).cast_signed()); 2];
                }
            }
            for (i, quad) in quads.into_iter().enumerate() {
                let stored = _mm512_load_si512(stored.add(i).cast());
                for (t, products) in products.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32((*x[t / Self::EACH].add(i))[t % Self::EACH]);
                    *products =
                        [_mm512_dpbusd_epi32(products[0], stored, x), _mm512_dpbusd_epi32(products[1], quad, x)];
                }
            }
            let sums = self.sums.as_mut_ptr().cast::<f32>();
            for (half, head) in [&self.stored.head, &*self.head].into_iter().enumerate() {
                let scale = _mm512_load_ps(head.scales.as_ptr().add(group).cast());
                let bias = _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC));
                let minimum = _mm512_load_ps(head.minimums.as_ptr().add(group).cast());
                for (t, products) in products.into_iter().enumerate() {
                    let to = sums.add((2 * t + half) * LANES);
                    let x = _mm512_set1_ps((*scales[t / Self::EACH])[t % Self::EACH]);
                    let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(products[half]), scale, bias);
                    let mut sum = _mm512_fmadd_ps(scaled, x, _mm512_load_ps(to));
                    if F::MINIMUM {
                        sum = _mm512_fmadd_ps(minimum, _mm512_set1_ps(f32::from_bits(extra(t))), sum);
                    }
                    _mm512_store_ps(to, sum);
                }
            }
        }
    }
}
