//! Plain float matrices and rows: product, GELU, softmax and layer normalisation, all in `f32`.
//!
//! The product keeps a tile of the result in registers while it walks through packed strips of both operands (Goto and van
//! de Geijn, 2008): a block of `a` stays in the second cache, a panel of `b` in the first.

use woolly_tensor::Activation;

use crate::isa::Level;
use crate::kernels::activation::activate;
use crate::kernels::simd::{MAX_LANES, TileKernel, TileSimd, dispatch, exp};

/// Rows of `a` that are packed at a time.
const BLOCK_ROWS: usize = 480;
/// Columns of `a`, and rows of `b`, that are packed at a time.
const DEPTH: usize = 256;
/// Vectors across a tile.
const ACROSS: usize = 2;

/// Computes `c[m, n] = a[m, k] · b[k, n]`, all row-major.
pub(crate) fn matmul(level: Level, a: &[f32], b: &[f32], c: &mut [f32], [m, k, n]: [usize; 3]) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "matmul: slices do not fit");
    c.fill(0.0);
    if m > 0 && n > 0 && k > 0 {
        dispatch(level, Product { a, b, c, k, n });
    }
}

struct Product<'a> {
    a: &'a [f32],
    b: &'a [f32],
    c: &'a mut [f32],
    k: usize,
    n: usize,
}

impl TileKernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        if S::LANES == MAX_LANES { self.blocks::<S, 12>(s) } else { self.blocks::<S, 6>(s) }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn blocks<S: TileSimd, const ROWS: usize>(self, s: S) {
        let Self { a, b, c, k, n } = self;
        let width = ACROSS * S::LANES;
        let mut strips = vec![0.0; BLOCK_ROWS.next_multiple_of(ROWS) * DEPTH];
        let mut panel = vec![0.0; DEPTH * width];
        for (a, c) in a.chunks(BLOCK_ROWS * k).zip(c.chunks_mut(BLOCK_ROWS * n)) {
            for first in (0..k).step_by(DEPTH) {
                let depth = DEPTH.min(k - first);
                pack_strips::<ROWS>(a, k, first, depth, &mut strips);
                for column in (0..n).step_by(width) {
                    let columns = width.min(n - column);
                    pack_panel(b, n, first, column, columns, &mut panel[..depth * width], width);
                    for (strip, c) in strips.chunks_exact(depth * ROWS).zip(c.chunks_mut(ROWS * n)) {
                        let tile = tile::<S, ROWS>(s, strip, &panel[..depth * width]);
                        add::<S, ROWS>(s, &tile, c, n, column, columns);
                    }
                }
            }
        }
    }
}

/// Arranges columns `first..first + depth` of `a` as `[strip][depth][ROWS]`, with zeros below the last row.
#[inline(always)]
fn pack_strips<const ROWS: usize>(a: &[f32], k: usize, first: usize, depth: usize, strips: &mut [f32]) {
    for (rows, strip) in a.chunks(ROWS * k).zip(strips.chunks_exact_mut(depth * ROWS)) {
        if rows.len() < ROWS * k {
            strip.fill(0.0);
        }
        for (i, row) in rows.chunks_exact(k).enumerate() {
            for (to, &from) in strip.as_chunks_mut::<ROWS>().0.iter_mut().zip(&row[first..first + depth]) {
                to[i] = from;
            }
        }
    }
}

/// Arranges columns of `b` as `[depth][width]`, with zeros right of the last column.
#[inline(always)]
fn pack_panel(b: &[f32], n: usize, first: usize, column: usize, columns: usize, panel: &mut [f32], width: usize) {
    for (to, from) in panel.chunks_exact_mut(width).zip(b[first * n..].chunks(n)) {
        to[..columns].copy_from_slice(&from[column..column + columns]);
        to[columns..].fill(0.0);
    }
}

#[inline(always)]
fn tile<S: TileSimd, const ROWS: usize>(s: S, strip: &[f32], panel: &[f32]) -> [[S::F; ACROSS]; ROWS] {
    let mut sums = [[s.splat(0.0); ACROSS]; ROWS];
    for (a, b) in strip.as_chunks::<ROWS>().0.iter().zip(panel.chunks_exact(ACROSS * S::LANES)) {
        let b = [s.load(b), s.load(&b[S::LANES..])];
        for (sums, &a) in sums.iter_mut().zip(a) {
            let a = s.splat(a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = s.mul_add(a, b, *sum);
            }
        }
    }
    sums
}

/// Adds as much of a tile to `c` as lies inside.
#[inline(always)]
fn add<S: TileSimd, const ROWS: usize>(
    s: S,
    tile: &[[S::F; ACROSS]; ROWS],
    c: &mut [f32],
    n: usize,
    column: usize,
    columns: usize,
) {
    let mut row = [0.0; ACROSS * MAX_LANES];
    for (c, sums) in c.chunks_exact_mut(n).zip(tile) {
        s.store(&mut row, sums[0]);
        s.store(&mut row[S::LANES..], sums[1]);
        for (c, x) in c[column..column + columns].iter_mut().zip(&row) {
            *c += x;
        }
    }
}

/// Computes the tanh form of the Gaussian error linear unit of every element.
pub(crate) fn gelu(level: Level, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "gelu: lengths differ");
    out.copy_from_slice(x);
    dispatch(level, Gelu(out));
}

struct Gelu<'a>(&'a mut [f32]);

impl TileKernel for Gelu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        map(s, self.0, 0.0, |x| activate(s, Activation::Gelu, x));
    }
}

/// Computes the softmax of one row; a row whose entries are all −∞ becomes zeros, one with a NaN all NaN.
pub(crate) fn softmax(level: Level, x: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len(), "softmax: lengths differ");
    out.copy_from_slice(x);
    dispatch(level, Softmax(out));
}

struct Softmax<'a>(&'a mut [f32]);

impl TileKernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        let row = self.0;
        let max = s.max_lane(fold(s, row, f32::NEG_INFINITY, |max, x| s.max(x, max), |a, b| s.max(a, b)));
        if max == f32::NEG_INFINITY && row.iter().all(|&x| x == f32::NEG_INFINITY) {
            return row.fill(0.0);
        }
        let max = s.splat(max);
        map(s, row, f32::NEG_INFINITY, |x| exp(s, s.sub(x, max)));
        let sum = s.sum(fold(s, row, 0.0, |sum, x| s.add(sum, x), |a, b| s.add(a, b)));
        let scale = s.splat(1.0 / sum);
        map(s, row, 0.0, |x| s.mul(x, scale));
    }
}

/// Normalises one row: `out = (x − mean) / sqrt(variance + ε) · weight + bias` (Ba et al., 2016).
pub(crate) fn layer_norm(level: Level, x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    let fit = [weight.len(), bias.len(), out.len()].iter().all(|&len| len == x.len());
    assert!(fit, "layer_norm: lengths differ");
    out.copy_from_slice(x);
    dispatch(level, LayerNorm { row: out, weight, bias, epsilon });
}

struct LayerNorm<'a> {
    row: &'a mut [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl TileKernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        let Self { row, weight, bias, epsilon } = self;
        let count = row.len().max(1) as f32;
        let mean = s.sum(fold(s, row, 0.0, |sum, x| s.add(sum, x), |a, b| s.add(a, b))) / count;
        row.iter_mut().for_each(|x| *x -= mean);
        // Of differences from the mean, so that large values with a small spread lose nothing.
        let squares = s.sum(fold(s, row, 0.0, |sum, x| s.mul_add(x, x, sum), |a, b| s.add(a, b)));
        let scale = s.splat(1.0 / (squares / count + epsilon).sqrt());
        for ((x, w), b) in row.chunks_mut(S::LANES).zip(weight.chunks(S::LANES)).zip(bias.chunks(S::LANES)) {
            if x.len() == S::LANES {
                s.store(x, s.mul_add(s.mul(s.load(x), scale), s.load(w), s.load(b)));
            } else {
                let scaled = s.mul(s.load_partial(x, 0.0), scale);
                s.store_partial(s.mul_add(scaled, s.load_partial(w, 0.0), s.load_partial(b, 0.0)), x);
            }
        }
    }
}

/// Replaces every element; the last vector is filled up with `fill`.
#[inline(always)]
fn map<S: TileSimd>(s: S, row: &mut [f32], fill: f32, f: impl Fn(S::F) -> S::F) {
    for x in row.chunks_mut(S::LANES) {
        if x.len() == S::LANES {
            s.store(x, f(s.load(x)));
        } else {
            s.store_partial(f(s.load_partial(x, fill)), x);
        }
    }
}

/// Combines all elements with `f` in four vectors, and these with `join`; `neutral` changes nothing.
#[inline(always)]
fn fold<S: TileSimd>(
    s: S,
    row: &[f32],
    neutral: f32,
    f: impl Fn(S::F, S::F) -> S::F,
    join: impl Fn(S::F, S::F) -> S::F,
) -> S::F {
    let mut parts = [s.splat(neutral); 4];
    let mut blocks = row.chunks_exact(4 * S::LANES);
    for block in &mut blocks {
        for (part, x) in parts.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *part = f(*part, s.load(x));
        }
    }
    for x in blocks.remainder().chunks(S::LANES) {
        parts[0] = f(parts[0], s.load_partial(x, neutral));
    }
    join(join(parts[0], parts[1]), join(parts[2], parts[3]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::{levels, noise};
    use woolly_tensor::ops;

    const LENGTHS: [usize; 8] = [1, 7, 16, 33, 64, 100, 257, 1000];

    #[test]
    fn products_of_every_shape_match_the_definition() {
        let shapes =
            [[1, 1, 1], [1, 300, 1], [3, 5, 7], [12, 16, 32], [13, 257, 33], [25, 40, 65], [500, 9, 3], [2, 600, 70]];
        for (level, shape) in levels().into_iter().flat_map(|level| shapes.map(|shape| (level, shape))) {
            let [m, k, n] = shape;
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            let (mut c, mut expected) = (vec![f32::NAN; m * n], vec![0.0; m * n]);
            matmul(level, &a, &b, &mut c, shape);
            ops::matmul(&a, &b, &mut expected, m, k, n);
            for (i, (found, expected)) in c.iter().zip(&expected).enumerate() {
                // Rounding of a sum of k products: each adds at most half a unit of the largest partial sum.
                let bound = 2e-7 * k as f32;
                assert!((found - expected).abs() <= bound, "{level:?} {shape:?} at {i}: {found}, not {expected}");
            }
        }
        matmul(Level::best(), &[], &[], &mut [], [0, 3, 0]);
        let mut zeros = [1.0; 2];
        matmul(Level::best(), &[], &[], &mut zeros, [1, 0, 2]);
        assert_eq!(zeros, [0.0; 2], "a sum of nothing");
    }

    #[test]
    fn rows_match_the_definitions() {
        for (level, len) in levels().into_iter().flat_map(|level| LENGTHS.map(|len| (level, len))) {
            let x: Vec<f32> = noise(len, 3).iter().map(|x| x * 8.0 + 100.0).collect();
            let (weight, bias) = (noise(len, 4), noise(len, 5));
            let near = |found: &[f32], expected: &[f32], bound: f32, what: &str| {
                for (found, expected) in found.iter().zip(expected) {
                    assert!((found - expected).abs() <= bound, "{level:?} {what}({len}): {found}, not {expected}");
                }
            };
            let (mut out, mut expected) = (vec![0.0; len], vec![0.0; len]);
            layer_norm(level, &x, &weight, &bias, 1e-5, &mut out);
            ops::layer_norm(&x, &weight, &bias, 1e-5, &mut expected);
            near(&out, &expected, 1e-4, "layer_norm");
            softmax(level, &x, &mut out);
            expected.copy_from_slice(&x);
            ops::softmax(&mut expected);
            near(&out, &expected, 1e-6, "softmax");
            gelu(level, &bias, &mut out);
            let expected: Vec<f32> = bias.iter().map(|&x| ops::gelu(x)).collect();
            near(&out, &expected, 1e-6, "gelu");
        }
    }

    #[test]
    fn softmax_survives_extremes() {
        let (low, nan) = (f32::NEG_INFINITY, f32::NAN);
        for level in levels() {
            let mut out = [7.0; 3];
            softmax(level, &[low, low, low], &mut out);
            assert_eq!(out, [0.0; 3]);
            softmax(level, &[1000.0, low, -1000.0], &mut out);
            assert_eq!(out, [1.0, 0.0, 0.0]);
            softmax(level, &[1.0, nan, 2.0], &mut out);
            assert!(out.iter().all(|x| x.is_nan()), "{level:?} {out:?}");
            softmax(level, &[], &mut []);
        }
    }
}
