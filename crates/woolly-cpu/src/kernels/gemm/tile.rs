//! The innermost loops: two vectors of weight rows times a few activation rows, over one piece of columns.

use super::lanes::Ahead;
use super::pack::TILE;
use super::panel::Panel;
use super::unpack::PIECE;
use crate::kernels::simd::TileSimd;

/// In place of the largest weight: bytes are signed.
pub(super) const SIGNED: u8 = 0;

/// In place of the largest weight: bytes are in halves of four bits, the low ones of all quads before the high ones.
pub(super) const HALVES: u8 = 1;

/// One tile of activations in integer form, for one piece; layouts as in [`super::pack`].
#[derive(Clone, Copy)]
pub(super) struct IntTile<'a> {
    pub(super) quads: &'a [i32],
    pub(super) scales: &'a [f32],
    pub(super) start: &'a [i32],
    pub(super) sums: &'a [f32],
}

/// Adds the products of `groups` groups to `c`, `[TILE][2][LANES]`, for rows `0..rows` of the tile rounded up to the
/// register tile.
///
/// No byte of a weight is above `LARGEST`; with [`SIGNED`] they are signed and take no offset, with [`HALVES`] they are what
/// [`Panel`] says of those.
#[inline(always)]
pub(super) fn integers<S: TileSimd, const QUADS: usize, const MINIMUM: bool, const LARGEST: u8>(
    s: S,
    panel: &Panel,
    x: IntTile<'_>,
    groups: usize,
    rows: usize,
    ahead: &mut Ahead,
    c: &mut [f32],
) {
    let per_scale = 8 / QUADS;
    let of_weights = if LARGEST == HALVES { 2 * PIECE / 4 } else { groups * QUADS };
    assert!(groups * QUADS <= PIECE / 4 && of_weights * 2 * S::LANES <= panel.quads.len());
    assert!(groups * 2 * S::LANES <= panel.scales.len());
    assert!(groups * QUADS * TILE <= x.quads.len() && groups.div_ceil(per_scale) * TILE <= x.scales.len());
    assert!(groups * TILE <= x.start.len() && groups * TILE <= x.sums.len() && c.len() >= TILE * 2 * S::LANES);
    ahead.step(s);
    // SAFETY: the assertions cover every element read and written, for all `TILE` rows.
    unsafe {
        if S::INT_TILE == TILE && rows > TILE / 2 {
            int_tile::<S, TILE, QUADS, MINIMUM, LARGEST>(s, panel, x, groups, 0, c);
            return;
        }
        int_tile::<S, { TILE / 2 }, QUADS, MINIMUM, LARGEST>(s, panel, x, groups, 0, c);
        if rows > TILE / 2 {
            ahead.step(s);
            int_tile::<S, { TILE / 2 }, QUADS, MINIMUM, LARGEST>(s, panel, x, groups, TILE / 2, c);
        }
    }
}

/// Computes rows `first..first + T` of a tile.
///
/// # Safety
/// The operands hold `groups` groups of `TILE` rows, and `c` a whole tile.
#[inline(always)]
unsafe fn int_tile<S: TileSimd, const T: usize, const QUADS: usize, const MINIMUM: bool, const LARGEST: u8>(
    s: S,
    panel: &Panel,
    x: IntTile<'_>,
    groups: usize,
    first: usize,
    c: &mut [f32],
) {
    // SAFETY: every offset below stays within the sizes the caller vouches for.
    unsafe {
        let c = c.as_mut_ptr().add(first * 2 * S::LANES);
        let mut sums = [[s.splat(0.0); 2]; T];
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum = [s.load_at(c.add(2 * t * S::LANES)), s.load_at(c.add((2 * t + 1) * S::LANES))];
        }
        let mut weights = panel.quads.as_ptr();
        let mut quads = x.quads.as_ptr().add(first);
        for group in 0..groups {
            let start = x.start.as_ptr().add(group * TILE + first);
            let mut acc = [[s.splat_int(0); 2]; T];
            if LARGEST == HALVES {
                s.dots::<T, QUADS, 15>(&mut acc, weights.add(PIECE / 4 * 2 * S::LANES), quads, TILE);
                for acc in acc.as_flattened_mut() {
                    *acc = s.shift_left(*acc, 4);
                }
            }
            if LARGEST != SIGNED && !MINIMUM {
                for (t, acc) in acc.iter_mut().enumerate() {
                    let start = s.splat_int(*start.add(t));
                    *acc = [s.add_int(acc[0], start), s.add_int(acc[1], start)];
                }
            }
            match LARGEST {
                SIGNED => s.dots_signed::<T, QUADS>(&mut acc, weights, quads, TILE),
                HALVES => s.dots::<T, QUADS, 15>(&mut acc, weights, quads, TILE),
                _ => s.dots::<T, QUADS, LARGEST>(&mut acc, weights, quads, TILE),
            }
            weights = weights.add(QUADS * 2 * S::LANES);
            quads = quads.add(QUADS * TILE);
            let scales = panel.scales.as_ptr().add(group * 2 * S::LANES);
            let scales = [s.load_at(scales), s.load_at(scales.add(S::LANES))];
            let factors = x.scales.as_ptr().add(group / (8 / QUADS) * TILE + first);
            for (t, (sum, acc)) in sums.iter_mut().zip(acc).enumerate() {
                let factor = s.splat(*factors.add(t));
                for v in 0..2 {
                    sum[v] = s.mul_add(s.mul(s.to_float(acc[v]), scales[v]), factor, sum[v]);
                }
            }
            if MINIMUM {
                let minimums = panel.minimums.as_ptr().add(group * 2 * S::LANES);
                let minimums = [s.load_at(minimums), s.load_at(minimums.add(S::LANES))];
                let totals = x.sums.as_ptr().add(group * TILE + first);
                for (t, sum) in sums.iter_mut().enumerate() {
                    let total = s.splat(*totals.add(t));
                    *sum = [s.mul_add(minimums[0], total, sum[0]), s.mul_add(minimums[1], total, sum[1])];
                }
            }
        }
        for (t, sum) in sums.iter().enumerate() {
            s.store_at(sum[0], c.add(2 * t * S::LANES));
            s.store_at(sum[1], c.add((2 * t + 1) * S::LANES));
        }
    }
}

/// Adds the products of `columns` columns to `c`, `[TILE][2][LANES]`; `x` is `[columns][TILE]`, `panel` its float part.
#[inline(always)]
pub(super) fn floats<S: TileSimd>(s: S, panel: &Panel, x: &[f32], columns: usize, rows: usize, c: &mut [f32]) {
    assert!(columns * 2 * S::LANES <= panel.floats.len() && columns * TILE <= x.len());
    assert!(c.len() >= TILE * 2 * S::LANES);
    // SAFETY: the assertions cover every element read and written.
    unsafe {
        if rows > TILE / 2 {
            float_tile::<S, TILE>(s, panel, x, columns, c);
        } else {
            float_tile::<S, { TILE / 2 }>(s, panel, x, columns, c);
        }
    }
}

/// # Safety
/// As [`floats`] asserts.
#[inline(always)]
unsafe fn float_tile<S: TileSimd, const T: usize>(s: S, panel: &Panel, x: &[f32], columns: usize, c: &mut [f32]) {
    // SAFETY: every offset below stays within the sizes the caller vouches for.
    unsafe {
        let c = c.as_mut_ptr();
        let mut sums = [[s.splat(0.0); 2]; T];
        for (t, sum) in sums.iter_mut().enumerate() {
            *sum = [s.load_at(c.add(2 * t * S::LANES)), s.load_at(c.add((2 * t + 1) * S::LANES))];
        }
        let (mut weights, mut x) = (panel.floats.as_ptr(), x.as_ptr());
        for _ in 0..columns {
            let w = [s.load_at(weights), s.load_at(weights.add(S::LANES))];
            for (t, sum) in sums.iter_mut().enumerate() {
                let a = s.splat(*x.add(t));
                *sum = [s.mul_add(w[0], a, sum[0]), s.mul_add(w[1], a, sum[1])];
            }
            weights = weights.add(2 * S::LANES);
            x = x.add(TILE);
        }
        for (t, sum) in sums.iter().enumerate() {
            s.store_at(sum[0], c.add(2 * t * S::LANES));
            s.store_at(sum[1], c.add((2 * t + 1) * S::LANES));
        }
    }
}
