//! Root-mean-square normalisation of one row (Zhang and Sennrich, 2019), in `f32` with four partial sums a vector lane.

use crate::isa::Level;
use crate::kernels::simd::{TileKernel, TileSimd, dispatch};

/// Computes `out = x / sqrt(mean(x²) + ε) · weight`; all three slices have the same length.
pub(crate) fn rms_norm(level: Level, x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "rms_norm: lengths differ");
    out.copy_from_slice(x);
    rms_norm_in_place(level, out, weight, epsilon);
}

/// As [`rms_norm`], replacing `x`.
pub(crate) fn rms_norm_in_place(level: Level, x: &mut [f32], weight: &[f32], epsilon: f32) {
    assert_eq!(x.len(), weight.len(), "rms_norm: lengths differ");
    dispatch(level, RmsNorm { x, weight, epsilon });
}

struct RmsNorm<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    epsilon: f32,
}

impl TileKernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: TileSimd>(self, s: S) {
        let mean = sum_of_squares(s, self.x) / self.x.len().max(1) as f32;
        let scale = 1.0 / (mean + self.epsilon).sqrt();
        let whole = self.x.len() / S::LANES * S::LANES;
        let (vectors, rest) = self.x.split_at_mut(whole);
        for (x, w) in vectors.chunks_exact_mut(S::LANES).zip(self.weight.chunks_exact(S::LANES)) {
            s.store(x, s.mul(s.mul(s.load(x), s.splat(scale)), s.load(w)));
        }
        for (x, w) in rest.iter_mut().zip(&self.weight[whole..]) {
            *x = *x * scale * w;
        }
    }
}

#[inline(always)]
fn sum_of_squares<S: TileSimd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    let mut blocks = x.chunks_exact(4 * S::LANES);
    for block in &mut blocks {
        for (sum, part) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            let v = s.load(part);
            *sum = s.mul_add(v, v, *sum);
        }
    }
    for part in blocks.remainder().chunks(S::LANES) {
        let v = s.load_partial(part, 0.0);
        sums[0] = s.mul_add(v, v, sums[0]);
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_data::{levels, noise};

    #[test]
    fn rows_of_any_length_match_the_definition() {
        for (n, size) in [(1, 1.0), (7, 1.0), (64, 1e-4), (100, 300.0), (2048, 1.0), (5632, 1e3)] {
            let x: Vec<f32> = noise(n, 3).iter().map(|v| v * size).collect();
            let weight = noise(n, 4);
            let mut expected = vec![0.0; n];
            woolly_tensor::ops::rms_norm(&x, &weight, 1e-5, &mut expected);
            for level in levels() {
                let mut out = vec![f32::NAN; n];
                rms_norm(level, &x, &weight, 1e-5, &mut out);
                for (i, (&o, &e)) in out.iter().zip(&expected).enumerate() {
                    assert!((o - e).abs() <= e.abs() * 2e-6, "{level:?} n={n} [{i}]: {o}, not {e}");
                }
            }
        }
    }
}
