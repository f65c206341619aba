//! The vectors of a product with few rows, prepared for the kernel that suits each weight.

use std::ops::Range;

use crate::buffer::SharedOut;
#[cfg(target_arch = "x86_64")]
use crate::isa::Amx;
use crate::isa::Level;
#[cfg(target_arch = "x86_64")]
use crate::kernels::gemm::avx512::{self, How, Tokens};
#[cfg(target_arch = "x86_64")]
use crate::kernels::gemm::{self, Source};
#[cfg(target_arch = "x86_64")]
use crate::kernels::gemv::tiles::{self, Columns};
use crate::kernels::gemv::{self, Input, MAX_COLUMNS, MAX_COLUMNS_OF_FLOATS, Rows};

/// Vectors from which on tiles are faster than the vector units.
#[cfg(target_arch = "x86_64")]
const FEWEST_ON_TILES: usize = 3;

/// Vectors from which on unpacking panels of weights for all of them is faster than going through the weights for each
/// vector; with AMX not below [`FEWEST_ON_TILES`], so that one number says what is [`uniform`].
#[cfg(target_arch = "x86_64")]
const FEWEST_ON_PANELS: usize = 3;

/// The same on 256 bits for weights of more than four bits, whose products take up to twice as long there.
#[cfg(target_arch = "x86_64")]
const FEWEST_WIDE_ON_PANELS: usize = 5;

/// Returns the number of vectors up to which each has the same results, to the last bit, in any company.
pub(super) fn uniform(level: Level) -> usize {
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Avx2 {
        return FEWEST_ON_TILES.min(FEWEST_ON_PANELS) - 1;
    }
    let _ = level;
    MAX_COLUMNS
}

/// Returns whether the blocked product is faster for so many vectors, no more than [`MAX_COLUMNS`]; wider vectors have
/// panels of their own.
pub(super) fn many(level: Level, rows: usize, weight: &Rows<'_>) -> bool {
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Avx2 && level < Level::Avx512 {
        let fewest = if gemm::narrow(weight.ty) { FEWEST_ON_PANELS } else { FEWEST_WIDE_ON_PANELS };
        return rows >= fewest && gemm::form(level, weight).is_some();
    }
    let _ = (level, rows, weight);
    false
}

/// Returns whether so many vectors, more than [`MAX_COLUMNS`], are better multiplied with the rows of this weight as they are than
/// with panels of them, which for floats are as large: on AVX-512, where no kernel for many rows is faster than single precision.
#[cfg(target_arch = "x86_64")]
fn as_they_are(level: Level, rows: usize, weight: &Rows<'_>) -> bool {
    rows <= MAX_COLUMNS_OF_FLOATS
        && gemv::takes_many(level, weight)
        && (level == Level::Avx512 || level == Level::Amx && Amx::new().is_none())
        && avx512::takes(level, weight, rows).is_none()
}

/// Up to [`MAX_COLUMNS`] vectors, of floats [`MAX_COLUMNS_OF_FLOATS`], or as many as tiles or panels take where all weights are
/// multiplied on them.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    rows: usize,
    columns: usize,
    /// With the longest vectors it has room for.
    input: Option<(Input, usize)>,
    #[cfg(target_arch = "x86_64")]
    tiles: Columns,
    #[cfg(target_arch = "x86_64")]
    panels: Tokens,
}

/// Vectors one after another.
#[cfg(target_arch = "x86_64")]
struct Plain<'a> {
    values: &'a [f32],
    columns: usize,
}

#[cfg(target_arch = "x86_64")]
impl Source for Plain<'_> {
    fn row(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.values[row * self.columns..][..self.columns]);
    }

    fn plain(&self, row: usize) -> Option<&[f32]> {
        Some(&self.values[row * self.columns..][..self.columns])
    }
}

impl Vectors {
    /// Whether products of so many rows with this weight are computed on tiles.
    #[cfg(target_arch = "x86_64")]
    fn on_tiles(level: Level, rows: usize, weight: &Rows<'_>) -> bool {
        level >= Level::Amx
            && (FEWEST_ON_TILES..=tiles::COLUMNS).contains(&rows)
            && tiles::takes(weight)
            && Amx::new().is_some()
    }

    /// Returns how so many rows are multiplied with this weight, if it is on panels.
    #[cfg(target_arch = "x86_64")]
    fn on_panels(level: Level, rows: usize, weight: &Rows<'_>) -> Option<(crate::isa::Avx512, How)> {
        let these = (FEWEST_ON_PANELS..=avx512::MOST_FEW).contains(&rows) && !Self::on_tiles(level, rows, weight);
        avx512::takes(level, weight, rows).filter(|_| these)
    }

    /// Whether products of so many rows with this weight are computed for all of them at once.
    pub(super) fn together(level: Level, rows: usize, weight: &Rows<'_>) -> bool {
        #[cfg(target_arch = "x86_64")]
        return Self::on_tiles(level, rows, weight)
            || Self::on_panels(level, rows, weight).is_some()
            || as_they_are(level, rows, weight);
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (level, rows, weight);
            false
        }
    }

    /// Makes room for vectors of `columns` elements; what is not used takes no memory.
    pub(super) fn reserve(&mut self, columns: usize) {
        if self.input.as_ref().is_none_or(|(_, room)| *room < columns) {
            self.input = Some((Input::with_capacity(MAX_COLUMNS, MAX_COLUMNS_OF_FLOATS, columns), columns));
        }
        #[cfg(target_arch = "x86_64")]
        {
            self.tiles.reserve(columns);
            self.panels.reserve(avx512::MOST_FEW, columns);
        }
    }

    /// Begins with other vectors; allocates only when they are longer than any there was room for.
    pub(super) fn reset(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        self.reserve(columns);
        if let Some((input, _)) = &mut self.input {
            input.invalidate();
        }
        #[cfg(target_arch = "x86_64")]
        {
            self.tiles.reset(rows.min(tiles::COLUMNS), columns);
            self.panels.reset(rows.min(avx512::MOST_FEW), columns);
        }
    }

    /// Prepares `x`, `[rows, columns]`, for `weight`; [`complete`](Self::complete) is to follow after the last weight.
    pub(super) fn prepare(&mut self, level: Level, weight: &Rows<'_>, x: &[f32]) {
        #[cfg(target_arch = "x86_64")]
        if Self::on_tiles(level, self.rows, weight) {
            return self.tiles.prepare(level, weight.ty, x);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some((_, how)) = Self::on_panels(level, self.rows, weight) {
            return self.panels.want(how);
        }
        if let Some((input, _)) = &mut self.input {
            input.prepare(level, weight, x, self.rows, self.columns);
        }
    }

    /// Prepares the same `x` for what needs to know all weights.
    pub(super) fn complete(&mut self, x: &[f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = crate::isa::Avx512::new().filter(|_| self.panels.wanted()) {
            let source = Plain { values: x, columns: self.columns };
            let (tiles, writer) = (self.panels.tiles(), self.panels.writer());
            for tile in 0..tiles {
                // SAFETY: this thread packs all tiles.
                unsafe { writer.pack(simd, &source, tile, &mut Vec::new()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = x;
    }

    /// Computes the products with the weight rows of `range`, as [`gemv`].
    ///
    /// # Safety
    /// Nobody else accesses these rows' part of the output meanwhile.
    pub(super) unsafe fn multiply(
        &self,
        level: Level,
        weight: &Rows<'_>,
        range: Range<usize>,
        out: &SharedOut<'_>,
        out_stride: usize,
    ) {
        #[cfg(target_arch = "x86_64")]
        if Self::on_tiles(level, self.rows, weight)
            && let Some(amx) = Amx::new()
        {
            return tiles::gemv(amx, weight, range, &self.tiles, out, out_stride);
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(taken) = Self::on_panels(level, self.rows, weight) {
            // SAFETY: passed on from the caller.
            return unsafe { avx512::multiply(taken, weight, range, &self.panels, out, out_stride) };
        }
        if let Some((input, _)) = &self.input {
            gemv::gemv(level, weight, range, input, out, out_stride);
        }
    }
}
