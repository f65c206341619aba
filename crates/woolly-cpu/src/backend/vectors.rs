//! The vectors of a product with few rows, prepared for the kernel that suits each weight.

use std::ops::Range;

use crate::buffer::SharedOut;
#[cfg(target_arch = "x86_64")]
use crate::isa::Amx;
use crate::isa::Level;
#[cfg(target_arch = "x86_64")]
use crate::kernels::gemv::tiles::{self, Columns};
use crate::kernels::gemv::{Input, MAX_COLUMNS, Rows, gemv};

/// Vectors from which on tiles are faster than the vector units.
#[cfg(target_arch = "x86_64")]
const FEWEST_ON_TILES: usize = 3;

/// Returns the number of vectors up to which each has the same results, to the last bit, in any company.
pub(super) fn uniform(level: Level) -> usize {
    #[cfg(target_arch = "x86_64")]
    if level >= Level::Amx {
        return FEWEST_ON_TILES - 1;
    }
    let _ = level;
    MAX_COLUMNS
}

/// Up to [`MAX_COLUMNS`] vectors, or as many as tiles take where all weights are multiplied on them.
#[derive(Debug, Default)]
pub(super) struct Vectors {
    rows: usize,
    columns: usize,
    /// With the longest vectors it has room for.
    input: Option<(Input, usize)>,
    #[cfg(target_arch = "x86_64")]
    tiles: Columns,
}

impl Vectors {
    /// Whether products of so many rows with this weight are computed on tiles.
    pub(super) fn on_tiles(level: Level, rows: usize, weight: &Rows<'_>) -> bool {
        #[cfg(target_arch = "x86_64")]
        return level >= Level::Amx
            && (FEWEST_ON_TILES..=tiles::COLUMNS).contains(&rows)
            && tiles::takes(weight)
            && Amx::new().is_some();
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (level, rows, weight);
            false
        }
    }

    /// Makes room for vectors of `columns` elements; what is not used takes no memory.
    pub(super) fn reserve(&mut self, columns: usize) {
        if self.input.as_ref().is_none_or(|(_, room)| *room < columns) {
            self.input = Some((Input::with_capacity(MAX_COLUMNS, columns), columns));
        }
        #[cfg(target_arch = "x86_64")]
        self.tiles.reserve(columns);
    }

    /// Begins with other vectors; allocates only when they are longer than any there was room for.
    pub(super) fn reset(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        self.reserve(columns);
        if let Some((input, _)) = &mut self.input {
            input.invalidate();
        }
        #[cfg(target_arch = "x86_64")]
        self.tiles.reset(rows.min(tiles::COLUMNS), columns);
    }

    /// Prepares `x`, `[rows, columns]`, for `weight`.
    pub(super) fn prepare(&mut self, level: Level, weight: &Rows<'_>, x: &[f32]) {
        #[cfg(target_arch = "x86_64")]
        if Self::on_tiles(level, self.rows, weight) {
            return self.tiles.prepare(level, weight.ty, x);
        }
        if let Some((input, _)) = &mut self.input {
            input.prepare(level, weight, x, self.rows, self.columns);
        }
    }

    /// Computes the products with the weight rows of `range`, as [`gemv`].
    pub(super) fn multiply(
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
        if let Some((input, _)) = &self.input {
            gemv(level, weight, range, input, out, out_stride);
        }
    }
}
