//! A strip of weight rows unpacked for the tile loops: one piece of columns, interleaved over the rows.

use woolly_quant::TensorType;
use woolly_quant::half::bf16_to_f32;

use super::unpack::{Form, PIECE, Piece, unpack};
use crate::kernels::gemv::Rows;
use crate::kernels::simd::{MAX_LANES, TileSimd};

/// Elements of four bytes from one row of [`Piece`]s to the next.
const PIECE_STRIDE: usize = size_of::<Piece>() / 4;

/// Scratch of one thread for one piece of a strip; everything in it is overwritten before it is read.
#[repr(C, align(64))]
pub(crate) struct Panel {
    /// `[PIECE / 4][2][LANES]`, four bytes of a row in an element.
    pub(super) quads: [i32; PIECE / 4 * 2 * MAX_LANES],
    /// `[group][2][LANES]`.
    pub(super) scales: [f32; 16 * 2 * MAX_LANES],
    /// `[group][2][LANES]`.
    pub(super) minimums: [f32; 16 * 2 * MAX_LANES],
    /// `[PIECE][2][LANES]`.
    pub(super) floats: [f32; PIECE * 2 * MAX_LANES],
    /// One row of quants each.
    pieces: [Piece; MAX_LANES],
    /// One row of values each.
    values: [[f32; PIECE]; MAX_LANES],
}

impl Panel {
    /// Allocates a panel of about 64 KiB.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            quads: [0; _],
            scales: [0.0; _],
            minimums: [0.0; _],
            floats: [0.0; _],
            pieces: [Piece::ZERO; _],
            values: [[0.0; PIECE]; _],
        })
    }

    /// Unpacks columns `piece * PIECE..` of rows `first..first + 2 * LANES` as integers; missing rows become zeros.
    #[inline(always)]
    pub(super) fn fill_integers<S: TileSimd>(
        &mut self,
        s: S,
        weight: &Rows<'_>,
        form: Form,
        first: usize,
        piece: usize,
    ) {
        let flip = if S::NARROW_DOT && form.offset == 128 { 0x80 } else { 0 };
        for half in 0..2 {
            for lane in 0..S::LANES {
                let to = &mut self.pieces[lane];
                match row_piece(weight, first + half * S::LANES + lane, piece) {
                    Some(blocks) => unpack(weight.ty, blocks, to),
                    None => *to = Piece::ZERO,
                }
                if flip != 0 {
                    to.bytes.iter_mut().for_each(|b| *b ^= flip);
                }
            }
            let from = self.pieces.as_ptr().cast::<i32>();
            let at = half * S::LANES;
            // SAFETY: a piece is `PIECE / 4` quads, 16 scales and 16 minimums of four bytes each, in this order; the
            // squares of LANES x LANES cover them exactly, in `LANES` pieces, and fill each array up to its end.
            unsafe {
                square(s, from, self.quads.as_mut_ptr().add(at), PIECE / 4);
                square(s, from.add(PIECE / 4), self.scales.as_mut_ptr().cast::<i32>().add(at), 16);
                if form.minimum {
                    square(s, from.add(PIECE / 4 + 16), self.minimums.as_mut_ptr().cast::<i32>().add(at), 16);
                }
            }
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

/// Transposes `columns` columns of the pieces to rows of `2 * LANES`.
///
/// # Safety
/// `from` is followed by `columns` elements in each of `LANES` pieces, and `to` has `columns` rows.
#[inline(always)]
unsafe fn square<S: TileSimd>(s: S, from: *const i32, to: *mut i32, columns: usize) {
    for column in (0..columns).step_by(S::LANES) {
        // SAFETY: passed on from the caller.
        unsafe { s.transpose(from.add(column), PIECE_STRIDE, to.add(column * 2 * S::LANES), 2 * S::LANES) };
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

/// Asks for the cache lines of one piece of the rows of a strip.
#[inline(always)]
pub(super) fn prefetch<S: TileSimd>(s: S, weight: &Rows<'_>, first: usize, piece: usize) {
    for row in first..first + 2 * S::LANES {
        if let Some(bytes) = row_piece(weight, row, piece) {
            for offset in (0..bytes.len()).step_by(64) {
                s.prefetch(bytes, offset);
            }
        }
    }
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
        // Lengths agree, so decoding cannot fail; were it to, zeros would be safer than stale values.
        _ => ty.decode(blocks, to).unwrap_or_else(|_| to.fill(0.0)),
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
