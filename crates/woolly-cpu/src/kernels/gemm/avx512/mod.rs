//! Products of several rows on AVX-512 VNNI, for every type with an integer form; and, where the processor is fast at these, by
//! [pairs] of bfloat16 for BF16.
//!
//! Thirty-two weight rows, a lane each, are unpacked piece by piece into a panel in the L1 cache and multiplied with up to six
//! tokens at a time. A token's result does not depend on the strip its weights are in, and on how many tokens there are only
//! where the panel does: [rescaled](rescale) weights pay for many of them. The same kernel serves prefill and several sequences
//! that are decoded together, where the unpacking is what counts. [Few](few) tokens take no panel in the types that are used most,
//! and their sums may be in another order.

mod few;
mod pairs;
mod panel;
mod rescale;
#[cfg(test)]
mod tests;
mod tile;
mod tokens;

use std::ops::Range;

use woolly_quant::TensorType;

use super::lanes::{Ahead, Matrix, Pieces, Tail};
use super::unpack::{PIECE, unpack};
use super::{Form, form};
use crate::buffer::SharedOut;
use crate::isa::{Avx512, Avx512Bf16, Level};
use crate::kernels::gemv::{self, Rows};
pub(crate) use panel::ROWS;
use panel::{Half, LANES, Panel};
use rescale::{Groups, RESCALED};
use tile::{Operands, run};
pub(crate) use tokens::{TILE, Tokens};

/// Most tokens that [`multiply`] takes.
pub(crate) const MOST_FEW: usize = 16;

/// Weight rows of a [`product`] for many tokens: a multiple of that of a panel. Activations come from the L2 cache or
/// beyond once for two panels, and the sums of a strip stay there.
pub(crate) const STRIP: usize = 4 * ROWS;

/// Panels multiplied with a tile of activations while that is in the L1 cache.
const TOGETHER: usize = 2;

/// Tokens from which on fewer scalings save more than rescaling the weights costs.
const FEWEST_RESCALED: usize = 24;

/// Tokens from which on pairs are faster than single precision ([`gemv`]).
const FEWEST_IN_PAIRS: usize = 5;

/// How a weight is multiplied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// As bytes, with activations of eight bits.
    Bytes(Form),
    /// As pairs of bfloat16 numbers, with activations rounded to these.
    Pairs(Avx512Bf16),
}

/// Returns the proof of the instructions and how `weight` is multiplied with so many tokens, if it is multiplied here at `level`.
pub(crate) fn takes(level: Level, weight: &Rows<'_>, tokens: usize) -> Option<(Avx512, How)> {
    if level < Level::Avx512 || weight.rows == 0 {
        return None;
    }
    if weight.ty == TensorType::BF16 {
        let simd = Avx512::new().filter(|simd| simd.amd() && tokens >= FEWEST_IN_PAIRS && !gemv::exact(weight))?;
        return Some((simd, How::Pairs(Avx512Bf16::new()?)));
    }
    let form = form(level, weight)?;
    let rescaled = tokens >= FEWEST_RESCALED && rescale::takes(weight.ty, weight.columns);
    Some((Avx512::new()?, How::Bytes(if rescaled { RESCALED } else { form })))
}

/// Scratch of one thread; everything in it is overwritten before it is read.
pub(crate) struct Scratch {
    bytes: Bytes,
    pairs: pairs::Panel,
}

/// What products of bytes need of it.
struct Bytes {
    panels: [Panel; TOGETHER],
    groups: Groups,
    tail: Tail,
}

impl Scratch {
    /// Allocates about 52 KiB.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self { bytes: Bytes::ZERO, pairs: pairs::Panel::ZERO })
    }
}

impl Bytes {
    const ZERO: Self = Self { panels: [Panel::ZERO; _], groups: Groups::ZERO, tail: Tail::ZERO };
}

/// Computes `c[token][r] = weight[first + r] · x[token]` for the tokens of `tiles`.
///
/// `c` is `[tiles.len()][TILE][width]`, the width a multiple of 32; what it has beyond a [tile's](Tokens::of_tile) last token or
/// the last weight row is arbitrary.
///
/// # Panics
/// When `x` was not packed for this way of multiplying or has other columns, or `c` another size.
pub(crate) fn product(
    (simd, how): (Avx512, How),
    weight: &Rows<'_>,
    first: usize,
    x: &Tokens,
    tiles: Range<usize>,
    scratch: &mut Scratch,
    c: &mut [f32],
) {
    match how {
        How::Bytes(form) => bytes((simd, form), weight, first, x, tiles, &mut scratch.bytes, c),
        How::Pairs(proof) => pairs::product((simd, proof), weight, first, x, tiles, &mut scratch.pairs, c),
    }
}

/// The product of bytes.
fn bytes(
    (simd, form): (Avx512, Form),
    weight: &Rows<'_>,
    first: usize,
    x: &Tokens,
    tiles: Range<usize>,
    scratch: &mut Bytes,
    c: &mut [f32],
) {
    let width = width(weight, x, &tiles, c);
    if x.columns() == 0 {
        return c.fill(0.0);
    }
    let product = Product { simd, weight: Matrix::new(weight), form, first, x, tiles, width };
    // SAFETY: `simd` proves the instructions.
    unsafe { product.run(scratch, c) };
}

/// Checks the operands of a product and returns the width of its result.
fn width(weight: &Rows<'_>, x: &Tokens, tiles: &Range<usize>, c: &[f32]) -> usize {
    assert_eq!(weight.columns, x.columns(), "product: weight and activations differ in columns");
    let width = c.len() / (tiles.len() * TILE).max(1);
    assert!(c.len() == tiles.len() * TILE * width && width.is_multiple_of(ROWS), "product: a result of other size");
    width
}

/// Computes `out[token · out_stride + r] = weight[r] · x[token]` for the rows `r` of `range`, for up to [`MOST_FEW`]
/// tokens.
///
/// # Panics
/// As [`product`]; and when there are too many tokens or `range` is outside of the matrix or of the output.
///
/// # Safety
/// Nobody else accesses these rows' part of the output meanwhile.
pub(crate) unsafe fn multiply(
    (simd, how): (Avx512, How),
    weight: &Rows<'_>,
    range: Range<usize>,
    x: &Tokens,
    out: &SharedOut<'_>,
    out_stride: usize,
) {
    assert!(x.rows() <= MOST_FEW && range.end <= weight.rows, "{} tokens, rows {range:?}", x.rows());
    let tiles = 0..x.tiles();
    // SAFETY: passed on from the caller.
    unsafe {
        match how {
            How::Bytes(form) if few::takes(simd, weight.ty, x.rows()) => {
                few::multiply((simd, form), weight, range, x, out, out_stride);
            }
            How::Bytes(form) => {
                let mut scratch = Bytes::ZERO;
                by_panels(range, x, out, out_stride, |first, c| {
                    bytes((simd, form), weight, first, x, tiles.clone(), &mut scratch, c);
                });
            }
            How::Pairs(proof) => {
                let mut panel = pairs::Panel::ZERO;
                by_panels(range, x, out, out_stride, |first, c| {
                    pairs::product((simd, proof), weight, first, x, tiles.clone(), &mut panel, c);
                });
            }
        }
    }
}

/// Computes the rows of `range` by calling `compute` with the first row of each panel and a result of one panel's width.
///
/// # Safety
/// As [`multiply`].
unsafe fn by_panels(
    range: Range<usize>,
    x: &Tokens,
    out: &SharedOut<'_>,
    out_stride: usize,
    mut compute: impl FnMut(usize, &mut [f32]),
) {
    let mut c = Results([0.0; _]);
    let c = &mut c.0[..x.tiles() * TILE * ROWS];
    for first in range.clone().step_by(ROWS) {
        compute(first, c);
        let rows = ROWS.min(range.end - first);
        for (tile, c) in c.chunks_exact(TILE * ROWS).enumerate() {
            for (token, c) in x.of_tile(tile).zip(c.chunks_exact(ROWS)) {
                // SAFETY: passed on from the caller.
                unsafe { write(out, token * out_stride + first, &c[..rows]) };
            }
        }
    }
}

/// Writes results for a token from `at` on.
///
/// # Safety
/// Nobody else accesses this part of the output meanwhile.
#[inline(always)]
unsafe fn write(out: &SharedOut<'_>, at: usize, results: &[f32]) {
    // SAFETY: passed on from the caller.
    let to = unsafe { out.slice_mut(at..at + results.len()) };
    match <&[f32; ROWS]>::try_from(results) {
        // Of a length that is known: no call.
        Ok(results) => to.copy_from_slice(results),
        Err(_) => to.copy_from_slice(results),
    }
}

/// Of a panel and the most tokens; a vector that lies across two cache lines takes twice the time.
#[repr(align(64))]
struct Results([f32; MOST_FEW.next_multiple_of(TILE) * ROWS]);

/// Returns what asks, in so many steps, for `count` panels of the strip `(first, width)` that are unpacked when the `done` before
/// have been multiplied.
fn after_panels(
    weight: Matrix<'_>,
    (first, width): (usize, usize),
    piece: usize,
    (done, count): (usize, usize),
    steps: usize,
) -> Ahead {
    let (piece, first) = match (done * ROWS == width, (piece + 1) * PIECE >= weight.rows.columns) {
        (false, _) => (piece, first + done * ROWS),
        (true, false) => (piece + 1, first),
        (true, true) => (0, first + width),
    };
    Ahead::piece(weight, first..first + count * ROWS, piece, steps)
}

struct Product<'a> {
    simd: Avx512,
    weight: Matrix<'a>,
    form: Form,
    first: usize,
    x: &'a Tokens,
    tiles: Range<usize>,
    width: usize,
}

impl Product<'_> {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn run(&self, scratch: &mut Bytes, c: &mut [f32]) {
        let panels = self.width / ROWS;
        let steps = PIECE / 4 / run(self.form.group / 4) * self.tiles.len();
        let pieces = self.x.columns().div_ceil(PIECE);
        // One panel, next to which there is room in the caches: all of the next one.
        let next = self.first + ROWS..self.first + 2 * ROWS;
        let mut next = (panels == 1).then(|| Ahead::strip(self.weight, next, steps * pieces));
        for piece in 0..pieces {
            for panel in (0..panels).step_by(TOGETHER) {
                let count = TOGETHER.min(panels - panel);
                for (i, to) in scratch.panels[..count].iter_mut().enumerate() {
                    self.fill(piece, panel + i, to, &mut scratch.groups, &mut scratch.tail);
                }
                let mut after = None;
                let ahead = match &mut next {
                    Some(next) => next,
                    None => after.insert(after_panels(
                        self.weight,
                        (self.first, self.width),
                        piece,
                        (panel + count, TOGETHER),
                        steps * count,
                    )),
                };
                self.multiply(piece, &scratch.panels[..count], ahead, &mut c[panel * ROWS..]);
            }
        }
    }

    /// Unpacks a piece of a panel.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn fill(&self, piece: usize, panel: usize, to: &mut Panel, groups: &mut Groups, tail: &mut Tail) {
        let (ty, first) = (self.weight.rows.ty, self.first + panel * ROWS);
        for half in 0..2 {
            let from = Pieces::new(self.simd, self.weight, first + half * LANES, piece, tail);
            let mut to = Half { panel: to, half };
            if self.form == RESCALED {
                // SAFETY: this function has the instructions, and the piece the bytes of its blocks.
                unsafe { rescale::unpack(self.simd, ty, from, self.weight.blocks(piece), groups, to) };
            } else {
                unpack(self.simd, ty, from, self.weight.blocks(piece), &mut to);
            }
        }
    }

    /// Multiplies panels with all tiles; `c` begins with the first panel's columns.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn multiply(&self, piece: usize, panels: &[Panel], ahead: &mut Ahead, c: &mut [f32]) {
        let (parts, extras) = self.x.piece(self.form, piece);
        let each = PIECE / self.form.group;
        let groups = PIECE.min(self.x.columns() - piece * PIECE) / self.form.group;
        for (index, tile) in self.tiles.clone().enumerate() {
            let extra = &extras[tile * each..][..groups];
            let operands = Operands { part: &parts[tile], extra };
            let tokens = self.x.of_tile(tile).len();
            if let ([a, b], RESCALED, 5) = (panels, self.form, tokens) {
                let c = &mut c[index * TILE * self.width..];
                assert!(c.len() >= (TILE - 1) * self.width + 2 * ROWS);
                let c = (c.as_mut_ptr(), self.width);
                // SAFETY: the assertion covers the rows of a tile.
                unsafe { tile::wide::<5, { rescale::SPAN / 4 }>(self.simd, [a, b], operands, ahead, c, piece == 0) };
                continue;
            }
            for (i, panel) in panels.iter().enumerate() {
                let c = &mut c[index * TILE * self.width + i * ROWS..];
                assert!(c.len() >= (TILE - 1) * self.width + ROWS);
                // SAFETY: the assertion covers the rows of a tile.
                unsafe { self.tile(panel, operands, tokens, ahead, c.as_mut_ptr(), piece == 0) };
            }
        }
    }

    /// Chooses the loop for the number of tokens.
    ///
    /// # Safety
    /// As [`tile::tile`], for a whole tile.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn tile(&self, panel: &Panel, x: Operands<'_>, tokens: usize, ahead: &mut Ahead, c: *mut f32, first: bool) {
        let (simd, c) = (self.simd, (c, self.width));
        // SAFETY: passed on from the caller.
        unsafe {
            match (self.form.group, self.form.minimum) {
                (rescale::SPAN, _) => sized::<{ rescale::SPAN / 4 }, false>(simd, panel, x, tokens, ahead, c, first),
                (16, true) => sized::<4, true>(simd, panel, x, tokens, ahead, c, first),
                (16, false) => sized::<4, false>(simd, panel, x, tokens, ahead, c, first),
                (_, true) => sized::<8, true>(simd, panel, x, tokens, ahead, c, first),
                (_, false) => sized::<8, false>(simd, panel, x, tokens, ahead, c, first),
            }
        }
    }
}

/// # Safety
/// As [`tile::tile`], for a whole tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn sized<const QUADS: usize, const MINIMUM: bool>(
    simd: Avx512,
    panel: &Panel,
    x: Operands<'_>,
    tokens: usize,
    ahead: &mut Ahead,
    c: (*mut f32, usize),
    first: bool,
) {
    // SAFETY: passed on from the caller.
    unsafe {
        match tokens {
            ..=2 => tile::tile::<2, QUADS, MINIMUM>(simd, panel, x, ahead, c, first),
            3 | 4 => tile::tile::<4, QUADS, MINIMUM>(simd, panel, x, ahead, c, first),
            5 => tile::tile::<5, QUADS, MINIMUM>(simd, panel, x, ahead, c, first),
            _ => tile::tile::<TILE, QUADS, MINIMUM>(simd, panel, x, ahead, c, first),
        }
    }
}
