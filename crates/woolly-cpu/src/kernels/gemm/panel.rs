//! A strip of weight rows unpacked for the tile loops: one piece of columns, interleaved over the rows.

use woolly_quant::TensorType;
use woolly_quant::half::bf16_to_f32;

use super::lanes::{Matrix, Pieces, Sink, Tail};
use super::unpack::{self, PIECE, unpack};
use crate::kernels::gemv::Rows;
use crate::kernels::simd::{MAX_LANES, TileSimd, Wide};
use crate::kernels::unpacked;

/// Scratch of one thread for one piece of a strip; everything in it is overwritten before it is read.
#[repr(C, align(64))]
pub(crate) struct Panel {
    /// `[PIECE / 4][2][LANES]`, four bytes of a row in an element; or in the order of [`TileSimd::paired`]. Wide weights in
    /// [halves](Wide::Halves), which only levels of few lanes have, are `[2][PIECE / 4][2][LANES]`, low halves first.
    pub(super) quads: [i32; PIECE / 4 * 2 * MAX_LANES],
    /// `[group][2][LANES]`.
    pub(super) scales: [f32; 16 * 2 * MAX_LANES],
    /// `[group][2][LANES]`.
    pub(super) minimums: [f32; 16 * 2 * MAX_LANES],
    /// `[PIECE][2][LANES]`.
    pub(super) floats: [f32; PIECE * 2 * MAX_LANES],
    /// One row of values each.
    values: [[f32; PIECE]; MAX_LANES],
    tail: Tail,
}

impl Panel {
    /// Allocates a panel of about 64 KiB.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            quads: [0; _],
            scales: [0.0; _],
            minimums: [0.0; _],
            floats: [0.0; _],
            values: [[0.0; PIECE]; _],
            tail: Tail::ZERO,
        })
    }

    /// Unpacks columns `piece * PIECE..` of rows `first..first + 2 * LANES` as integers; missing rows become zeros.
    ///
    /// Weights are left as `wide` says, which at levels without halves is what they are unpacked to anyway.
    #[inline(always)]
    pub(super) fn fill_integers<S: TileSimd>(
        &mut self,
        s: S,
        weight: Matrix<'_>,
        first: usize,
        piece: usize,
        wide: Wide,
    ) {
        let Self { quads, scales, minimums, tail, .. } = self;
        let wide = if S::WIDE == Wide::Halves { wide } else { Wide::Whole };
        for half in 0..2 {
            let from = Pieces::new(s, weight, first + half * S::LANES, piece, tail);
            let mut to = Half { s, quads, scales, minimums, wide, at: half * S::LANES };
            unpack(s, weight.rows.ty, from, weight.blocks(piece), &mut to);
        }
    }

    /// As [`fill_integers`](Self::fill_integers), with the values themselves.
    #[inline(always)]
    pub(super) fn fill_floats<S: TileSimd>(&mut self, s: S, weight: &Rows<'_>, first: usize, piece: usize) {
        for half in 0..2 {
            for lane in 0..S::LANES {
                let to = &mut self.values[lane];
                match row_piece(weight, first + half * S::LANES + lane, piece) {
                    Some(blocks) => widen(s, weight.ty, blocks, to),
                    None => to.fill(0.0),
                }
            }
            let to = self.floats.as_mut_ptr().cast::<i32>();
            for column in (0..PIECE).step_by(S::LANES) {
                // SAFETY: columns stay below `PIECE` in `LANES` rows of values, and below the end of `floats`.
                unsafe {
                    let from = self.values.as_ptr().cast::<i32>().add(column);
                    s.transpose(from, PIECE, to.add((2 * column + half) * S::LANES), 2 * S::LANES);
                }
            }
        }
    }
}

/// One vector's half of a panel, to be filled.
struct Half<'a, S> {
    s: S,
    quads: &'a mut [i32; PIECE / 4 * 2 * MAX_LANES],
    scales: &'a mut [f32; 16 * 2 * MAX_LANES],
    minimums: &'a mut [f32; 16 * 2 * MAX_LANES],
    /// What is to become of unsigned bytes.
    wide: Wide,
    /// The half's elements are at this place of each pair of vectors.
    at: usize,
}

impl<S: TileSimd> Sink<S> for Half<'_, S> {
    #[inline(always)]
    fn scale(&mut self, group: usize, scale: S::F) {
        self.s.store(&mut self.scales[2 * group * S::LANES + self.at..], scale);
    }

    #[inline(always)]
    fn minimum(&mut self, group: usize, minimum: S::F) {
        self.s.store(&mut self.minimums[2 * group * S::LANES + self.at..], minimum);
    }

    #[inline(always)]
    fn quads<const Q: usize>(&mut self, group: usize, quads: [S::I; Q]) {
        match self.wide {
            Wide::Whole => self.store(0, group, quads),
            Wide::Signed => self.store(0, group, unpack::opposite_tops(self.s, quads)),
            Wide::Halves => {
                let (low, high) = unpack::nibbles(self.s, quads);
                self.store(0, group, low);
                self.store(PIECE / 4 * 2 * S::LANES, group, high);
            }
        }
    }
}

impl<S: TileSimd> Half<'_, S> {
    /// Stores a group's quads, those of the first group from `start` on.
    #[inline(always)]
    fn store<const Q: usize>(&mut self, start: usize, group: usize, quads: [S::I; Q]) {
        let to = &mut self.quads[start + 2 * group * Q * S::LANES..][..2 * Q * S::LANES];
        // Groups have whole pairs of quads: four or eight.
        for (to, pair) in to.chunks_exact_mut(4 * S::LANES).zip(quads.as_chunks::<2>().0) {
            for (to, quad) in to.chunks_exact_mut(2 * S::LANES).zip(self.s.paired(*pair)) {
                // SAFETY: a pair of vectors is writable, of which this is one half.
                unsafe { self.s.store_int_at(quad, to[self.at..][..S::LANES].as_mut_ptr()) };
            }
        }
    }
}

/// Returns the blocks of one piece of a row, shorter at the end of the row, or `None` beyond the last row.
#[inline(always)]
fn row_piece<'a>(weight: &Rows<'a>, row: usize, piece: usize) -> Option<&'a [u8]> {
    let row_bytes = weight.bytes.len() / weight.rows.max(1);
    let each = PIECE / weight.ty.block_elements() * weight.ty.block_bytes();
    let start = (piece * each).min(row_bytes);
    let end = (start + each).min(row_bytes);
    let row = weight.bytes.get(row.checked_mul(row_bytes)?..)?.get(..row_bytes)?;
    row.get(start..end)
}

/// Converts up to [`PIECE`] elements of any type to `f32` and fills up with zeros.
#[inline(always)]
fn widen<S: TileSimd>(s: S, ty: TensorType, blocks: &[u8], to: &mut [f32; PIECE]) {
    let elements = blocks.len() / ty.block_bytes() * ty.block_elements();
    let (to, rest) = to.split_at_mut(elements.min(PIECE));
    rest.fill(0.0);
    match ty {
        TensorType::F32 => each_element(blocks, to, f32::from_le_bytes),
        TensorType::BF16 => each_element(blocks, to, |b| bf16_to_f32(u16::from_le_bytes(b))),
        TensorType::F16 => halves(s, blocks, to),
        _ => unpacked::decode(ty, blocks, to),
    }
}

#[inline(always)]
fn each_element<const BYTES: usize>(blocks: &[u8], to: &mut [f32], f: impl Fn([u8; BYTES]) -> f32) {
    for (to, &bytes) in to.iter_mut().zip(blocks.as_chunks::<BYTES>().0) {
        *to = f(bytes);
    }
}

#[inline(always)]
fn halves<S: TileSimd>(s: S, blocks: &[u8], to: &mut [f32]) {
    let whole = to.len() / S::LANES * S::LANES;
    let (vectors, rest) = to.split_at_mut(whole);
    for (to, from) in vectors.chunks_exact_mut(S::LANES).zip(blocks.chunks_exact(2 * S::LANES)) {
        s.store(to, s.load_f16(from));
    }
    let tail = &blocks[2 * whole..];
    each_element(tail, rest, |b| woolly_quant::half::f16_to_f32(u16::from_le_bytes(b)));
}
