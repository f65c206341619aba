//! Products of weights as they are unpacked, without a panel: writing all weights to one costs as much as the few products that they
//! take part in.
//!
//! [`both`] is for up to eight tokens, and loads each activation for two vectors of weights; [`alone`] is for more, on processors that
//! take an activation from memory with each product as fast as without.

mod alone;
mod both;

use std::arch::x86_64::*;
use std::ops::Range;

use woolly_quant::TensorType;

use super::super::lanes::{Block, Sink, Tail};
use super::super::unpack::{self, Form, PIECE};
use super::panel::{LANES, ROWS};
use super::tokens::Tokens;
use super::write;
use crate::buffer::SharedOut;
use crate::isa::Avx512;
use crate::kernels::gemv::Rows;

/// Most tokens of [`both`], whose products stay in registers.
const MOST_OF_BOTH: usize = 8;

/// Most tokens of [`alone`].
const MOST_ALONE: usize = super::MOST_FEW;

/// The same for weights in groups of 16, whose sums are stored twice as often.
const MOST_ALONE_OF_SHORT_GROUPS: usize = 14;

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

/// Whether products of so many tokens with weights of this type are computed here: of more than [`MOST_OF_BOTH`] on AMD's processors,
/// since on Intel's a product that takes an activation from memory issues at half the rate.
pub(super) fn takes(simd: Avx512, ty: TensorType, tokens: usize) -> bool {
    let most = match unpack::form(ty) {
        Some(form) if simd.amd() && form.group == 16 => MOST_ALONE_OF_SHORT_GROUPS,
        Some(_) if simd.amd() => MOST_ALONE,
        _ => MOST_OF_BOTH,
    };
    tokens <= most && with_format!(ty, F => F::TYPE == ty, _ => false)
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
                1 | 2 => self.both::<F, 2>(),
                3 | 4 => self.both::<F, 4>(),
                5 | 6 => self.both::<F, 6>(),
                7 | 8 => self.both::<F, MOST_OF_BOTH>(),
                9 | 10 => self.alone::<F, 10>(),
                11 | 12 => self.alone::<F, 12>(),
                13 | 14 => self.alone::<F, 14>(),
                _ => self.alone::<F, MOST_ALONE>(),
            }
        }
    }

    /// Writes 32 rows, or fewer where the matrix ends, of the tokens that `sums` gives with theirs.
    #[inline(always)]
    fn write<'s>(&self, first: usize, sums: impl Iterator<Item = (usize, &'s Sums)>) {
        let rows = ROWS.min(self.range.end - first);
        for (token, sums) in sums {
            // SAFETY: the caller of `multiply` vouches for these rows' part of the output.
            unsafe { write(self.out, token * self.out_stride + first, &sums.as_flattened()[..rows]) };
        }
    }
}

/// Sums of a token, of 32 rows.
type Sums = [[f32; LANES]; 2];

/// Scales and minimums of a piece of sixteen rows.
///
/// In the order of C, here and below: then all vectors are on cache lines, as the loads and stores of these files take them to be.
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
    sums: [Sums; MOST_ALONE],
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
