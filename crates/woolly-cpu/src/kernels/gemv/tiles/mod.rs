//! Matrix times a few vectors on AMX tiles: decoding of several sequences at once.
//!
//! With each further vector the vector units take longer, until arithmetic and no longer reading is what counts. Tiles
//! multiply up to [`COLUMNS`] vectors at once. Sixteen weight rows, far apart as in [`super::driver`], are unpacked to
//! bytes, [`ELEMENTS`] columns at a time; a product of tiles sums over the weights that share a scale, and the sums are
//! scaled in `f32`. The activations are those of [`super::input`]: 8 bits, a scale for each 32.
//!
//! A tile has sixteen columns. Eight vectors or fewer leave half of them free, and then it sums two groups of weights at
//! once: columns `2c` and `2c + 1` are the two groups of vector `c`, which the zeros of the right operand keep apart.

mod columns;
mod formats;
#[cfg(test)]
mod tests;

use std::arch::x86_64::*;
use std::ops::Range;

use woolly_quant::TensorType;

use super::Rows;
use crate::buffer::SharedOut;
use crate::isa::{Amx, ByteDepth, ByteTiles, Simd};
pub(crate) use columns::Columns;
use columns::{Arrangement, Step};
use formats::{Format, Panel};

/// Most vectors that are multiplied at once.
pub(crate) const COLUMNS: usize = 16;

/// Vectors up to which a tile sums two groups of weights.
const NARROW: usize = COLUMNS / 2;

/// Weights of a row that are unpacked at a time: the block of the K-quants, or eight blocks of 32.
const ELEMENTS: usize = 256;

/// Rows of a tile.
const ROWS: usize = 16;

/// Bytes between a row's reading position and what is fetched for it.
const PREFETCH: usize = 1024;

/// Runs `$body` with `$format` naming the [`Format`] of a type: the list of types that are multiplied here.
macro_rules! with_format {
    ($ty:expr, $format:ident => $body:expr, _ => $other:expr) => {
        with_format!(@list $ty, $format, $body, $other;
            Q4_0: formats::Q40, IQ4_NL: formats::Iq4Nl, Q8_0: formats::Q80, Q4_K: formats::Q4K, Q5_K: formats::Q5K,
            Q6_K: formats::Q6K)
    };
    (@list $ty:expr, $format:ident, $body:expr, $other:expr; $($name:ident: $path:path),+) => {
        match $ty {
            $(TensorType::$name => { type $format = $path; $body })+
            _ => $other,
        }
    };
}

/// Whether `weight` can be multiplied here.
pub(crate) fn takes(weight: &Rows<'_>) -> bool {
    !super::exact(weight) && arrangement(weight.ty).is_some()
}

fn arrangement(ty: TensorType) -> Option<Arrangement> {
    with_format!(ty, F => Some(F::ARRANGEMENT), _ => None)
}

/// Computes `out[c · out_stride + r] = Σ w[r] · x[c]` for the rows `r` of `range` and all vectors `c` of `x`.
///
/// A row's result does not depend on `range`; it does on whether there are more than eight vectors, by rounding.
///
/// # Panics
/// When `range` is outside of the matrix, or `x` is not prepared for it.
pub(crate) fn gemv(amx: Amx, w: &Rows<'_>, range: Range<usize>, x: &Columns, out: &SharedOut<'_>, out_stride: usize) {
    assert!(range.end <= w.rows, "rows {range:?} of {}", w.rows);
    if range.is_empty() {
        return;
    }
    let product = Product { amx, w, range, x, out, out_stride };
    with_format!(w.ty, F => product.run::<F>(), _ => unreachable!("`takes` was asked"));
}

struct Product<'a> {
    amx: Amx,
    w: &'a Rows<'a>,
    range: Range<usize>,
    x: &'a Columns,
    out: &'a SharedOut<'a>,
    out_stride: usize,
}

/// What a thread works with; on its stack.
#[repr(C, align(64))]
struct Scratch {
    panel: Panel,
    /// Two pairs of products.
    sums: [[[[i32; 16]; ROWS]; 2]; 2],
    totals: [[f32; 16]; ROWS],
    /// The last bytes of rows that are no whole number of steps, and zeros, which are zero weights.
    padded: [[u8; formats::MOST_BYTES]; ROWS],
}

impl Product<'_> {
    fn run<F: Format>(&self) {
        let steps = self.x.steps(F::ARRANGEMENT, self.w.columns);
        let narrow = self.x.len() <= NARROW;
        let depth = match (F::ARRANGEMENT.group(), narrow) {
            (16, false) => ByteDepth::Sixteen,
            (_, false) | (16, true) => ByteDepth::ThirtyTwo,
            _ => ByteDepth::SixtyFour,
        };
        let tiles = self.amx.byte_tiles(depth);
        let mut scratch = Scratch {
            panel: Panel::new(),
            sums: [[[[0; 16]; ROWS]; 2]; 2],
            totals: [[0.0; 16]; ROWS],
            padded: [[0; formats::MOST_BYTES]; ROWS],
        };
        let apart = self.range.len().div_ceil(ROWS);
        for i in 0..apart {
            let rows: [usize; ROWS] =
                std::array::from_fn(|r| (self.range.start + r * apart + i).min(self.range.end - 1));
            // SAFETY: `amx` proves the instructions, and the tiles are configured for the depth.
            unsafe {
                match narrow {
                    true => self.group::<F, 2>(&tiles, &rows, steps, &mut scratch),
                    false => self.group::<F, 1>(&tiles, &rows, steps, &mut scratch),
                }
            }
            for (row, totals) in rows.iter().zip(&scratch.totals) {
                for c in 0..self.x.len() {
                    let total = if narrow { totals[2 * c] + totals[2 * c + 1] } else { totals[c] };
                    self.out.set(c * self.out_stride + row, total);
                }
            }
        }
    }

    /// Leaves the products of sixteen rows in `scratch.totals`, `[row][vector · G + group]`.
    ///
    /// # Safety
    /// The tiles are configured for a depth of `G` groups.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi,avx2,fma,f16c")]
    unsafe fn group<F: Format, const G: usize>(
        &self,
        tiles: &ByteTiles,
        rows: &[usize; ROWS],
        steps: &[Step],
        scratch: &mut Scratch,
    ) {
        let simd = self.amx.avx512();
        let row_bytes = self.w.bytes.len() / self.w.rows;
        let mut left = rows.map(|row| &self.w.bytes[row * row_bytes..][..row_bytes]);
        let depth = G * F::ARRANGEMENT.group();
        let pairs = ELEMENTS / depth / 2;
        let mut totals = [_mm512_setzero_ps(); ROWS];
        for step in steps {
            let whole = left[0].len() >= F::BYTES;
            let mut blocks = left;
            if !whole {
                for (padded, block) in scratch.padded.iter_mut().zip(&mut blocks) {
                    padded[..block.len()].copy_from_slice(block);
                    *block = padded;
                }
            }
            for (four, blocks) in blocks.as_chunks::<4>().0.iter().enumerate() {
                for block in blocks {
                    for line in (0..F::BYTES).step_by(64) {
                        simd.prefetch(block, PREFETCH + line);
                    }
                }
                let [a, b, c, d] = blocks;
                let blocks = [&a[..F::BYTES], &b[..F::BYTES], &c[..F::BYTES], &d[..F::BYTES]];
                F::unpack_four(simd, blocks, 4 * four, &mut scratch.panel);
            }
            for left in &mut left {
                *left = left.get(F::BYTES..).unwrap_or_default();
            }
            for pair in 0..=pairs {
                if pair < pairs {
                    let at = |tile: usize| (tile * depth / 64, tile * depth % 64);
                    let panel = |tile| scratch.panel.bytes[at(tile).0][0][at(tile).1..].as_ptr();
                    let right = |tile: usize| step.bytes[tile * depth * 16..].as_ptr();
                    // SAFETY: the panel and the step hold all products of the depth, and there is room for two.
                    unsafe {
                        tiles.products(
                            [panel(2 * pair), panel(2 * pair + 1)],
                            [right(2 * pair), right(2 * pair + 1)],
                            scratch.sums[pair % 2].as_mut_ptr().cast(),
                        );
                    }
                }
                // While the tiles are at it, the sums before.
                if pair > 0 {
                    let sums = &scratch.sums[(pair - 1) % 2];
                    scale::<F, G>(&mut totals, &sums[0], &scratch.panel, step, 2 * pair - 2);
                    scale::<F, G>(&mut totals, &sums[1], &scratch.panel, step, 2 * pair - 1);
                }
            }
        }
        for (to, total) in scratch.totals.iter_mut().zip(totals) {
            // SAFETY: sixteen floats are writable.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), total) };
        }
    }
}

/// Scales the sums of one product and adds them to the totals.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi,avx2,fma,f16c")]
fn scale<F: Format, const G: usize>(
    totals: &mut [__m512; ROWS],
    sums: &[[i32; 16]; ROWS],
    panel: &Panel,
    step: &Step,
    tile: usize,
) {
    // SAFETY: all are sixteen floats.
    let (x, x_sums) =
        unsafe { (_mm512_loadu_ps(step.scales[tile].as_ptr()), _mm512_loadu_ps(step.sums[tile].as_ptr())) };
    macro_rules! row {
        ($($row:literal)*) => { $({
            // SAFETY: sixteen integers.
            let sum = unsafe { _mm512_cvtepi32_ps(_mm512_loadu_si512(sums[$row].as_ptr().cast())) };
            let own = spread::<G>(&panel.scales[$row], tile);
            totals[$row] = _mm512_fmadd_ps(_mm512_mul_ps(sum, x), own, totals[$row]);
            if F::MINIMUMS {
                totals[$row] = _mm512_fnmadd_ps(x_sums, spread::<G>(&panel.scales[$row], tile + 8 / G), totals[$row]);
            }
        })* };
    }
    // Written out: in a loop, the compiler keeps the totals in memory.
    row!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
}

/// Repeats the `G` floats of a tile in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn spread<const G: usize>(from: &[f32; 16], tile: usize) -> __m512 {
    if G == 1 {
        return _mm512_set1_ps(from[tile]);
    }
    let two = u64::from(from[2 * tile].to_bits()) | u64::from(from[2 * tile + 1].to_bits()) << 32;
    _mm512_castsi512_ps(_mm512_set1_epi64(two.cast_signed()))
}
