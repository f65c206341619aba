//! Up to eight tokens: of 32 weight rows, one half is unpacked to the L1 cache, and the other multiplied as it is unpacked.
//!
//! Products that take an activation from memory issue at half the rate, so each activation is loaded for both halves; and
//! writing all weights to a panel would cost as much as the few products they take part in.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use woolly_quant::TensorType;

use super::super::lanes::{Ahead, Block, Matrix, Pieces, Sink, Tail};
use super::super::unpack::{self, Form, PIECE};
use super::panel::{LANES, ROWS};
use super::tile::MAGIC;
use super::tokens::{Part, TILE, Tokens};
use super::write;
use crate::buffer::SharedOut;
use crate::isa::Avx512;
use crate::kernels::gemv::Rows;

/// Most tokens whose sums stay in registers.
const MOST: usize = 8;

/// While one half is stored, memory is asked for once in so many groups: storing a group takes, as counted, a third to a sixth of the
/// time that multiplying it takes, and requests that follow each other faster than memory answers hold everything up.
const SELDOM: usize = 3;

/// A type that is multiplied here: naming it lets the whole loop be compiled as one.
trait Format {
    const TYPE: TensorType;
    const MINIMUM: bool;

    /// Unpacks block `b` of a piece.
    ///
    /// # Safety
    /// The processor has the instructions, and the block the bytes of its type.
    unsafe fn unpack(simd: Avx512, block: Block<'_>, b: usize, to: &mut impl Sink<Avx512>);
}

/// Runs `$body` with `$format` naming the [`Format`] of a type: the list of types that are multiplied here.
macro_rules! with_format {
    ($ty:expr, $format:ident => $body:expr, _ => $other:expr) => {
        match $ty {
            TensorType::Q4_0 => {
                type $format = Q40;
                $body
            }
            TensorType::Q8_0 => {
                type $format = Q80;
                $body
            }
            TensorType::Q4_K => {
                type $format = Q4K;
                $body
            }
            TensorType::Q5_K => {
                type $format = Q5K;
                $body
            }
            TensorType::Q6_K => {
                type $format = Q6K;
                $body
            }
            _ => $other,
        }
    };
}

macro_rules! formats {
    ($($name:ident: $ty:ident, $minimum:literal, ($simd:ident, $block:ident, $b:ident, $to:ident) => $unpack:expr;)+) => { $(
        struct $name;

        impl Format for $name {
            const TYPE: TensorType = TensorType::$ty;
            const MINIMUM: bool = $minimum;

            #[inline(always)]
            unsafe fn unpack($simd: Avx512, $block: Block<'_>, $b: usize, $to: &mut impl Sink<Avx512>) {
                // SAFETY: passed on from the caller.
                unsafe { $unpack }
            }
        }
    )+ };
}

formats! {
    Q40: Q4_0, false, (s, block, b, to) => unpack::q4_0(s, block, b, to);
    Q80: Q8_0, false, (s, block, b, to) => unpack::q8_0(s, block, b, to);
    Q4K: Q4_K, true, (s, block, _b, to) => unpack::q4_k(s, block, to);
    Q5K: Q5_K, true, (s, block, _b, to) => unpack::q5_k(s, block, to);
    Q6K: Q6_K, false, (s, block, _b, to) => unpack::q6_k(s, block, to);
}

/// Whether products of so many tokens with weights of this type are computed here.
pub(super) fn takes(ty: TensorType, tokens: usize) -> bool {
    tokens <= MOST && with_format!(ty, F => F::TYPE == ty, _ => false)
}

/// As [`super::multiply`], for what is [taken](takes).
///
/// # Safety
/// As there.
pub(super) unsafe fn multiply(
    (simd, form): (Avx512, Form),
    weight: &Rows<'_>,
    range: Range<usize>,
    x: &Tokens,
    out: &SharedOut<'_>,
    out_stride: usize,
) {
    assert!(weight.columns == x.columns() && range.end <= weight.rows);
    let product = Product { simd, weight, form, range, x, out, out_stride };
    with_format!(weight.ty, F => product.sized::<F>(), _ => unreachable!("`takes` was asked"));
}

struct Product<'a> {
    simd: Avx512,
    weight: &'a Rows<'a>,
    form: Form,
    range: Range<usize>,
    x: &'a Tokens,
    out: &'a SharedOut<'a>,
    out_stride: usize,
}

impl Product<'_> {
    fn sized<F: Format>(&self) {
        // SAFETY: whoever made this has the proof of the instructions.
        unsafe {
            match self.x.rows() {
                0 => {}
                1 | 2 => self.run::<F, 2>(),
                3 | 4 => self.run::<F, 4>(),
                5 | 6 => self.run::<F, 6>(),
                _ => self.run::<F, MOST>(),
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn run<F: Format, const N: usize>(&self) {
        let mut scratch = Scratch::ZERO;
        for first in self.range.clone().step_by(ROWS) {
            self.rows::<F, N>(first, &mut scratch);
            self.write(&scratch.sums[..N], first);
        }
    }

    /// Computes 32 rows, or fewer where the matrix ends.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn rows<F: Format, const N: usize>(&self, first: usize, scratch: &mut Scratch) {
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

    fn write(&self, sums: &[[[f32; LANES]; 2]], first: usize) {
        let rows = ROWS.min(self.range.end - first);
        for (token, sums) in sums.iter().enumerate().take(self.x.rows()) {
            // SAFETY: the caller of `multiply` vouches for these rows' part of the output.
            unsafe { write(self.out, token * self.out_stride + first, &sums.as_flattened()[..rows]) };
        }
    }
}

/// Scales and minimums of a piece of sixteen rows.
///
/// In the order of C, here and below: then all vectors are on cache lines, as the loads and stores of [`Both`] take them to be.
#[repr(C, align(64))]
struct Head {
    scales: [[f32; LANES]; PIECE / 16],
    minimums: [[f32; LANES]; PIECE / 16],
}

/// A piece of sixteen rows, unpacked.
#[repr(C, align(64))]
struct Stored {
    head: Head,
    quads: [[i32; LANES]; PIECE / 4],
}

/// What a thread works with; on its stack.
#[repr(C, align(64))]
struct Scratch {
    stored: Stored,
    head: Head,
    sums: [[[f32; LANES]; 2]; MOST],
    tails: [Tail; 2],
}

impl Head {
    const ZERO: Self = Self { scales: [[0.0; LANES]; _], minimums: [[0.0; LANES]; _] };
}

impl Scratch {
    const ZERO: Self = Self {
        stored: Stored { head: Head::ZERO, quads: [[0; LANES]; _] },
        head: Head::ZERO,
        sums: [[[0.0; LANES]; 2]; _],
        tails: [Tail::ZERO; 2],
    };
}

impl Sink<Avx512> for Head {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        // SAFETY: the caller has the instructions; sixteen floats are writable.
        unsafe { _mm512_storeu_ps(self.scales[group].as_mut_ptr(), scale) }
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        // SAFETY: as in `scale`.
        unsafe { _mm512_storeu_ps(self.minimums[group].as_mut_ptr(), minimum) }
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, _group: usize, _quads: [__m512i; Q]) {}
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
    sums: &'a mut [[[f32; LANES]; 2]; N],
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
