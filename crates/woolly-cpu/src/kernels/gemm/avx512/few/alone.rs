//! Nine to sixteen tokens: sixteen weight rows are multiplied with all of them as they are unpacked.
//!
//! So unpacking is hidden among products, and no panel is stored. What is stored are sums, once a group: on Zen 4 each store takes the
//! place of 1.6 products, as measured (docs/performance.md).

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::super::super::lanes::{Ahead, Matrix, Pieces, Sink};
use super::super::super::unpack::PIECE;
use super::super::panel::{LANES, ROWS};
use super::super::tile::MAGIC;
use super::super::tokens::{Part, TILE};
use super::{Format, Head, MOST_ALONE, Product, Scratch, Sums};
use crate::isa::Avx512;

/// Runs `$body` for each number `$i` below `$n`, both constants in it: left to itself, the compiler keeps sixteen tokens in a loop, and
/// their products in memory.
macro_rules! each {
    ($i:ident < $n:ident => $body:block) => {
        each!(@ $i $n $body 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $i:ident $n:ident $body:block $($number:literal)+) => { $({
        const $i: usize = $number;
        if $i < $n $body
    })+ };
}

impl Product<'_> {
    /// Computes all rows for `N` tokens or one less.
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    pub(super) fn alone<F: Format, const N: usize>(&self) {
        let mut scratch = Scratch::ZERO;
        for first in self.range.clone().step_by(ROWS) {
            self.rows_alone::<F, N>(first, &mut scratch);
            let token =
                |(tile, lane)| Some(self.x.of_tile(tile)).filter(|of| lane < of.len()).map(|of| of.start + lane);
            let written = Alone::<F, N>::PLACES[..N].iter().zip(&scratch.sums);
            self.write(first, written.filter_map(|(&place, sums)| Some((token(place)?, sums))));
        }
    }

    /// Computes 32 rows, or fewer where the matrix ends.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn rows_alone<F: Format, const N: usize>(&self, first: usize, scratch: &mut Scratch) {
        let (size, columns) = (F::TYPE.block_bytes(), self.weight.columns);
        let matrix = Matrix::new(self.weight);
        let Scratch { head, sums, tails: [tail, _], .. } = scratch;
        let sums = sums.first_chunk_mut::<N>().expect("no more than most");
        *sums = [[[0.0; LANES]; 2]; N];
        let (each, tiles) = (PIECE / self.form.group, [0, 1, self.x.tiles() - 1]);
        let mut ahead = Ahead::strip(matrix, first + ROWS..first + 2 * ROWS, 2 * columns / self.form.group);
        for piece in 0..columns.div_ceil(PIECE) {
            let (parts, extras) = self.x.piece(self.form, piece);
            for half in 0..2 {
                let from = Pieces::new(self.simd, matrix, first + half * LANES, piece, tail);
                for block in 0..matrix.blocks(piece) {
                    let mut to = Alone::<F, N> {
                        simd: self.simd,
                        half,
                        head,
                        parts: tiles.map(|tile| &parts[tile]),
                        extras: tiles.map(|tile| &extras[tile * each..][..each]),
                        sums,
                        ahead: &mut ahead,
                        format: PhantomData,
                    };
                    // SAFETY: this function has the instructions, and the piece so many blocks.
                    unsafe { F::unpack(self.simd, from.block(block * size, size), block, &mut to) };
                }
            }
        }
    }
}

/// Multiplies what is unpacked with `N` tokens of two or three tiles, the second of which is named twice where there are two.
struct Alone<'a, F, const N: usize> {
    simd: Avx512,
    /// Which half of 32 rows these sixteen are.
    half: usize,
    head: &'a mut Head,
    parts: [&'a Part; 3],
    /// For each group of the piece.
    extras: [&'a [[u32; TILE]]; 3],
    sums: &'a mut [Sums; N],
    ahead: &'a mut Ahead,
    format: PhantomData<F>,
}

impl<F: Format, const N: usize> Sink<Avx512> for Alone<'_, F, N> {
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
        assert!(group * Q + Q <= PIECE / 4 && self.extras.iter().all(|extras| group < extras.len()) && self.half < 2);
        // SAFETY: the caller has the instructions, and the assertion covers the group.
        unsafe { self.group(group, quads) }
    }
}

impl<F: Format, const N: usize> Alone<'_, F, N> {
    /// Where tokens are: their tiles, and their places there. With one token less than `N`, one of the places has none.
    const PLACES: [(usize, usize); MOST_ALONE] = {
        let tiles = N.div_ceil(TILE);
        let mut places = [(0, 0); MOST_ALONE];
        let (mut tile, mut lane, mut token) = (0, 0, 0);
        while token < N {
            if lane == N / tiles + (tile < N % tiles) as usize {
                (tile, lane) = (tile + 1, 0);
            }
            places[token] = (tile, lane);
            (lane, token) = (lane + 1, token + 1);
        }
        places
    };

    /// Multiplies a group.
    ///
    /// # Safety
    /// The processor has the instructions, and the piece the group.
    #[inline(always)]
    unsafe fn group<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        // SAFETY: pointers stay inside of the group's part of arrays that hold all groups of a piece.
        unsafe {
            let x = self.parts.map(|part| part.quads.as_ptr().add(group * Q));
            let scales = self.parts.map(|part| part.scales.as_ptr().add(group * Q / 8));
            let extras = self.extras.map(|extras| extras.as_ptr().add(group));
            let mut products = [_mm512_set1_epi32(MAGIC.to_bits().cast_signed()); N];
            if !F::MINIMUM {
                each!(T < N => {
                    let (tile, lane) = Self::PLACES[T];
                    products[T] = _mm512_set1_epi32((*extras[tile])[lane].cast_signed());
                });
            }
            each!(I < Q => {
                each!(T < N => {
                    let (tile, lane) = Self::PLACES[T];
                    let x = _mm512_set1_epi32((*x[tile].add(I))[lane]);
                    products[T] = _mm512_dpbusd_epi32(products[T], quads[I], x);
                });
            });
            let scale = _mm512_load_ps(self.head.scales.as_ptr().add(group).cast());
            let bias = _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC));
            let minimum = _mm512_load_ps(self.head.minimums.as_ptr().add(group).cast());
            let sums = self.sums.as_mut_ptr().cast::<f32>().add(self.half * LANES);
            each!(T < N => {
                let (tile, lane) = Self::PLACES[T];
                let to = sums.add(2 * T * LANES);
                let x = _mm512_set1_ps((*scales[tile])[lane]);
                let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(products[T]), scale, bias);
                let mut sum = _mm512_fmadd_ps(scaled, x, _mm512_load_ps(to));
                if F::MINIMUM {
                    sum = _mm512_fmadd_ps(minimum, _mm512_set1_ps(f32::from_bits((*extras[tile])[lane])), sum);
                }
                _mm512_store_ps(to, sum);
            });
        }
    }
}
