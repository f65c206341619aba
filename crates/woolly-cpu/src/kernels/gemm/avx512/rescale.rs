//! Weights of two to six bits, and those of tables and codewords, brought to eight, with one scale for 128 columns: for many tokens.
//!
//! Sums of 16 or 32 products have to be scaled one by one, which takes three eighths to three quarters as many instructions as the
//! products; with these panels it takes a sixteenth. A weight is off by half a step, and by 0.75 of one at most (where bytes reach
//! 128 away from zero), the step being a 127th of the largest weight that the 128 can hold; `Q8_0` has such steps over 32.
//! ik_llama.cpp converts weights for prompts likewise, over 256 columns (`Q8_K_R8`).

use std::arch::x86_64::*;

use woolly_quant::TensorType;

use super::super::lanes::{Pieces, Sink};
use super::super::unpack::{self, Form, PIECE};
use super::panel::Half;
use crate::isa::Avx512;
use crate::kernels::rounding;

/// Columns that share a scale.
pub(super) const SPAN: usize = 128;

/// How rescaled weights are to be read.
pub(super) const RESCALED: Form = Form { group: SPAN, offset: 128, minimum: false, scales: rounding::Scales::Own };

/// Bits of a factor below the units of the result.
const FRACTION: u32 = 8;

/// Leaves 19 bits of a float, so that its product with the magic number of [`super::tile`] is exact.
const SHORT: i32 = !31;

/// Whether weights of this type, in rows of so many columns, are rescaled.
pub(super) fn takes(ty: TensorType, columns: usize) -> bool {
    use TensorType::*;
    let of_bits = matches!(ty, Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q2_K | Q3_K | Q4_K | Q5_K | Q6_K);
    let of_tables = matches!(ty, IQ2_XXS | IQ2_XS | IQ2_S | IQ3_XXS | IQ3_S | IQ4_NL | IQ4_XS);
    columns.is_multiple_of(SPAN) && (of_bits || of_tables)
}

/// Scratch for the scales of a piece of sixteen rows; everything in it is overwritten before it is read.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    scales: [__m512; PIECE / 16],
    minimums: [__m512; PIECE / 16],
    /// As 16-bit integers, twice in each lane, with [`FRACTION`] bits of fraction.
    factors: [__m512i; PIECE / 16],
    offsets: [__m512i; PIECE / 16],
}

impl Groups {
    pub(super) const ZERO: Self = {
        // SAFETY: all bits zero are numbers.
        unsafe { std::mem::zeroed() }
    };
}

/// Unpacks one piece of a type that is [taken](takes), so many blocks, and rescales it.
///
/// # Safety
/// The processor has the instructions, and the piece the bytes of these blocks.
#[inline(always)]
pub(super) unsafe fn unpack(
    simd: Avx512,
    ty: TensorType,
    from: Pieces<'_>,
    blocks: usize,
    groups: &mut Groups,
    to: Half<'_>,
) {
    let form = unpack::form(ty).expect("all of these types have one");
    let spans = blocks * ty.block_elements() / SPAN;
    assert!(spans <= PIECE / SPAN, "more blocks than a piece has");
    let mut to = Rescaling { to, form, largest: f32::from(unpack::largest(ty)), spans, groups };
    let size = ty.block_bytes();
    // Blocks of 32: the scales of all of them come first, and are not unpacked again with the quants.
    macro_rules! each {
        ($unpack:path) => {{
            for b in 0..blocks {
                $unpack(simd, from.block(b * size, size), b, &mut Scales(to.groups));
            }
            to.scaled();
            for b in 0..blocks {
                $unpack(simd, from.block(b * size, size), b, &mut Quants(&mut to));
            }
        }};
    }
    // SAFETY: passed on from the caller.
    unsafe {
        match ty {
            TensorType::Q4_0 => each!(unpack::q4_0),
            TensorType::Q4_1 => each!(unpack::q4_1),
            TensorType::Q5_0 => each!(unpack::q5_0),
            TensorType::Q5_1 => each!(unpack::q5_1),
            TensorType::IQ4_NL => each!(unpack::iq4_nl),
            TensorType::IQ4_XS => unpack::iq4_xs(simd, from.block(0, size), &mut to),
            TensorType::Q2_K => unpack::q2_k(simd, from.block(0, size), &mut to),
            TensorType::Q3_K => unpack::q3_k(simd, from.block(0, size), &mut to),
            TensorType::Q4_K => unpack::q4_k(simd, from.block(0, size), &mut to),
            TensorType::Q5_K => unpack::q5_k(simd, from.block(0, size), &mut to),
            TensorType::Q6_K => unpack::q6_k(simd, from.block(0, size), &mut to),
            _ => unpack::by_rows(simd, ty, from.block(0, size), PIECE, &mut to),
        }
    }
}

/// Rescales what it is given: an element becomes `(byte · factor + offset) / 256`, 128 standing for zero.
struct Rescaling<'a> {
    to: Half<'a>,
    form: Form,
    /// A bound on the bytes given.
    largest: f32,
    /// Of the piece.
    spans: usize,
    groups: &'a mut Groups,
}

/// Takes the scales and minimums of blocks whose quants are unpacked later.
struct Scales<'a>(&'a mut Groups);

impl Sink<Avx512> for Scales<'_> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        self.0.scales[group] = scale;
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        self.0.minimums[group] = minimum;
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, _group: usize, _quads: [__m512i; Q]) {}
}

/// Takes the quants of blocks whose scales are known.
struct Quants<'a, 'b>(&'a mut Rescaling<'b>);

impl Sink<Avx512> for Quants<'_, '_> {
    #[inline(always)]
    fn scale(&mut self, _group: usize, _scale: __m512) {}

    #[inline(always)]
    fn minimum(&mut self, _group: usize, _minimum: __m512) {}

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [__m512i; Q]) {
        self.0.quads(group, quads);
    }
}

impl Sink<Avx512> for Rescaling<'_> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: __m512) {
        Scales(self.groups).scale(group, scale);
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: __m512) {
        Scales(self.groups).minimum(group, minimum);
    }

    #[inline(always)]
    fn scaled(&mut self) {
        let each = SPAN / self.form.group;
        for span in 0..self.spans {
            // SAFETY: the caller has the instructions.
            unsafe { self.span(span, span * each..(span + 1) * each) };
        }
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, mut quads: [__m512i; Q]) {
        let (factor, offset) = (self.groups.factors[group], self.groups.offsets[group]);
        for quad in &mut quads {
            // SAFETY: the caller has the instructions.
            *quad = unsafe { rescaled(*quad, factor, offset) };
        }
        self.to.quads(group, quads);
    }
}

impl Rescaling<'_> {
    /// Chooses the scale of a span and what its groups' bytes are to be multiplied with.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[inline(always)]
    unsafe fn span(&mut self, span: usize, of_span: std::ops::Range<usize>) {
        let Groups { scales, minimums, factors, offsets } = &mut *self.groups;
        // SAFETY: passed on from the caller.
        unsafe {
            // As integers, magnitudes order like the numbers, with infinities and NaN above all, so that none gets lost.
            let magnitude = _mm512_set1_epi32(0x7fff_ffff);
            let mut most = _mm512_setzero_si512();
            for g in of_span.clone() {
                if !self.form.minimum {
                    minimums[g] = _mm512_mul_ps(scales[g], _mm512_set1_ps(-f32::from(self.form.offset)));
                }
                let top = _mm512_fmadd_ps(scales[g], _mm512_set1_ps(self.largest), minimums[g]);
                for end in [top, minimums[g]] {
                    most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(end), magnitude));
                }
            }
            let scale = _mm512_mul_ps(_mm512_castsi512_ps(most), _mm512_set1_ps(1.0 / 127.0));
            let scale = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(scale), _mm512_set1_epi32(SHORT)));
            let some = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(scale, _mm512_setzero_ps());
            let inverse = _mm512_maskz_div_ps(some, _mm512_set1_ps((1 << FRACTION) as f32), scale);
            self.to.scale(span, scale);
            // The offset of the bytes, and half a unit, for what follows rounds down.
            let zero = _mm512_set1_epi32((128 << FRACTION) + (1 << (FRACTION - 1)));
            for g in of_span {
                let factor = _mm512_cvtps_epi32(_mm512_mul_ps(scales[g], inverse));
                factors[g] = twice(factor);
                let offset = if self.form.minimum {
                    _mm512_cvtps_epi32(_mm512_mul_ps(minimums[g], inverse))
                } else {
                    // What the factor as it is rounded makes of it, so that zero stays zero, and bytes are off by as much more as
                    // they are further from it.
                    _mm512_mullo_epi32(factor, _mm512_set1_epi32(-i32::from(self.form.offset)))
                };
                offsets[g] = twice(_mm512_add_epi32(offset, zero));
            }
        }
    }
}

/// Repeats the low half of each element in its high half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn twice(x: __m512i) -> __m512i {
    _mm512_mask_blend_epi16(0xaaaa_aaaa, x, _mm512_slli_epi32::<16>(x))
}

/// Multiplies bytes, adds the offset and takes the upper halves of the sums, which are below 2^16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn rescaled(bytes: __m512i, factor: __m512i, offset: __m512i) -> __m512i {
    let low = _mm512_set1_epi16(0xff);
    let apply = |x| _mm512_add_epi16(_mm512_mullo_epi16(x, factor), offset);
    let even = _mm512_srli_epi16::<FRACTION>(apply(_mm512_and_si512(bytes, low)));
    let odd = apply(_mm512_srli_epi16::<8>(bytes));
    // Where `low` is set, `even`, elsewhere `odd`.
    _mm512_ternarylogic_epi32::<0xca>(low, even, odd)
}
