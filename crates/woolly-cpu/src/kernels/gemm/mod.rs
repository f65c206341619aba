//! Matrix products for many rows of activations: prefill.
//!
//! A strip of weight rows (one row a vector lane, two vectors) is unpacked piece by piece into a panel that stays in the
//! L1 cache, and multiplied with all activation rows, six at a time. Types with an integer form are multiplied as bytes
//! and scaled once a group; all others are decoded and multiplied as `f32`. The result of a row does not depend on which
//! strip or thread computes it: lanes never mix. For few rows [`super::gemv`] is faster.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod lanes;
mod pack;
mod panel;
mod tile;
mod unpack;

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use woolly_quant::TensorType;

use crate::isa::Level;
use crate::kernels::gemv::{self, Rows};
use crate::kernels::simd::{self, TileKernel, TileSimd, Wide};

use lanes::{Ahead, Matrix};
pub(crate) use pack::{Packed, Source, TILE};
pub(crate) use panel::Panel;
use tile::{HALVES, IntTile, SIGNED};
pub(crate) use unpack::Form;
use unpack::PIECE;

/// Activation rows multiplied with one unpacked strip at a time, so that the results of a strip stay in the L2 cache.
pub(crate) const BLOCK_TILES: usize = 86;

/// Activation rows from which on shorter products pay for cutting wide weights into halves, where a level does so.
const FEWEST_IN_HALVES: usize = 12;

/// Returns the number of weight rows of a strip at `level`.
pub(crate) fn strip_rows(level: Level) -> usize {
    simd::dispatch(level, StripRows)
}

struct StripRows;

impl TileKernel for StripRows {
    type Output = usize;

    #[inline(always)]
    fn run<S: TileSimd>(self, _: S) -> usize {
        2 * S::LANES
    }
}

/// Returns how products with `weight` use integers, or `None` when they are computed as `f32`.
///
/// Follows the rule of [`super::gemv`], so that one row and many round activations alike.
pub(crate) fn form(level: Level, weight: &Rows<'_>) -> Option<Form> {
    let plain = level.min(Level::best()) == Level::Scalar || gemv::exact(weight);
    if plain { None } else { unpack::form(weight.ty) }
}

/// Returns whether weights of this type are bytes below 16, of which 256 bits multiply the most at a time.
#[cfg(target_arch = "x86_64")]
pub(crate) fn narrow(ty: TensorType) -> bool {
    unpack::largest(ty) < 16
}

/// Computes `c[row][r] = weight[first + r] · x[row]` for the rows of `tiles`, as `form` says.
///
/// `c` is `[tiles.len() * TILE][strip_rows(level)]`; columns of weight rows that do not exist are zeros. `x` must have
/// been packed and [prepared](Packed::prepare) for the form.
pub(crate) fn product(
    level: Level,
    (weight, form): (&Rows<'_>, Option<Form>),
    first: usize,
    x: &Packed,
    tiles: Range<usize>,
    panel: &mut Panel,
    c: &mut [f32],
) {
    assert_eq!(weight.columns, x.columns(), "product: weight and activations differ in columns");
    c.fill(0.0);
    simd::dispatch(level, Product { weight, form, first, x, tiles, panel, c });
}

struct Product<'a> {
    weight: &'a Rows<'a>,
    form: Option<Form>,
    first: usize,
    x: &'a Packed,
    tiles: Range<usize>,
    panel: &'a mut Panel,
    c: &'a mut [f32],
}

impl TileKernel for Product<'_> {
    type Output = ();

    const PRODUCTS: bool = true;

    #[inline(always)]
    fn run<S: TileSimd>(mut self, s: S) {
        let pieces = self.x.columns().div_ceil(PIECE);
        let rows = self.x.rows().min(self.tiles.end * TILE) - self.tiles.start * TILE;
        let steps = match self.form {
            Some(_) => pieces * rows.div_ceil(S::INT_TILE),
            None => pieces * self.tiles.len(),
        };
        let next = self.first + 2 * S::LANES..self.first + 4 * S::LANES;
        let matrix = Matrix::new(self.weight);
        let wide = match S::WIDE {
            Wide::Halves if unpack::largest(self.weight.ty) <= 127 => Wide::Whole,
            Wide::Halves if rows < FEWEST_IN_HALVES => Wide::Signed,
            wide => wide,
        };
        let mut ahead = Ahead::strip(matrix, next, steps);
        for piece in 0..pieces {
            let columns = PIECE.min(self.x.columns() - piece * PIECE);
            match self.form {
                Some(form) => {
                    self.panel.fill_integers(s, matrix, self.first, piece, wide);
                    self.integers(s, (form, wide), piece, columns, &mut ahead);
                }
                None => {
                    self.panel.fill_floats(s, self.weight, self.first, piece);
                    self.floats(s, piece, columns, &mut ahead);
                }
            }
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn integers<S: TileSimd>(
        &mut self,
        s: S,
        (form, wide): (Form, Wide),
        piece: usize,
        columns: usize,
        ahead: &mut Ahead,
    ) {
        // Where the size of the weights does not matter, one kernel serves all.
        let largest = if S::NARROW_DOT { unpack::largest(self.weight.ty) } else { u8::MAX };
        match (form.group, form.minimum, largest) {
            (16, true, ..16) => self.integer_tiles::<S, 4, true, 15>(s, form, piece, columns, ahead),
            (16, true, _) => self.integer_tiles::<S, 4, true, 255>(s, form, piece, columns, ahead),
            (16, false, ..64) => self.integer_tiles::<S, 4, false, 63>(s, form, piece, columns, ahead),
            (16, false, _) => self.integer_tiles::<S, 4, false, 255>(s, form, piece, columns, ahead),
            (_, true, ..16) => self.integer_tiles::<S, 8, true, 15>(s, form, piece, columns, ahead),
            (_, true, ..32) => self.integer_tiles::<S, 8, true, 31>(s, form, piece, columns, ahead),
            (_, true, _) => self.integer_tiles::<S, 8, true, 255>(s, form, piece, columns, ahead),
            (_, false, ..16) => self.integer_tiles::<S, 8, false, 15>(s, form, piece, columns, ahead),
            (_, false, ..32) => self.integer_tiles::<S, 8, false, 31>(s, form, piece, columns, ahead),
            (_, false, 128..) if S::WIDE != Wide::Whole && wide == Wide::Signed => {
                self.integer_tiles::<S, 8, false, SIGNED>(s, form, piece, columns, ahead)
            }
            (_, false, 128..) if S::WIDE == Wide::Halves && wide == Wide::Halves => {
                self.integer_tiles::<S, 8, false, HALVES>(s, form, piece, columns, ahead)
            }
            (_, false, _) => self.integer_tiles::<S, 8, false, 255>(s, form, piece, columns, ahead),
        }
    }

    #[inline(always)]
    fn integer_tiles<S: TileSimd, const QUADS: usize, const MINIMUM: bool, const LARGEST: u8>(
        &mut self,
        s: S,
        form: Form,
        piece: usize,
        columns: usize,
        ahead: &mut Ahead,
    ) {
        let x = self.x;
        let offsets = x.offsets(form.group, form.offset).expect("the caller prepared the activations");
        let groups = columns / form.group;
        let each = PIECE / form.group * TILE;
        for (index, tile) in self.tiles.clone().enumerate() {
            let part = piece * x.tiles() + tile;
            let operands = IntTile {
                quads: &x.quads[part * (PIECE / 4 * TILE)..][..PIECE / 4 * TILE],
                scales: &x.scales[part * (PIECE / 32 * TILE)..][..PIECE / 32 * TILE],
                start: &offsets.start[part * each..][..each],
                sums: &offsets.sums[part * each..][..each],
            };
            let c = &mut self.c[index * (TILE * 2 * S::LANES)..][..TILE * 2 * S::LANES];
            let rows = x.rows() - tile * TILE;
            tile::integers::<S, QUADS, MINIMUM, LARGEST>(s, self.panel, operands, groups, rows, ahead, c);
        }
    }

    #[inline(always)]
    fn floats<S: TileSimd>(&mut self, s: S, piece: usize, columns: usize, ahead: &mut Ahead) {
        for (index, tile) in self.tiles.clone().enumerate() {
            let part = piece * self.x.tiles() + tile;
            let x = &self.x.floats[part * (PIECE * TILE)..][..PIECE * TILE];
            let c = &mut self.c[index * (TILE * 2 * S::LANES)..][..TILE * 2 * S::LANES];
            ahead.step(s);
            tile::floats(s, self.panel, x, columns, self.x.rows() - tile * TILE, c);
        }
    }
}

#[cfg(test)]
mod tests {
    use woolly_quant::TensorType;

    use super::*;
    use crate::test_data::{Random, blocks, levels};

    struct Plain<'a>(&'a [f32], usize);

    impl Source for Plain<'_> {
        fn row(&self, row: usize, out: &mut [f32]) {
            out.copy_from_slice(&self.0[row * self.1..(row + 1) * self.1]);
        }
    }

    fn packed(level: Level, x: &[f32], rows: usize, weight: &Rows<'_>, form: Option<Form>) -> Packed {
        let mut packed = Packed::default();
        packed.reset(rows, weight.columns, [form].into_iter());
        let tiles = 0..packed.tiles();
        // SAFETY: one thread packs all tiles.
        unsafe { packed.writer().pack(level, &Plain(x, weight.columns), tiles, &mut Vec::new()) };
        packed.prepare(form);
        packed
    }

    /// Activations that eight bits hold exactly: whole multiples of a power of two, with the largest in every group.
    fn exact_activations(n: usize, random: &mut Random) -> Vec<f32> {
        let whole = |i: usize, r: &mut Random| if i % 32 == 5 { 127.0 } else { r.below(255) as f32 - 127.0 };
        (0..n).map(|i| whole(i, random) / 128.0).collect()
    }

    /// Returns the product in `f64` and the sum of the magnitudes of its terms.
    fn reference(weight: &[f32], x: &[f32]) -> (f64, f64) {
        let terms = weight.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
        terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
    }

    fn check(level: Level, ty: TensorType, form: Option<Form>, rows: usize, columns: usize, m: usize) {
        let mut random = Random::new((rows * 31 + columns * 7 + m) as u64);
        // One byte in front: weights lie at any address.
        let mut bytes = vec![0];
        bytes.extend(blocks(ty, columns, rows, 11));
        let weight = Rows { ty, bytes: &bytes[1..], columns, rows };
        let mut values = vec![0.0; rows * columns];
        ty.decode(weight.bytes, &mut values).unwrap();
        let x = exact_activations(m * columns, &mut random);
        let packed = packed(level, &x, m, &weight, form);
        let width = strip_rows(level);
        let mut c = vec![f32::NAN; packed.tiles() * TILE * width];
        let mut panel = Panel::new();
        for first in (0..rows).step_by(width) {
            product(level, (&weight, form), first, &packed, 0..packed.tiles(), &mut panel, &mut c);
            for (row, r) in (0..m).flat_map(|row| (first..rows.min(first + width)).map(move |r| (row, r))) {
                let (want, size) = reference(&values[r * columns..][..columns], &x[row * columns..][..columns]);
                let found = f64::from(c[row * width + r - first]);
                let case = format!("{level:?} {ty} {form:?} {rows}x{columns}, {m} rows: [{row}][{r}]");
                assert!((found - want).abs() <= size * 1e-6 + 1e-9, "{case}: {found}, not {want}");
            }
        }
    }

    #[test]
    fn products_of_every_type_and_level_match_the_codec() {
        for (&ty, level) in TensorType::ALL.iter().flat_map(|ty| levels().into_iter().map(move |l| (ty, l))) {
            let block = ty.block_elements();
            for (rows, columns, m) in [(1, 1_usize, 1), (7, 3, 3), (33, 2, 4), (40, 9, 13), (18, 5, 6)] {
                let columns = (columns * 32).next_multiple_of(block.max(32));
                check(level, ty, None, rows, columns, m);
                if let Some(form) = unpack::form(ty) {
                    check(level, ty, Some(form), rows, columns, m);
                }
            }
            if block == 1 {
                check(level, ty, None, 5, 299, 7);
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_strip() {
        for level in levels() {
            let (ty, columns, rows) = (TensorType::Q6_K, 512, 50);
            let bytes = blocks(ty, columns, rows, 3);
            let weight = Rows { ty, bytes: &bytes, columns, rows };
            let x = exact_activations(columns * 2, &mut Random::new(8));
            let form = unpack::form(ty);
            let packed = packed(level, &x, 2, &weight, form);
            let width = strip_rows(level);
            let mut panel = Panel::new();
            let mut strip = |first: usize| {
                let mut c = vec![0.0; TILE * width];
                product(level, (&weight, form), first, &packed, 0..1, &mut panel, &mut c);
                c
            };
            let (a, b) = (strip(0), strip(3));
            assert_eq!(a[3..width], b[..width - 3], "{level:?}");
        }
    }
}
