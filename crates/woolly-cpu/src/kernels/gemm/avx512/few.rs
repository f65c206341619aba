//! Up to eight tokens: sixteen weight rows at a time are unpacked in registers and multiplied at once.
//!
//! Here every weight is unpacked for the few products it takes part in, and writing it to a panel would cost as much as
//! those. Rows are far apart, as in [`crate::kernels::gemv`], and fetched ahead: reading is what bounds two or three tokens.

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use woolly_quant::TensorType;

use super::super::unpack::{Form, PIECE};
use super::panel::{Block, LANES, Pieces, Sink, Tail};
use super::tile::MAGIC;
use super::tokens::{Part, TILE, Tokens};
use super::unpack;
use crate::buffer::SharedOut;
use crate::isa::Avx512;
use crate::kernels::gemv::Rows;

/// Most tokens whose sums stay in registers.
const MOST: usize = 8;

/// How far ahead of its reading position each row is fetched, in bytes.
const PREFETCH: usize = 1024;

/// A type that is multiplied here: naming it lets the whole loop be compiled as one.
trait Format {
    const TYPE: TensorType;
    const MINIMUM: bool;

    /// Unpacks block `b` of a piece.
    ///
    /// # Safety
    /// The processor has the instructions, and the block the bytes of its type.
    unsafe fn unpack(block: Block<'_>, b: usize, to: &mut impl Sink);
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
    ($($name:ident: $ty:ident, $minimum:literal, ($block:ident, $b:ident, $to:ident) => $unpack:expr;)+) => { $(
        struct $name;

        impl Format for $name {
            const TYPE: TensorType = TensorType::$ty;
            const MINIMUM: bool = $minimum;

            #[inline(always)]
            unsafe fn unpack($block: Block<'_>, $b: usize, $to: &mut impl Sink) {
                // SAFETY: passed on from the caller.
                unsafe { $unpack }
            }
        }
    )+ };
}

formats! {
    Q40: Q4_0, false, (block, b, to) => unpack::q4_0(block, b, to);
    Q80: Q8_0, false, (block, b, to) => unpack::q8_0(block, b, to);
    Q4K: Q4_K, true, (block, _b, to) => unpack::q4_k(block, to);
    Q5K: Q5_K, true, (block, _b, to) => unpack::q5_k(block, to);
    Q6K: Q6_K, false, (block, _b, to) => unpack::q6_k(block, to);
}

/// Whether products of so many tokens with weights of this type are computed here.
pub(super) fn takes(ty: TensorType, tokens: usize) -> bool {
    tokens <= MOST && with_format!(ty, F => F::TYPE == ty, _ => false)
}

/// As [`super::multiply`], for what is [taken](takes).
pub(super) fn multiply(
    (simd, form): (Avx512, Form),
    weight: &Rows<'_>,
    range: Range<usize>,
    x: &Tokens,
    out: &SharedOut<'_>,
    out_stride: usize,
) {
    assert!(weight.columns == x.columns() && range.end <= weight.rows);
    let product = Product { weight, form, range, x, out, out_stride };
    let _: Avx512 = simd;
    with_format!(weight.ty, F => product.sized::<F>(), _ => unreachable!("`takes` was asked"));
}

struct Product<'a> {
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
                ..=2 => self.run::<F, 2>(),
                3 | 4 => self.run::<F, 4>(),
                5 | 6 => self.run::<F, 6>(),
                _ => self.run::<F, MOST>(),
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn run<F: Format, const N: usize>(&self) {
        let row_bytes = self.weight.bytes.len() / self.weight.rows;
        // Distances in gathers are 32 bits. An odd number of rows apart, rows fall into different sets of the caches.
        let far = self.range.len() / LANES;
        let far = if far * row_bytes <= i32::MAX as usize / LANES { far.saturating_sub(1) | 1 } else { 1 };
        let (mut first, mut tail) = (self.range.start, Tail::ZERO);
        while first < self.range.end {
            let whole = first + LANES * far <= self.range.end;
            let apart = if whole { far } else { 1 };
            for first in first..first + apart {
                let neighbours = first + LANES > self.range.end;
                let sums = self.rows::<F, N>(first, if neighbours { None } else { Some(apart) }, &mut tail);
                self.write(sums, first, apart);
            }
            first += LANES * apart;
        }
    }

    /// Computes sixteen rows, so many rows apart, or as many as there are.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn rows<F: Format, const N: usize>(&self, first: usize, apart: Option<usize>, tail: &mut Tail) -> [__m512; N] {
        let (elements, size) = (F::TYPE.block_elements(), F::TYPE.block_bytes());
        let columns = self.weight.columns;
        let mut head = Head::ZERO;
        let mut sums = [_mm512_setzero_ps(); N];
        for piece in 0..columns.div_ceil(PIECE) {
            let blocks = PIECE.min(columns - piece * PIECE) / elements;
            let (column, len) = (piece * (PIECE / elements * size), blocks * size);
            let from = match apart {
                Some(apart) => Pieces::apart(self.weight, first, apart, column, len),
                None => Pieces::new(self.weight, first, column, len, tail),
            };
            from.prefetch(PREFETCH, len);
            let (parts, extras) = self.x.piece(self.form, piece);
            let each = PIECE / self.form.group;
            let last = parts.len() - 1;
            let (parts, extras) = ([&parts[0], &parts[last]], [&extras[..each], &extras[last * each..]]);
            for b in 0..blocks {
                let mut to = Registers::<F, N> { head: &mut head, parts, extras, sums, format: PhantomData };
                // SAFETY: this function has the instructions, and the piece so many blocks.
                unsafe { F::unpack(from.block(b * size, size), b, &mut to) };
                sums = to.sums;
            }
        }
        sums
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn write<const N: usize>(&self, sums: [__m512; N], first: usize, apart: usize) {
        for (token, sum) in sums.into_iter().enumerate().take(self.x.rows()) {
            let mut values = [0.0; LANES];
            // SAFETY: sixteen floats are writable.
            unsafe { _mm512_storeu_ps(values.as_mut_ptr(), sum) };
            for (lane, value) in values.into_iter().enumerate() {
                let row = first + lane * apart;
                if row < self.range.end {
                    self.out.set(token * self.out_stride + row, value);
                }
            }
        }
    }
}

/// Scales and minimums of a piece of sixteen rows.
#[repr(align(64))]
struct Head {
    scales: [[f32; LANES]; PIECE / 16],
    minimums: [[f32; LANES]; PIECE / 16],
}

impl Head {
    const ZERO: Self = Self { scales: [[0.0; LANES]; _], minimums: [[0.0; LANES]; _] };
}

/// Multiplies what is unpacked with `N` tokens of two tiles, the second of which may be the first again.
struct Registers<'a, F, const N: usize> {
    head: &'a mut Head,
    parts: [&'a Part; 2],
    /// For each group of the piece.
    extras: [&'a [[u32; TILE]]; 2],
    sums: [__m512; N],
    format: PhantomData<F>,
}

impl<F: Format, const N: usize> Sink for Registers<'_, F, N> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        // SAFETY: the caller has the instructions; sixteen floats are writable.
        unsafe { _mm512_storeu_ps(self.head.scales[group].as_mut_ptr(), scale) }
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        // SAFETY: as in `scale`.
        unsafe { _mm512_storeu_ps(self.head.minimums[group].as_mut_ptr(), minimum) }
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        assert!(group * Q + Q <= PIECE / 4);
        // SAFETY: the caller has the instructions; loads are of arrays of sixteen.
        unsafe {
            let mut products = [_mm512_set1_epi32(MAGIC.to_bits().cast_signed()); N];
            if !F::MINIMUM {
                for (t, products) in products.iter_mut().enumerate() {
                    *products = _mm512_set1_epi32(self.extras[t / TILE][group][t % TILE].cast_signed());
                }
            }
            for (i, quad) in quads.into_iter().enumerate() {
                for (t, products) in products.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(self.parts[t / TILE].quads[group * Q + i][t % TILE]);
                    *products = _mm512_dpbusd_epi32(*products, quad, x);
                }
            }
            let scale = _mm512_loadu_ps(self.head.scales[group].as_ptr());
            let bias = _mm512_mul_ps(scale, _mm512_set1_ps(-MAGIC));
            for (t, (sum, products)) in self.sums.iter_mut().zip(products).enumerate() {
                let x = _mm512_set1_ps(self.parts[t / TILE].scales[group * Q / 8][t % TILE]);
                let scaled = _mm512_fmadd_ps(_mm512_castsi512_ps(products), scale, bias);
                *sum = _mm512_fmadd_ps(scaled, x, *sum);
            }
            if F::MINIMUM {
                let minimum = _mm512_loadu_ps(self.head.minimums[group].as_ptr());
                for (t, sum) in self.sums.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(f32::from_bits(self.extras[t / TILE][group][t % TILE]));
                    *sum = _mm512_fmadd_ps(minimum, x, *sum);
                }
            }
        }
    }
}
