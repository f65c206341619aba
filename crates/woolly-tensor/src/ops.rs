//! Elementwise and row operations on plain slices: the scalar definitions everything faster is compared with.
//!
//! Values are `f32`, sums run in `f64`. Lengths are the caller's business and are checked with a panic, because a
//! wrong one is a programming error here; the [`crate::Backend`] operations return errors instead.

use crate::Activation;

/// Multiplies two row-major matrices: `c[m, n] = a[m, k] · b[k, n]`.
///
/// # Panics
/// When the slices are not of the sizes given.
pub fn matmul(a: &[f32], b: &[f32], c: &mut [f32], m: usize, k: usize, n: usize) {
    assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "matmul: slices do not match m={m}, k={k}, n={n}");
    for i in 0..m {
        for j in 0..n {
            let sum: f64 = (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum();
            c[i * n + j] = sum as f32;
        }
    }
}

/// Returns the inner product of two vectors of equal length, accumulated in `f64`.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// Normalises one row: `out = x / sqrt(mean(x²) + ε) · w` (Zhang and Sennrich, 2019).
///
/// # Panics
/// When the three slices differ in length.
pub fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == out.len(), "rms_norm: lengths differ");
    let mean = dot(x, x) / x.len().max(1) as f64;
    let scale = 1.0 / (mean + f64::from(epsilon)).sqrt();
    for ((o, &v), &w) in out.iter_mut().zip(x).zip(weight) {
        *o = (f64::from(v) * scale * f64::from(w)) as f32;
    }
}

/// Normalises one row: `out = (x − mean) / sqrt(variance + ε) · w + b` (Ba et al., 2016).
///
/// # Panics
/// When the slices differ in length.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], epsilon: f32, out: &mut [f32]) {
    assert!(x.len() == weight.len() && x.len() == bias.len() && x.len() == out.len(), "layer_norm: lengths differ");
    let n = x.len().max(1) as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(epsilon)).sqrt();
    for (i, o) in out.iter_mut().enumerate() {
        *o = ((f64::from(x[i]) - mean) * scale * f64::from(weight[i]) + f64::from(bias[i])) as f32;
    }
}

/// Replaces a row of scores by their softmax; a row whose entries are all `-∞` becomes zeros, one with a NaN all NaN.
pub fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if row.iter().all(|&x| x == f32::NEG_INFINITY) {
        row.fill(0.0);
        return;
    }
    let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
    for x in row {
        *x = (f64::from(*x - max).exp() / sum) as f32;
    }
}

/// Returns `x · sigmoid(x)`.
pub fn silu(x: f32) -> f32 {
    let x = f64::from(x);
    (x / (1.0 + (-x).exp())) as f32
}

/// Returns the tanh form of the Gaussian error linear unit (Hendrycks and Gimpel, 2016).
pub fn gelu(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
    let x = f64::from(x);
    (0.5 * x * (1.0 + (SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)).tanh())) as f32
}

/// Applies `activation` to one value.
pub fn activate(activation: Activation, x: f32) -> f32 {
    match activation {
        Activation::Silu => silu(x),
        Activation::Gelu => gelu(x),
    }
}

/// Returns `1 / (1 + e^−x)`.
pub fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + f64::from(-x).exp())) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matmul_multiplies_rows_by_columns() {
        let mut c = [0.0; 4];
        matmul(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[7.0, 8.0, 9.0, 10.0, 11.0, 12.0], &mut c, 2, 3, 2);
        assert_eq!(c, [58.0, 64.0, 139.0, 154.0]);
    }

    #[test]
    fn norms_follow_their_definitions() {
        let mut out = [0.0; 2];
        rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0, &mut out);
        let rms = 12.5_f32.sqrt();
        assert!((out[0] - 3.0 / rms).abs() < 1e-6 && (out[1] - 8.0 / rms).abs() < 1e-6);
        layer_norm(&[1.0, 3.0], &[1.0, 1.0], &[0.5, 0.5], 0.0, &mut out);
        assert_eq!(out, [-0.5, 1.5]);
    }

    #[test]
    fn softmax_sums_to_one_and_survives_extremes() {
        let cases: [(&[f32], &[f32]); 3] = [
            (&[0.0, 0.0], &[0.5, 0.5]),
            (&[1000.0, -1000.0], &[1.0, 0.0]),
            (&[f32::NEG_INFINITY, f32::NEG_INFINITY], &[0.0, 0.0]),
        ];
        for (scores, expected) in cases {
            let mut row = scores.to_vec();
            softmax(&mut row);
            assert_eq!(row, expected, "softmax of {scores:?}");
        }
    }

    #[test]
    fn softmax_does_not_hide_what_is_not_a_number() {
        for scores in [&[f32::NAN][..], &[f32::NAN, f32::NAN], &[f32::NAN, 1.0], &[f32::NEG_INFINITY, f32::NAN]] {
            let mut row = scores.to_vec();
            softmax(&mut row);
            assert!(row.iter().all(|x| x.is_nan()), "softmax of {scores:?} is {row:?}");
        }
    }

    #[test]
    fn activations_match_published_values() {
        // silu(1) = 1/(1+1/e); gelu_tanh(1) = 0.841192 (Hendrycks and Gimpel, 2016, tanh form).
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-6);
        assert!((gelu(1.0) - 0.841_192).abs() < 1e-6);
        assert_eq!((silu(0.0), gelu(0.0), sigmoid(0.0)), (0.0, 0.0, 0.5));
    }
}
