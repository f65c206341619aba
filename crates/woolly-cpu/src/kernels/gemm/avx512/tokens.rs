//! Activations as the tile loop reads them: signed bytes with a scale for each 32, or for the columns that rescaled weights
//! share one for, interleaved over a tile's tokens; or [pairs] of bfloat16 numbers, likewise.
//!
//! `[piece of 256 columns][tile of up to 6 tokens][column or group][6 tokens]`, so that for one piece of the weights the
//! activations of all tokens are one stream. Rounding as [`crate::kernels::rounding`] says, but for the columns that rescaled weights share a scale for.

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::pack::{SMALLEST, Source};
use super::super::unpack::{Form, PIECE};
use super::tile::MAGIC;
use super::{How, pairs};
use crate::buffer::{AlignedVec, Zeroed};
use crate::isa::{Avx512, Avx512Bf16};
use crate::kernels::disjoint::Disjoint;
use crate::kernels::rounding::Scales;
use crate::kernels::simd::transposed;

/// Most tokens interleaved with each other: with two vectors of weights, products and sums of so many fill the registers.
pub(crate) const TILE: usize = 6;

/// Columns that share a scale.
const GROUP: usize = 32;

/// One piece of one tile's activations.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Part {
    /// Four bytes of a token in an element.
    pub(super) quads: [[i32; TILE]; PIECE / 4],
    pub(super) scales: [[f32; TILE]; PIECE / GROUP],
}

// SAFETY: arrays of numbers, and padding.
unsafe impl Zeroed for Part {}

/// Forms that weights of one product may have: for each of them, what the products with it need besides the quants.
const FORMS: usize = 4;

/// Most groups of a piece.
const MOST_GROUPS: usize = PIECE / 16;

/// For each group of a form, in the layout of the parts: where its integer sums start, [`MAGIC`]'s bits minus what the
/// offset of the weights adds; or, for weights with minimums, the sum of the activations that the minimum is multiplied with.
struct Extra {
    form: Form,
    values: AlignedVec<[u32; TILE]>,
}

/// A matrix of activations, packed.
pub(crate) struct Tokens {
    deal: Deal,
    columns: usize,
    parts: AlignedVec<Part>,
    extras: [Extra; FORMS],
    /// How many of them are.
    used: usize,
    pairs: AlignedVec<pairs::Part>,
    /// Whether pairs are wanted: the proof that they can be made.
    in_pairs: Option<Avx512Bf16>,
}

impl Default for Tokens {
    fn default() -> Self {
        let form = Form { group: GROUP, offset: 0, minimum: true, scales: Scales::Own };
        let extras = [(); FORMS].map(|()| Extra { form, values: AlignedVec::zeroed(0) });
        let (parts, pairs) = (AlignedVec::zeroed(0), AlignedVec::zeroed(0));
        Self { deal: Deal::default(), columns: 0, parts, extras, used: 0, pairs, in_pairs: None }
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("rows", &self.deal.rows).field("columns", &self.columns).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Makes room for a matrix of this size; what is not used takes no memory.
    pub(crate) fn reserve(&mut self, rows: usize, columns: usize) {
        let parts = columns.div_ceil(PIECE) * rows.div_ceil(TILE);
        if self.parts.len() < parts {
            self.parts = AlignedVec::zeroed(parts);
        }
        if self.pairs.len() < parts {
            self.pairs = AlignedVec::zeroed(parts);
        }
        for extra in self.extras.iter_mut().filter(|extra| extra.values.len() < parts * MOST_GROUPS) {
            extra.values = AlignedVec::zeroed(parts * MOST_GROUPS);
        }
    }

    /// Begins with another matrix; allocates only when it is larger than any before.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize) {
        (self.deal, self.columns, self.used, self.in_pairs) = (Deal::new(rows), columns, 0, None);
        self.reserve(rows, columns);
    }

    /// Says how the matrix will be multiplied, before it is packed.
    ///
    /// # Panics
    /// When these are more forms than one operation has weights.
    pub(crate) fn want(&mut self, how: How) {
        let form = match how {
            How::Bytes(form) => form,
            How::Pairs(proof) => return self.in_pairs = Some(proof),
        };
        if self.extras[..self.used].iter().all(|extra| extra.form != form) {
            self.extras[self.used].form = form;
            self.used += 1;
        }
    }

    /// Whether anything wants the matrix.
    pub(crate) fn wanted(&self) -> bool {
        self.used > 0 || self.in_pairs.is_some()
    }

    /// Returns the number of tokens.
    pub(crate) fn rows(&self) -> usize {
        self.deal.rows
    }

    /// Returns the number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.deal.tiles
    }

    /// Returns the tokens of a tile, in its first places.
    pub(crate) fn of_tile(&self, tile: usize) -> Range<usize> {
        self.deal.tile(tile)
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Returns how all of the forms can be multiplied.
    fn scaling(&self) -> Scaling {
        let forms = || self.extras[..self.used].iter().map(|extra| extra.form);
        match forms().fold(GROUP, |span, form| span.max(form.group)) {
            GROUP => match forms().map(|form| form.scales).reduce(Scales::and) {
                None | Some(Scales::Own) => Scaling::Span(GROUP),
                Some(scales) => Scaling::Units(scales),
            },
            span => Scaling::Span(span),
        }
    }

    fn pieces(&self) -> usize {
        self.columns.div_ceil(PIECE)
    }

    /// Returns the parts of one piece, and what `form` needs for it, for all tiles; the latter have [`PIECE`] columns.
    pub(super) fn piece(&self, form: Form, piece: usize) -> (&[Part], &[[u32; TILE]]) {
        let extra = self.extras[..self.used].iter().find(|extra| extra.form == form);
        let extra = &extra.expect("packed for this form").values;
        let (tiles, groups) = (self.tiles(), PIECE / form.group);
        (&self.parts[piece * tiles..][..tiles], &extra[piece * tiles * groups..][..tiles * groups])
    }

    /// Returns one piece of all tiles, in pairs.
    pub(super) fn pairs(&self, piece: usize) -> &[pairs::Part] {
        assert!(self.in_pairs.is_some(), "packed in pairs");
        &self.pairs[piece * self.tiles()..][..self.tiles()]
    }

    /// Returns a view that packs tiles, for several threads at once.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        let (deal, columns, pieces, scaling) = (self.deal, self.columns, self.pieces(), self.scaling());
        let mut extras = [const { None }; FORMS];
        for (slot, extra) in extras.iter_mut().zip(&mut self.extras[..self.used]) {
            *slot = Some((extra.form, Disjoint::new(&mut extra.values)));
        }
        let pairs = self.in_pairs.map(|proof| (proof, Disjoint::new(&mut self.pairs)));
        Writer { deal, columns, pieces, scaling, parts: Disjoint::new(&mut self.parts), extras, pairs }
    }
}

/// Packs tiles of a [`Tokens`]; different threads pack different tiles.
pub(crate) struct Writer<'a> {
    deal: Deal,
    columns: usize,
    pieces: usize,
    scaling: Scaling,
    parts: Disjoint<'a, Part>,
    extras: [Option<(Form, Disjoint<'a, [u32; TILE]>)>; FORMS],
    pairs: Option<(Avx512Bf16, Disjoint<'a, pairs::Part>)>,
}

impl Writer<'_> {
    /// Packs one tile from `source`; `scratch` grows to the length of a tile's rows where they are not plain.
    ///
    /// # Safety
    /// No other thread packs this tile at the same time.
    pub(crate) unsafe fn pack(&self, simd: Avx512, source: &dyn Source, tile: usize, scratch: &mut Vec<f32>) {
        let columns = self.columns;
        let tokens = self.deal.tile(tile);
        let mut rows: [&[f32]; TILE] = [&[]; TILE];
        if source.plain(tokens.start).is_none() {
            if scratch.len() < TILE * columns {
                scratch.resize(TILE * columns, 0.0);
            }
            for (token, copy) in tokens.clone().zip(scratch.chunks_exact_mut(columns.max(1))) {
                source.row(token, copy);
            }
        }
        for (lane, (token, row)) in tokens.zip(&mut rows).enumerate() {
            *row = source.plain(token).unwrap_or_else(|| &scratch[lane * columns..][..columns]);
        }
        for piece in 0..self.pieces {
            let first = piece * PIECE;
            let of_piece = rows.map(|row| row.get(first..columns.min(first + PIECE)).unwrap_or_default());
            // SAFETY: `simd` proves the instructions; the tile is the caller's.
            unsafe { self.piece(simd, &of_piece, piece * self.deal.tiles + tile) };
        }
    }

    /// Packs a piece of a tile: rows of equal lengths, of whole groups unless only pairs are wanted, or empty for tokens that do
    /// not exist.
    ///
    /// # Safety
    /// Part `at` is the caller's.
    unsafe fn piece(&self, _simd: Avx512, rows: &[&[f32]; TILE], at: usize) {
        if let Some((_, pairs)) = &self.pairs {
            // SAFETY: the part is the caller's, and the proof beside it that of the instructions.
            unsafe { pairs.slice(at..at + 1)[0].fill(rows) };
        }
        if self.extras[0].is_none() {
            return;
        }
        // SAFETY: the caller's.
        let part = unsafe { &mut self.parts.slice(at..at + 1)[0] };
        // SAFETY: the token proves the instructions.
        unsafe { fill(part, rows, self.scaling) };
        for (form, extra) in self.extras.iter().flatten() {
            let groups = PIECE / form.group;
            // SAFETY: the token proves the instructions; groups of parts do not overlap, as parts do not.
            unsafe { fill_extra(extra.slice(at * groups..(at + 1) * groups), *form, part, rows[0].len()) };
        }
    }
}

/// How tokens are dealt to as few tiles as hold them: as evenly as it goes, the larger ones first, since a tile of two or four
/// tokens has so few sums that it waits for its own products.
#[derive(Clone, Copy, Default)]
struct Deal {
    rows: usize,
    tiles: usize,
    /// Tokens of the smaller tiles, and how many have one more.
    each: usize,
    larger: usize,
}

impl Deal {
    fn new(rows: usize) -> Self {
        let tiles = rows.div_ceil(TILE);
        Self { rows, tiles, each: rows / tiles.max(1), larger: rows % tiles.max(1) }
    }

    fn tile(self, tile: usize) -> Range<usize> {
        let start = |tile: usize| tile * self.each + tile.min(self.larger);
        start(tile)..start(tile + 1)
    }
}

/// What scales of 32 activations there are.
#[derive(Clone, Copy)]
enum Scaling {
    /// One for so many columns.
    Span(usize),
    /// Multiples of the unit of the piece.
    Units(Scales),
}

#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fill(part: &mut Part, rows: &[&[f32]; TILE], scaling: Scaling) {
    let mut inverses = [[0.0; TILE]; PIECE / GROUP];
    for (lane, row) in rows.iter().enumerate() {
        for (group, (scale, inverse)) in scales(row, scaling).into_iter().enumerate() {
            (part.scales[group][lane], inverses[group][lane]) = (scale, inverse);
        }
    }
    for (group, inverses) in inverses.iter().enumerate().take(rows[0].len() / GROUP) {
        let mut quads = [_mm256_setzero_si256(); 8];
        for (lane, row) in rows.iter().enumerate() {
            if let Some(values) = row.as_chunks::<GROUP>().0.get(group) {
                quads[lane] = quantise(values, inverses[lane]);
            }
        }
        interleave(&mut part.quads, 8 * group, quads);
    }
}

/// Puts eight elements of each token, of which the last two do not exist, side by side, from place `first` on; what is there
/// behind them is overwritten.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512vl")]
pub(super) fn interleave(to: &mut [[i32; TILE]], first: usize, tokens: [__m256i; 8]) {
    let to = to[first..].as_flattened_mut();
    assert!(to.len() >= 8 * TILE);
    // SAFETY: AVX-512 brings AVX2.
    let columns = unsafe { transposed(tokens) };
    for (i, column) in columns.into_iter().enumerate() {
        let mask = if i * TILE + 8 <= to.len() { 0xff } else { (1 << TILE) - 1 };
        // SAFETY: eight integers are writable, or six, which the mask then selects. The last two are zeros in the next
        // column's place, which is written after this one.
        unsafe { _mm256_mask_storeu_epi32(to.as_mut_ptr().add(i * TILE), mask, column) };
    }
}

/// Returns the scale of each group of a piece, and its inverse. A scale that is infinite or NaN makes every product with the group
/// NaN.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scales(row: &[f32], scaling: Scaling) -> [(f32, f32); PIECE / GROUP] {
    let mut scales = [(0.0, 0.0); PIECE / GROUP];
    match scaling {
        Scaling::Span(span) => {
            for (scales, values) in scales.chunks_mut(span / GROUP).zip(row.chunks(span)) {
                let largest = f32::from_bits(magnitude(values));
                scales.fill((largest / 127.0, if largest < SMALLEST { 0.0 } else { 127.0 / largest }));
            }
        }
        Scaling::Units(units) => {
            let mut largest = [0; PIECE / GROUP];
            for (largest, values) in largest.iter_mut().zip(row.chunks(GROUP)) {
                *largest = magnitude(values);
            }
            let unit = units.unit(largest.iter().fold(0, |m, x| m.max(*x))).expect("own scales are a span");
            for (scale, largest) in scales.iter_mut().zip(largest) {
                let multiple = unit.multiple(largest);
                *scale = (multiple * unit.size, unit.inverse(multiple));
            }
        }
    }
    scales
}

/// Returns the bits of the largest magnitude of whole groups of sixteen, as [`largest`](crate::kernels::rounding::largest).
#[inline]
#[target_feature(enable = "avx512f")]
fn magnitude(values: &[f32]) -> u32 {
    let mut most = _mm512_setzero_si512();
    for values in values.as_chunks::<16>().0 {
        // SAFETY: sixteen floats are readable.
        let x = unsafe { _mm512_loadu_si512(values.as_ptr().cast()) };
        most = _mm512_max_epi32(most, _mm512_and_si512(x, _mm512_set1_epi32(0x7fff_ffff)));
    }
    _mm512_reduce_max_epi32(most).cast_unsigned()
}

/// Rounds 32 values times `inverse` to signed bytes, to nearest, ties to even.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn quantise(values: &[f32; GROUP], inverse: f32) -> __m256i {
    // SAFETY: 32 floats are readable.
    let (a, b) = unsafe { (_mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16))) };
    let inverse = _mm512_set1_ps(inverse);
    let a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse)));
    let b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
    _mm256_set_m128i(b, a)
}

/// Sums the quants of each group of `form` and writes what products with it need.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn fill_extra(to: &mut [[u32; TILE]], form: Form, part: &Part, columns: usize) {
    const SELECTED: __mmask8 = (1 << TILE) - 1;
    let each = form.group / 4;
    let ones = _mm256_set1_epi8(1);
    for (group, to) in to.iter_mut().enumerate().take(columns / form.group) {
        let mut sum = _mm256_setzero_si256();
        for quads in &part.quads[group * each..(group + 1) * each] {
            // SAFETY: the mask selects what there is.
            let quads = unsafe { _mm256_maskz_loadu_epi32(SELECTED, quads.as_ptr()) };
            sum = _mm256_dpbusd_epi32(sum, ones, quads);
        }
        let result = if form.minimum {
            // SAFETY: as above.
            let scales = unsafe { _mm256_maskz_loadu_ps(SELECTED, part.scales[group * form.group / GROUP].as_ptr()) };
            _mm256_castps_si256(_mm256_mul_ps(_mm256_cvtepi32_ps(sum), scales))
        } else {
            let added = _mm256_mullo_epi32(sum, _mm256_set1_epi32(i32::from(form.offset)));
            _mm256_sub_epi32(_mm256_set1_epi32(MAGIC.to_bits().cast_signed()), added)
        };
        // SAFETY: as above.
        unsafe { _mm256_mask_storeu_epi32(to.as_mut_ptr().cast(), SELECTED, result) };
    }
}
