//! Activations as the product kernels read them: interleaved over the rows of a register tile, piece after piece.
//!
//! `[piece of 256 columns][tile of 6 rows][column or group][6 rows]`: for one piece of the weights, the activations of
//! all rows are one linear stream. Integer form: signed bytes with a scale per group of 32 (see [`rounding`]), four columns in an
//! element; where products take [pairs](TileSimd::PAIRED) of these, `[two elements][pair of rows][row][element]`. Rows
//! beyond the last are zeros.

use std::ops::Range;

use super::unpack::{Form, PIECE};
use crate::isa::Level;
use crate::kernels::disjoint::Disjoint;
use crate::kernels::rounding::{self, Scales, Unit};
use crate::kernels::simd::{self, TileKernel, TileSimd};

/// Rows interleaved with each other.
pub(crate) const TILE: usize = 6;

/// Scale groups in a piece of activations.
const GROUPS: usize = PIECE / 32;

/// Elements of four bytes in a piece of one tile.
const QUADS: usize = PIECE / 4 * TILE;

/// What the integer product starts and ends with, for one pair of weight group size and offset.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    key: (usize, u8),
    /// `−offset · Σ q` of each group: `[piece][tile][PIECE / group][TILE]`.
    pub(super) start: Vec<i32>,
    /// `scale · Σ q` of each group, the factor of a minimum; same layout.
    pub(super) sums: Vec<f32>,
}

/// A matrix of activations packed for multiplication with any weight of one of two kinds.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    rows: usize,
    columns: usize,
    scaling: Scales,
    /// `[piece][tile][PIECE / 4][TILE]`, or pairs of these; empty unless packed as integers.
    pub(super) quads: Vec<i32>,
    /// `[piece][tile][8][TILE]`.
    pub(super) scales: Vec<f32>,
    /// Sums of 16 quants: `[piece][tile][16][TILE]`.
    sums: Vec<i32>,
    offsets: Vec<Offsets>,
    offsets_used: usize,
    /// `[piece][tile][PIECE][TILE]`, empty unless packed as floats.
    pub(super) floats: Vec<f32>,
}

/// Where the rows to pack come from.
pub(crate) trait Source: Sync {
    /// Writes row `row` to `out`, which is as long as a row.
    fn row(&self, row: usize, out: &mut [f32]);

    /// Returns row `row` itself when it is there as it is to be packed.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only packing for wide vectors and tiles asks"))]
    fn plain(&self, _row: usize) -> Option<&[f32]> {
        None
    }
}

impl Packed {
    /// Returns the number of rows packed.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the number of tiles of [`TILE`] rows.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    fn pieces(&self) -> usize {
        self.columns.div_ceil(PIECE)
    }

    /// Makes room for a matrix that is multiplied with weights of these forms, `None` standing for floats, and forgets what was packed;
    /// allocates only when it is larger than any before.
    pub(crate) fn reset(&mut self, rows: usize, columns: usize, forms: impl Iterator<Item = Option<Form>>) {
        (self.rows, self.columns, self.offsets_used) = (rows, columns, 0);
        let (mut scaling, mut floats) = (None, false);
        for form in forms {
            match form {
                Some(form) => scaling = Some(scaling.map_or(form.scales, |all: Scales| all.and(form.scales))),
                None => floats = true,
            }
        }
        self.scaling = scaling.unwrap_or(Scales::Own);
        let parts = self.pieces() * self.tiles();
        let (ints, floats) = (if scaling.is_some() { parts } else { 0 }, if floats { parts } else { 0 });
        self.quads.resize(ints * QUADS, 0);
        self.scales.resize(ints * GROUPS * TILE, 0.0);
        self.sums.resize(ints * 2 * GROUPS * TILE, 0);
        self.floats.resize(floats * PIECE * TILE, 0.0);
    }

    /// Returns a view that packs tiles, for several threads at once.
    pub(crate) fn writer(&mut self) -> Writer<'_> {
        Writer {
            rows: self.rows,
            columns: self.columns,
            scaling: self.scaling,
            quads: Disjoint::new(&mut self.quads),
            scales: Disjoint::new(&mut self.scales),
            sums: Disjoint::new(&mut self.sums),
            floats: Disjoint::new(&mut self.floats),
        }
    }

    /// Computes what weights of this form need besides the quants, unless it is there already.
    pub(crate) fn prepare(&mut self, form: Option<Form>) {
        let Some(Form { group, offset, .. }) = form else { return };
        let key = (group, offset);
        if self.offsets[..self.offsets_used].iter().any(|o| o.key == key) {
            return;
        }
        if self.offsets.len() == self.offsets_used {
            self.offsets.push(Offsets::default());
        }
        let entry = &mut self.offsets[self.offsets_used];
        self.offsets_used += 1;
        entry.fill(key, &self.sums, &self.scales);
    }

    pub(super) fn offsets(&self, group: usize, offset: u8) -> Option<&Offsets> {
        self.offsets[..self.offsets_used].iter().find(|o| o.key == (group, offset))
    }
}

impl Offsets {
    fn fill(&mut self, key: (usize, u8), sums: &[i32], scales: &[f32]) {
        let (group, offset) = key;
        self.key = key;
        self.start.clear();
        self.sums.clear();
        for (pair, scale) in sums.as_chunks::<{ 2 * TILE }>().0.iter().zip(scales.as_chunks::<TILE>().0) {
            let (first, second) = pair.split_at(TILE);
            if group == 16 {
                self.push(offset, first, scale);
                self.push(offset, second, scale);
            } else {
                let both: [i32; TILE] = std::array::from_fn(|t| first[t] + second[t]);
                self.push(offset, &both, scale);
            }
        }
    }

    fn push(&mut self, offset: u8, sums: &[i32], scale: &[f32; TILE]) {
        self.start.extend(sums.iter().map(|sum| -i32::from(offset) * sum));
        self.sums.extend(sums.iter().zip(scale).map(|(&sum, scale)| sum as f32 * scale));
    }
}

/// Packs tiles into a [`Packed`]; different threads pack different tiles.
pub(crate) struct Writer<'a> {
    rows: usize,
    columns: usize,
    scaling: Scales,
    quads: Disjoint<'a, i32>,
    scales: Disjoint<'a, f32>,
    sums: Disjoint<'a, i32>,
    floats: Disjoint<'a, f32>,
}

impl Writer<'_> {
    /// Packs the tiles of `range` from `source`; `row` is scratch that grows to the length of a row.
    ///
    /// # Safety
    /// No other thread packs any of these tiles at the same time.
    pub(crate) unsafe fn pack(&self, level: Level, source: &dyn Source, range: Range<usize>, row: &mut Vec<f32>) {
        let padded = self.columns.next_multiple_of(PIECE);
        if row.len() < padded {
            row.resize(padded, 0.0);
        }
        let row = &mut row[..padded];
        for tile in range {
            for lane in 0..TILE {
                row[self.columns..].fill(0.0);
                match tile * TILE + lane {
                    index if index < self.rows => source.row(index, &mut row[..self.columns]),
                    _ => row.fill(0.0),
                }
                simd::dispatch(level, Lane { writer: self, tile, lane, row });
            }
        }
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE)
    }

    /// Returns the part of `all` that belongs to a piece of a tile.
    ///
    /// # Safety
    /// The caller is the only one to touch this tile.
    #[allow(clippy::mut_from_ref, reason = "hands out parts of a shared slice; the contract excludes overlap")]
    unsafe fn part<'b, T>(&'b self, all: &'b Disjoint<'_, T>, piece: usize, tile: usize, each: usize) -> &'b mut [T] {
        let at = (piece * self.tiles() + tile) * each;
        // SAFETY: parts of different tiles do not overlap, and this tile is the caller's.
        unsafe { all.slice(at..at + each) }
    }
}

/// One row of one tile.
struct Lane<'a> {
    writer: &'a Writer<'a>,
    tile: usize,
    lane: usize,
    /// Padded with zeros to whole pieces.
    row: &'a [f32],
}

impl TileKernel for Lane<'_> {
    type Output = ();

    // The order of the bytes is that of the products.
    const PRODUCTS: bool = true;

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        let w = self.writer;
        for (p, values) in self.row.as_chunks::<PIECE>().0.iter().enumerate() {
            if w.floats.len() > 0 {
                // SAFETY: the caller of `pack` owns this tile.
                let to = unsafe { w.part(&w.floats, p, self.tile, PIECE * TILE) };
                for (to, &value) in to.as_chunks_mut::<TILE>().0.iter_mut().zip(values) {
                    to[self.lane] = value;
                }
            }
            if w.quads.len() > 0 {
                // SAFETY: the caller of `pack` owns this tile.
                let (quads, scales, sums) = unsafe {
                    (
                        w.part(&w.quads, p, self.tile, QUADS),
                        w.part(&w.scales, p, self.tile, GROUPS * TILE),
                        w.part(&w.sums, p, self.tile, 2 * GROUPS * TILE),
                    )
                };
                let unit = w.scaling.unit(rounding::largest(values));
                for (g, group) in values.as_chunks::<32>().0.iter().enumerate() {
                    let (scale, q) = quantise(s, group, unit);
                    scales[g * TILE + self.lane] = scale;
                    for (i, four) in q.as_chunks::<4>().0.iter().enumerate() {
                        quads[place::<S>(8 * g + i, self.lane)] = i32::from_le_bytes(four.map(|q| q as u8));
                    }
                    for (i, half) in q.as_chunks::<16>().0.iter().enumerate() {
                        sums[(2 * g + i) * TILE + self.lane] = half.iter().map(|&q| i32::from(q)).sum();
                    }
                }
            }
        }
    }
}

/// Returns where a piece of a tile has four columns of a row.
#[inline(always)]
const fn place<S: TileSimd>(quad: usize, row: usize) -> usize {
    if S::PAIRED { quad / 2 * 2 * TILE + row / 2 * 4 + row % 2 * 2 + quad % 2 } else { quad * TILE + row }
}

/// Groups without a magnitude above this become zeros: the inverse of their scale would overflow.
pub(super) const SMALLEST: f32 = 1e-35;

/// Quantises 32 values to signed bytes: scale `max |x| / 127` or the next multiple of the unit, rounded to nearest, ties to even.
/// The scale of a group with an infinity or a NaN is one, too, and makes every product with the group NaN.
#[inline(always)]
fn quantise<S: TileSimd>(s: S, x: &[f32; 32], unit: Option<Unit>) -> (f32, [i8; 32]) {
    let largest = rounding::largest(x);
    let (scale, inverse) = match unit {
        Some(unit) => {
            let multiple = unit.multiple(largest);
            (multiple * unit.size, unit.inverse(multiple))
        }
        None => {
            let largest = f32::from_bits(largest);
            (largest / 127.0, if largest < SMALLEST { 0.0 } else { 127.0 / largest })
        }
    };
    let mut q = [0_i32; 32];
    for (part, q) in x.chunks_exact(S::LANES).zip(q.chunks_exact_mut(S::LANES)) {
        let scaled = s.mul(s.load(part), s.splat(inverse));
        // SAFETY: the chunk holds a vector.
        unsafe { s.store_int_at(s.to_int(scaled), q.as_mut_ptr()) };
    }
    (scale, q.map(|q| q as i8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::{levels, noise};

    struct Plain<'a>(&'a [f32], usize);

    impl Source for Plain<'_> {
        fn row(&self, row: usize, out: &mut [f32]) {
            out.copy_from_slice(&self.0[row * self.1..(row + 1) * self.1]);
        }
    }

    #[test]
    fn numbers_that_are_none_show_and_tiny_ones_do_not_overflow() {
        struct Quantise([f32; 32]);
        impl TileKernel for Quantise {
            type Output = (f32, [i8; 32]);

            #[inline(always)]
            fn run<S: TileSimd>(self, s: S) -> Self::Output {
                quantise(s, &self.0, None)
            }
        }
        for level in levels() {
            let mut x = [1.0; 32];
            x[3] = f32::NAN;
            assert!(simd::dispatch(level, Quantise(x)).0.is_nan(), "{level:?}");
            x[3] = f32::NEG_INFINITY;
            assert_eq!(simd::dispatch(level, Quantise(x)).0, f32::INFINITY, "{level:?}");
            assert_eq!(simd::dispatch(level, Quantise([1e-40; 32])).1, [0; 32], "{level:?}");
        }
    }

    /// Where four columns of a row are.
    struct Place(usize, usize);

    impl TileKernel for Place {
        type Output = usize;

        const PRODUCTS: bool = true;

        #[inline(always)]
        fn run<S: TileSimd>(self, _: S) -> usize {
            place::<S>(self.0, self.1)
        }
    }

    #[test]
    fn packed_rows_are_within_half_a_step_and_their_sums_exact() {
        let cases = [(1, 32), (6, 256), (7, 288), (13, 544)]
            .into_iter()
            .flat_map(|case| [Scales::Own, Scales::Multiples, Scales::Block].map(|scales| (case, scales)));
        for ((rows, columns), scales) in cases {
            let form = Form { group: 16, offset: 1, minimum: false, scales };
            for level in levels() {
                let x = noise(rows * columns, 5);
                let mut packed = Packed::default();
                packed.reset(rows, columns, [Some(form), None].into_iter());
                // SAFETY: one thread packs all tiles.
                unsafe { packed.writer().pack(level, &Plain(&x, columns), 0..rows.div_ceil(TILE), &mut Vec::new()) };
                packed.prepare(Some(form));
                let starts = &packed.offsets(16, 1).unwrap().start;
                for (at, &value) in x.iter().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let part = (column / PIECE) * packed.tiles() + row / TILE;
                    let (inside, lane) = (column % PIECE, row % TILE);
                    assert_eq!(packed.floats[(part * PIECE + inside) * TILE + lane], value);
                    let place = |quad| simd::dispatch(level, Place(quad, lane));
                    let bytes = |k: usize| packed.quads[part * QUADS + place(k / 4)].to_le_bytes()[k % 4] as i8;
                    let scale = packed.scales[(part * GROUPS + inside / 32) * TILE + lane];
                    assert!((f32::from(bytes(inside)) * scale - value).abs() <= scale * 0.5001, "{level:?} {at}");
                    let group = inside / 16;
                    let sum: i32 = (16 * group..16 * group + 16).map(|k| i32::from(bytes(k))).sum();
                    assert_eq!(starts[(part * 16 + group) * TILE + lane], -sum, "{level:?} {at}");
                }
            }
        }
    }
}
